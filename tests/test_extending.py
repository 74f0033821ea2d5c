"""What someone adds without touching mixtura: one file, named as ``package.module:Attribute`` wherever a name goes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import mixtura as public
from mixtura import names
from mixtura.cli.app import run
from mixtura.core import FAMILIES
from mixtura.core.covariance import family_of
from mixtura.errors import BundleError, UsageError, WrongKind
from mixtura.features.extract import check_kinds, extract
from mixtura.features.store import FeatureStore
from mixtura.fitting import heads
from mixtura.fitting.fit import check_names
from mixtura.heads import HEADS
from mixtura.model import bundle
from mixtura.onnx import runner
from mixtura.pipeline import factory
from mixtura.pipeline.thumbnails import thumbnails
from mixtura.recipe import resolve
from mixtura.sections import DataSection, EncoderSection, StepSection
from mixtura.tasks import evaluate
from mixtura.tasks.collection import open_collection

HERE = Path(__file__).parent / "extensions"
DATA = ("outside:load", "--encoder", "outside:Grid", "-q")
FAMILY = ("--family", "outside:Blend")
HEAD = ("--head", "outside:Nearest", "--solver", "gradient", "--objective", "outside:Brier", "--epochs", "3")


@pytest.fixture(scope="module", autouse=True)
def installed():
    """The package can be imported, and the user trusts it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        patch.setenv(names.EXTENSIONS_VARIABLE, "outside")
        yield


@pytest.fixture(scope="module")
def made(installed, tmp_path_factory):
    """A folder with a model of the outside family, one of the outside head and objective, and photos."""
    import outside

    root = tmp_path_factory.mktemp("made")
    assert run(["fit", *DATA, "-o", str(root / "family"), *FAMILY]) == 0
    assert run(["fit", *DATA, "-o", str(root / "head"), *HEAD]) == 0
    for number in range(100, 104):
        Image.fromarray(outside.photo("plum", number)).save(root / f"{number}.png")
    return root


@pytest.fixture
def stranger(monkeypatch):
    """Someone who was sent a model and has not been told of the package."""
    monkeypatch.delenv(names.EXTENSIONS_VARIABLE)
    monkeypatch.delitem(sys.modules, "outside", raising=False)


def photos(root):
    return [root / f"{number}.png" for number in range(100, 104)]


