"""What is added inside the house: a file of its own, and a line in the table of its folder."""

import ast
from pathlib import Path

import pytest

import mixtura
from mixtura.core import FAMILIES
from mixtura.datasets import DATASETS
from mixtura.encoders import ENCODERS
from mixtura.heads import HEADS
from mixtura.objectives import HEAD_OBJECTIVES
from mixtura.recipe import Recipe

SOURCE = Path(mixtura.__file__).parent
TABLES = {
    "family": (FAMILIES, "core/__init__.py"),
    "head": (HEADS, "heads/__init__.py"),
    "encoder": (ENCODERS, "encoders/__init__.py"),
    "data set": (DATASETS, "datasets/__init__.py"),
    "objective": (HEAD_OBJECTIVES, "objectives/__init__.py"),
}
DEFAULTS = {Recipe().head.name, Recipe().encoder.name, Recipe().data.kind, Recipe().fit.objective}
"""Every command may speak of what it takes where nothing is said."""

ALLOWED = {
    "sweep_sections.py": {"spherical", "diagonal", "tied", "linear"},  # the default of sweep.heads
    "core/selection.py": {"diagonal", "lowrank", "tied", "full"},  # what "auto" tries, and which data each needs
    "core/cross_fitting.py": {"diagonal"},  # variances of features, for sums that hold none
    "features/selection.py": {"tied"},  # the family by which "auto" screens projections
    "features/block_selection.py": {"tied"},  # the family by which "auto" screens layers
    "scores/base.py": {"tied"},  # the covariance in whose metric Mahalanobis distances are
    "fitting/gradient.py": {"tied"},  # the density beside a head that has none
    "heads/__init__.py": {"spherical", "diagonal", "full"},  # heads as papers call them
    "heads/init.py": {"spherical", "tied"},  # how heads begin: by clusters, by linear discriminant analysis
    "heads/gaussian.py": {"spherical"},  # the default of the class, as in the paper
    "heads/quadratic_map.py": {"diagonal", "full"},
    "heads/sdgm.py": {"diagonal", "full"},  # its quadratic terms, which are no covariances
    "tasks/cluster_methods.py": {"full"},  # what the method "mixture" of clustering is
    "sklearn/layouts.py": {"spherical", "diagonal", "lowrank", "tied", "full"},  # covariance_type of scikit-learn
    "sklearn/gaussian.py": {"full"},  # the default of covariance_type in scikit-learn
    "sklearn/classifier.py": {"tied"},  # what partial_fit takes for "auto", where nothing can be held out
    "testing/covariance_laws.py": {"spherical", "tied", "full"},  # covariance_type of scikit-learn, the oracle
    "training/embedding.py": {"linear"},  # an embedder
    "training/subclasses.py": {"linear"},  # an embedder
    "coarse_sections.py": {"linear"},  # an embedder
    "training/kept_embedder.py": {"linear"},  # the same
    "fitting/vector_subclasses.py": {"linear"},  # an embedder
    "cli/subclasses.py": {"linear"},  # an embedder
    "encoders/lite0.py": {"timm"},  # the library
    "encoders/torchvision_repair.py": {"timm"},  # the library
    "encoders/soundnet_weights.py": {"soundnet"},  # the folder of its converted weights
    "datasets/quality.py": {"tiny"},  # a flaw of a photo
    "datasets/items.py": {"audio"},  # a modality
    "datasets/listing.py": {"audio"},  # a modality
    "datasets/npz.py": {"audio"},  # a modality
    "datasets/esc.py": {"audio"},  # a modality, and a column of its list
    "pipeline/factory.py": {"audio"},  # a modality
    "pipeline/data_source.py": {"audio"},  # a folder of sounds, told by the endings of its files
    "tasks/collection.py": {"audio", "csv", "nested"},  # kinds whose items are files that a list can name
    "tasks/evaluate.py": {"nested"},  # what a folder may be, if the model's own is
    "tasks/fewshot.py": {"prototype"},  # a few-shot classifier
    "datasets/episodes.py": {"omniglot-runs"},  # the protocol
    "records/few_shot.py": {"omniglot-runs"},  # the protocol
    "cli/fewshot.py": {"omniglot-runs"},  # the protocol
    "tasks/import_features.py": {"npz"},  # the ending of an archive of arrays
    "tasks/demo.py": {"demo"},  # the data of the command demo
    "tasks/doctor.py": {"demo"},  # the data that come with mixtura
    "cli/options.py": {"own"},  # a parameter of a command beside those of a section
    "report/training.py": {"pixels"},  # a key of the section train
    "onnx/graph.py": {"own"},  # the scores of an item's own class
    "report/map.py": {"own"},  # a class of dots on a page
    "cli/__init__.py": {"demo"},  # the command
    "cli/predict.py": {"csv"},  # a list of files, told by its ending
    "cli/demo.py": {"demo"},  # the folder that the command proposes
    "renames.py": {"hybrid"},  # what recipes of an earlier mixtura said
    "sweeps/earlier.py": {"hybrid"},  # what runs of an earlier mixtura said
}
"""File -> names that stand in it for another reason, which the comment gives."""


def strings(path):
    """Every string of a file that is no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in told)
    return {node.value for node in constants if isinstance(node.value, str)}


STRINGS = {path.relative_to(SOURCE).as_posix(): strings(path) for path in sorted(SOURCE.rglob("*.py"))}
ENTRIES = [(kind, name) for kind, (table, _) in TABLES.items() for name in table if name not in DEFAULTS]


def own_file(target):
    return Path(*target.partition(":")[0].split(".")[1:]).with_suffix(".py").as_posix()


def strange(kind, name):
    """The files that name an entry and are neither its own nor that of its table."""
    table, home = TABLES[kind]
    return {file for file, found in STRINGS.items() if name in found and file not in (home, own_file(table[name]))}


@pytest.mark.parametrize(("kind", "name"), ENTRIES, ids=lambda value: value)
def test_a_name_stands_in_its_own_file_and_in_the_table_only(kind, name):
    found = {file for file in strange(kind, name) if name not in ALLOWED.get(file, ())}
    assert not found, f"{sorted(found)} name the {kind} {name!r}: ask a question of the class instead"


def test_every_exception_is_needed():
    needed = {(file, name) for kind, name in ENTRIES for file in strange(kind, name)}
    assert {(file, name) for file, kinds in ALLOWED.items() for name in kinds} == needed


def test_every_entry_has_a_file_of_its_own():
    for table, home in TABLES.values():
        for name, target in table.items():
            assert own_file(target) in STRINGS and own_file(target) != home, name


def test_a_switch_on_a_name_is_seen():
    """The test above finds what it looks for: a string in a comparison, a key of a dict, a default."""
    module = SOURCE / "sweep_sections.py"
    assert {"tied", "linear"} <= strings(module)
    assert "A data set of mixtura" not in strings(SOURCE / "sections.py")
