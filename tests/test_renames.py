"""Old names: a user's are errors that say what to write now; stored ones are read as if written today."""

import pytest

from mixtura.cli.old_options import renamed
from mixtura.cli.options import FLAGS
from mixtura.errors import RecipeError
from mixtura.recipe import Recipe, keys, load_recipe, load_stored_recipe, resolve
from mixtura.renames import RENAMED_KEYS, RENAMED_OPTIONS, REUSED_KEYS, migrated

STORED = """\
data: {kind: digits, unknown: []}
encoder: {name: pixels, device: auto}
extract: {batch_size: 32, dtype: float16}
projection:
- {name: pca, share: 99.5}
- name: l2
head: {name: gaussian, family: auto, components: 2, shrinkage: auto, rank: 16, floor: 1.0e-05}
train:
  fit: hybrid
  epochs: 5
  batch_size: 32
  rate: 0.01
  patience: 4
  hybrid: 0.3
  smoothing: 0.1
  penalty: 2.0
  ridge: 3.0
  validation: 0.2
sweep:
  heads: [spherical, tied]
  fits: [closed, sgd, hybrid]
  shares: [50.0, 99.5]
  components: [1, 2]
  seeds: 2
  folds: false
  whiten: 0.35
decision: {false_reject_rate: 0.05, min_probability: 0.5}
split:
  shares: [0.5, 0.0, 0.5]
  seed: 0
seed: 0
"""
"""A resolved recipe as it was stored before the keys were renamed, every renamed key away from its default."""

TODAY = {
    "data.kind": "digits",
    "encoder.name": "pixels",
    "encoder.taps": "none",
    "projection": [{"name": "pca", "explained_variance": 0.995}, "l2"],
    "head.n_components": 2,
    "head.variance_floor": 1e-5,
    "fit.solver": "gradient",
    "fit.objective": "hybrid",
    "fit.epochs": 5,
    "fit.batch_size": 32,
    "fit.learning_rate": 0.01,
    "fit.patience": 4,
    "fit.generative_weight": 0.3,
    "fit.label_smoothing": 0.1,
    "fit.kl_weight": 2.0,
    "fit.l2": 3.0,
    "fit.val_fraction": 0.2,
    "sweep.heads": ["spherical", "tied"],
    "sweep.solvers": ["closed", "gradient"],
    "sweep.objectives": ["conditional", "hybrid"],
    "sweep.explained_variance": [0.5, 0.995],
    "sweep.n_components": [1, 2],
    "sweep.n_seeds": 2,
    "sweep.whiten_power": 0.35,
    "split.fractions": [0.5, 0.0, 0.5],
}


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(STORED)
    return path


def test_a_stored_recipe_means_what_it_meant(stored):
    assert load_stored_recipe(stored) == resolve(TODAY)
    for fit, solver, objective in (("auto", "auto", "conditional"), ("sgd", "gradient", "conditional")):
        stored.write_text(f"train: {{fit: {fit}}}")
        read = load_stored_recipe(stored).fit
        assert (read.solver, read.objective) == (solver, objective)


def test_a_recipe_of_today_is_left_alone(tmp_path):
    from mixtura.recipe import dump, dump_dict

    recipe = resolve(TODAY | {"encoder.taps": "auto"})
    assert migrated(dump_dict(recipe)) == dump_dict(recipe)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load_stored_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("section", ["3", "[1]", "abc"])
def test_a_stored_section_that_is_none_is_refused(tmp_path, section):
    (tmp_path / "recipe.yaml").write_text(f"train: {{rate: 0.01}}\nfit: {section}\n")
    with pytest.raises(RecipeError, match="fit"):
        load_stored_recipe(tmp_path / "recipe.yaml")