def told(capsys, *arguments):
    """What a command prints as JSON."""
    capsys.readouterr()
    assert run([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["family", "head"])
def test_a_model_names_what_it_is_made_of_and_comes_back(made, kind):
    model = bundle.from_pretrained(made / kind)
    config = bundle.config_of(made / kind)
    assert config.encoder.name == config.identity["name"] == "outside:Grid"
    if kind == "family":
        assert config.family == "outside:Blend" and config.head is None
        assert type(model.mixture.covariance) is family_of("outside:Blend")
    else:
        assert config.head["name"] == "outside:Nearest"
        assert bundle.recipe_of(made / kind).fit.objective == "outside:Brier"
        assert model.facts["objective"] == "outside:Brier"


@pytest.mark.parametrize("kind", ["family", "head"])
def test_every_command_takes_such_a_model(made, kind, capsys, tmp_path):
    answers = told(capsys, "predict", made / kind, *photos(made))
    assert {answer["label"] for answer in answers} == {"plum"}
    assert told(capsys, "evaluate", made / kind)["metrics"]["top1"] > 0.9
    assert told(capsys, "evaluate", made / kind, "outside:load")["metrics"]["top1"] > 0.9
    assert run(["report", str(made / kind), "-q"]) == 0
    page = (made / kind / "report.html").read_text()
    assert "outside:Grid" in page


@pytest.mark.parametrize("kind", ["family", "head"])
def test_the_exported_graph_answers_as_the_model_does(made, kind, tmp_path):
    assert run(["export", str(made / kind), "-o", str(tmp_path / "graph"), "-q"]) == 0
    away = runner.Runner(str(tmp_path / "graph")).photos([str(path) for path in photos(made)])
    here = public.predict(made / kind, photos(made))
    for theirs, ours in zip(away, here, strict=True):
        assert theirs["label"] == ours.label and theirs["verdict"] == ours.verdict
        assert theirs["probability"] == pytest.approx(ours.probability, abs=1e-4)
        assert theirs["typicality"] == pytest.approx(ours.typicality, abs=1e-4)


def test_a_recipe_names_them_all(made, tmp_path, monkeypatch):
    """The same run from a file: the same model, to the bit."""
    monkeypatch.chdir(tmp_path)
    fit = {"solver": "gradient", "objective": "outside:Brier", "epochs": 3}
    sections = {"data": {"kind": "outside:load"}, "encoder": {"name": "outside:Grid"}, "output": "again"}
    Path("head.yaml").write_text(yaml.safe_dump(sections | {"head": {"name": "outside:Nearest"}, "fit": fit}))
    assert run(["fit", "-r", "head.yaml", "-q"]) == 0
    assert bundle.config_of(tmp_path / "again").sha256 == bundle.config_of(made / "head").sha256


def test_options_reach_what_is_named(tmp_path):
    section = resolve({"head.name": "outside:Nearest", "head.options": {"scale": 2.0}}).head
    assert heads.spec_of("outside:Nearest", "closed", 1, section, 0).options == {"scale": 2.0}
    wrong = resolve({"head.options": {"scales": 2.0}}).head
    with pytest.raises(UsageError, match=r"no option 'scales'.*Did you mean 'scale'"):
        heads.spec_of("outside:Nearest", "closed", 1, wrong, 0)
    assert factory.dataset_of(DataSection(kind="outside:load", label="coarse")).classes == ("dark", "light")


def test_a_sweep_compares_them(made, tmp_path, capsys):
    grid = ("--heads", "outside:Blend,outside:Nearest,tied", "--objective", "outside:Brier,conditional")
    few = ("--explained-variance", "1", "--n-seeds", "1", "--epochs", "2", "--jobs", "1")
    store = made / "family" / "features"
    assert run(["sweep", str(store), "-o", str(tmp_path), *grid, *few, "-q"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    cells = {(row["head"], row["objective"]): row for row in rows if "head" in row}
    assert len(cells) == 6 and all(row["status"] == "done" for row in cells.values())
    assert cells["outside:Blend", "outside:Brier"]["accuracy"] > 0.9


@pytest.mark.slow
def test_worker_processes_of_a_sweep_find_them(made, tmp_path):
    few = ("--explained-variance", "1", "--n-seeds", "1", "--solver", "closed", "--jobs", "2")
    where = (str(made / "family" / "features"), "-o", str(tmp_path))
    assert run(["sweep", *where, "--heads", "outside:Blend,outside:Nearest", *few, "-q"]) == 0


def test_a_product_is_enrolled_in_a_model_of_the_family(made, tmp_path, capsys):
    import outside

    shop = tmp_path / "shop"
    assert run(["fit", str(made / "family" / "features"), "-o", str(shop), *FAMILY, "-q", "--unknown", "sky"]) == 0
    sky = [tmp_path / f"sky{number}.png" for number in range(5)]
    for number, path in enumerate(sky):
        Image.fromarray(outside.photo("sky", 200 + number)).save(path)
    assert told(capsys, "predict", shop, sky[4])[0]["label"] != "sky"
    assert run(["enroll", str(shop), "sky", *map(str, sky[:4]), "-q"]) == 0
    assert told(capsys, "predict", shop, sky[4])[0]["label"] == "sky"
    assert run(["undo", str(shop), "-q"]) == 0
    assert told(capsys, "predict", shop, sky[4])[0]["label"] != "sky"


def test_scikit_learn_takes_the_family():
    x = np.random.default_rng(0).normal(size=(60, 4)) + np.repeat(np.eye(3, 4) * 6, 20, axis=0)
    y = np.repeat(["a", "b", "c"], 20)
    model = public.MixtureClassifier(family="outside:Blend", shrinkage=0.1, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.95 and model.plan_.family == "outside:Blend"
    parts = public.MixtureClassifier(family="outside:Blend", shrinkage=0.1, feature_scale="none")
    for part in np.arange(60).reshape(2, 10, 3, order="F").reshape(2, -1):
        parts.partial_fit(x[part], y[part], classes=["a", "b", "c"])
    assert parts.score(x, y) > 0.95
    with pytest.raises(ValueError, match="'outside:Nearest' is no covariance family: it has no 'borrowed'"):
        public.MixtureClassifier(family="outside:Nearest").fit(x, y)


# What a stored file may not do


@pytest.mark.parametrize("kind", ["family", "head"])
def test_a_model_runs_no_code_that_it_names_unless_the_user_allows_it(made, kind, stranger, capsys):
    capsys.readouterr()
    assert run(["predict", str(made / kind), str(photos(made)[0])]) == BundleError.exit_code
    said = capsys.readouterr().err
    assert "set MIXTURA_EXTENSIONS=outside" in said and str(made / kind) in said
    assert "outside" not in sys.modules


@pytest.mark.parametrize("other", ["", "outsider", "out", "outside.deeper", "os,sys"])
def test_only_the_package_itself_is_allowed(made, other, stranger, monkeypatch):
    monkeypatch.setenv(names.EXTENSIONS_VARIABLE, other)
    with pytest.raises(BundleError, match="no part of mixtura"):
        bundle.from_pretrained(made / "family")
    assert "outside" not in sys.modules


@pytest.mark.parametrize("key", ["encoder", "family", "head"])
def test_each_name_of_a_model_is_looked_at(learn, cloud, tmp_path, key, monkeypatch):
    """A name that a stranger has put into any place of a model of mixtura's own."""
    monkeypatch.delenv(names.EXTENSIONS_VARIABLE)
    bundle.save_pretrained(learn(cloud(90, 3), head__family="tied"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    bad = {"encoder": config["encoder"] | {"name": "os:system"}, "family": "os:system", "head": {"name": "os:system"}}
    (tmp_path / "config.json").write_text(json.dumps(config | {key: bad[key]}))
    with pytest.raises(BundleError, match="'os:system', which is no part of mixtura"):
        bundle.from_pretrained(tmp_path)


def test_the_data_of_a_stored_recipe_are_looked_at(learn, cloud, tmp_path, monkeypatch):
    """Where the features are gone, an evaluation calls the loader of the recipe."""
    monkeypatch.delenv(names.EXTENSIONS_VARIABLE)
    sections = {"data": {"kind": "os:system", "root": f"touch {tmp_path}/done"}, "head": {"family": "tied"}}
    stored = {bundle.RECIPE_FILE: yaml.safe_dump(sections).encode()}
    bundle.save_pretrained(learn(cloud(90, 3), head__family="tied"), tmp_path / "shop", stored)
    with pytest.raises(BundleError, match="'os:system', which is no part of mixtura"):
        evaluate.run(tmp_path / "shop")
    assert thumbnails(tmp_path / "shop")("i0") is None
    assert not (tmp_path / "done").exists()


def test_what_a_program_has_registered_needs_no_permission(installed, tmp_path, monkeypatch):
    plain = str(tmp_path / "features")
    assert run(["extract", *DATA, "-o", plain, "--encoder", "pixels", "--size", "8"]) == 0
    monkeypatch.delenv(names.EXTENSIONS_VARIABLE)
    monkeypatch.setitem(FAMILIES, "blend", "outside:Blend")
    monkeypatch.setitem(HEADS, "nearest", "outside:Nearest")
    features = ("fit", plain, "-q")
    for kind, options in (("family", ("--family", "blend")), ("head", ("--head", "nearest"))):
        assert run([*features, "-o", str(tmp_path / kind), *options]) == 0
        config = json.loads((tmp_path / kind / "config.json").read_text())
        assert (config["family"] if kind == "family" else config["head"]["name"]) in ("blend", "nearest")


def test_a_feature_store_names_no_encoder_either(made, monkeypatch):
    store = made / "family" / "features"
    assert open_collection(store).build_encoder().name == "outside:Grid"
    monkeypatch.delenv(names.EXTENSIONS_VARIABLE)
    with pytest.raises(BundleError, match="'outside:Grid', which is no part of mixtura"):
        open_collection(store)


# What is told of a name that does not do


def test_a_wrong_name_is_told_at_once(tmp_path):
    for keys, said in (
        ({"head.family": "outside:Nearest"}, "'outside:Nearest' is no covariance family: it has no 'borrowed'"),
        ({"head.family": "nowhere:Blend"}, "Cannot load 'nowhere:Blend'"),
        ({"head.name": "outside:Brier"}, "'outside:Brier' is no head"),
        ({"fit.objective": "outside:Blend", "fit.solver": "gradient"}, "is no objective"),
        ({"data.kind": "outside:photo2"}, "Cannot load 'outside:photo2'"),
        ({"encoder.name": "outside:Grids"}, "Cannot load 'outside:Grids'"),
    ):
        recipe = resolve({"data.kind": "outside:load", "encoder.name": "outside:Grid", "output": tmp_path} | keys)
        with pytest.raises(UsageError, match=said):
            check_names(recipe)
    with pytest.raises(UsageError, match="'outside:Silent' is no encoder"):
        factory.encoder_of(EncoderSection(name="outside:Silent"))
    with pytest.raises(UsageError, match=r"gave no mixtura\.datasets\.items\.Dataset but a str"):
        factory.dataset_of(DataSection(kind="builtins:str"))


def test_an_encoder_is_found_again_by_its_identity():
    with pytest.raises(UsageError, match=r"has the identity 'gray'.*Set identity\['name'\] to 'outside:Gray'"):
        factory.encoder_of(EncoderSection(name="outside:Gray"))


def test_the_command_line_of_a_shell_takes_them(made):
    """No test runner around it: the path of the package and the permission are all that is set."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "mixtura", "predict", str(made / "head"), str(photos(made)[0]), "-q"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "plum" in done.stdout, done.stderr
    del environment[names.EXTENSIONS_VARIABLE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == BundleError.exit_code and "set MIXTURA_EXTENSIONS=outside" in done.stderr


@pytest.mark.parametrize("name", ["math:pi", "math:sqrt", "builtins:dict", "json:loads", "pathlib:Path"])
def test_what_is_no_encoder_is_a_type_error_in_one_sentence(name, tmp_path):
    with pytest.raises(TypeError, match=f"'{name}' is no encoder") as told:
        factory.encoder_of(EncoderSection(name=name))
    assert isinstance(told.value, UsageError)  # so the command line says it, with code 2


@pytest.mark.parametrize("name", ["math:pi", "builtins:type", "json:loads", "pathlib:Path"])
def test_what_is_no_data_set_is_a_type_error_in_one_sentence(name):
    with pytest.raises(TypeError, match=r"is no data set|gave no") as told:
        factory.read_data(DataSection(kind=name, root=Path("photos")))
    assert isinstance(told.value, UsageError)


@pytest.mark.parametrize("name", ["math:pi", "builtins:dict"])
def test_what_is_no_projection_is_a_type_error_in_one_sentence(name):
    with pytest.raises(TypeError, match=f"'{name}' is no projection"):
        factory.steps_of((StepSection(name=name),))


def test_extract_takes_an_encoder_and_a_data_set(tmp_path):
    encoder = factory.encoder_of(EncoderSection(name="pixels"))
    store = FeatureStore.create(tmp_path / "s", encoder.identity, encoder.dimension)
    for given in ("pixels", None, object(), encoder.__class__):
        with pytest.raises(TypeError):
            extract(given, [], store)
        with pytest.raises(WrongKind, match="Give an encoder, not"):
            check_kinds(given, [])
    for given in ("photos", [], None):
        with pytest.raises(WrongKind, match="Give a data set, not"):
            check_kinds(encoder, given)