def test_the_same_text_of_a_user_is_an_error_that_counts_what_is_old(stored):
    with pytest.raises(RecipeError, match=r"line 5: there is no key 'projection\.0\.share' any more") as caught:
        load_recipe(stored)
    assert "Write explained_variance: 0.995. 18 more of your keys have other names now" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "write"),
    [
        ("train.fit", "sgd", "fit.solver: gradient and fit.objective: conditional"),
        ("train.fit", "hybrid", "fit.solver: gradient and fit.objective: hybrid"),
        ("train.fit", "em", "fit.solver: em"),
        ("train.rate", 0.01, "fit.learning_rate: 0.01"),
        ("train.ridge", None, "fit.l2"),
        ("head.floor", 1e-3, "head.variance_floor: 0.001"),
        ("head.components", "auto", "head.n_components: auto"),
        ("sweep.fits", ["sgd"], "sweep.solvers: [gradient] and sweep.objectives: [conditional]"),
        ("sweep.shares", [5, 99.5, 100], "sweep.explained_variance: [0.05, 0.995, 1]"),
        ("sweep.seeds", 3, "sweep.n_seeds: 3"),
        ("split.shares", [0.5, 0, 0.5], "split.fractions: [0.5, 0, 0.5]"),
        ("projection", [{"name": "pca", "share": 95}], "explained_variance: 0.95"),
        ("projection", [{"name": "pca", "share": "most"}], "explained_variance: most"),
    ],
)
def test_an_old_key_says_what_to_write(key, value, write):
    with pytest.raises(RecipeError) as caught:
        resolve({key: value})
    assert str(caught.value).endswith(f"any more. Write {write}.")
    assert caught.value.exit_code == 2


def test_the_table_leads_from_keys_that_are_gone_to_keys_that_are_there():
    known = set(keys())
    assert set(RENAMED_KEYS) & known == REUSED_KEYS
    assert {new for entry in RENAMED_KEYS.values() for new, _ in entry} <= known
    assert set(RENAMED_OPTIONS.values()) <= set(RENAMED_KEYS)
    assert {new for old in RENAMED_OPTIONS.values() for new, _ in RENAMED_KEYS[old]} <= set(FLAGS)


@pytest.mark.parametrize(
    ("words", "write"),
    [
        (["fit", "p", "-o", "s", "--fit", "sgd"], "Write --solver gradient --objective conditional."),
        (["fit", "p", "--fit=hybrid", "-o", "s"], "Write --solver gradient --objective hybrid."),
        (["fit", "p", "--rate", "0.01"], "Write --learning-rate 0.01."),
        (["fit", "p", "--components", "auto"], "Write --n-components auto."),
        (["sweep", "p", "-o", "s", "--share", "95"], "Write --explained-variance 0.95."),
        (["sweep", "p", "--share", "5,10,...,100"], "Write --explained-variance 0.05,0.1,...,1."),
        (["sweep", "p", "--fit", "closed,sgd"], "Write --solver closed,gradient --objective conditional."),
        (["sweep", "p", "--components", "1,2"], "Write --n-components 1,2."),
        (["sweep", "p", "--seeds", "5"], "Write --n-seeds 5."),
        (["sweep", "p", "--seeds"], "Write --n-seeds."),
    ],
)
def test_an_old_option_says_what_to_write(words, write, capsys):
    from mixtura.cli.app import run

    assert run(words) == 2
    assert f" any more. {write} Try 'mixtura {words[0]} --help'." in capsys.readouterr().err


def test_options_of_other_commands_are_only_unknown():
    assert renamed("predict", "--share", "95") is None
    assert renamed("fit", "--famly", None) is None


def test_defaults_are_the_defaults_of_before(tmp_path):
    (tmp_path / "recipe.yaml").write_text("train: {fit: auto, epochs: 30, batch_size: 256, rate: 0.003, penalty: 1.0}")
    assert load_stored_recipe(tmp_path / "recipe.yaml") == Recipe()


@pytest.mark.parametrize("sweep", ["x", "{objectives: 5}"])
def test_what_is_no_list_of_objectives_is_refused_beside_an_old_weight(tmp_path, sweep):
    (tmp_path / "recipe.yaml").write_text(f"train: {{hybrid: 0.1}}\nsweep: {sweep}\n")
    with pytest.raises(RecipeError, match="sweep"):
        load_stored_recipe(tmp_path / "recipe.yaml")
