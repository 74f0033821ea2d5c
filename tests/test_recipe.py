"""Recipes: what is read back equals what was written, and every mistake is one sentence that says where."""

import inspect
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtura.datasets.split import DEFAULT_FRACTIONS
from mixtura.errors import MixturaError, NoInput, RecipeError
from mixtura.features import PROJECTIONS
from mixtura.names import find
from mixtura.recipe import Recipe, assignment, dump, dump_dict, keys, load_recipe, resolve
from mixtura.sections import STEP_OPTIONS
from mixtura.strict_yaml import MAX_BYTES, parse

EXAMPLE = """\
data:
  root: photos
  unknown: [other]
encoder: {name: lite0, size: 96}
projection:
  - l2
  - {name: pca, explained_variance: 0.995}
head:
  family: full
  n_components: auto
  shrinkage: 0.1
seed: 7
output: shop
"""


@pytest.fixture
def write(tmp_path):
    def _write(text):
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return _write


def test_what_a_file_says_is_kept_and_the_rest_is_default(write):
    recipe = load_recipe(write(EXAMPLE))
    assert recipe.data.root == Path("photos")
    assert recipe.data.unknown == ("other",)
    assert recipe.encoder.size == 96
    assert [step.name for step in recipe.projection] == ["l2", "pca"]
    assert recipe.projection[1].options() == {"explained_variance": 0.995}
    assert recipe.head.n_components == "auto"
    assert recipe.head.rank == Recipe().head.rank
    assert recipe.decision == Recipe().decision
    assert recipe.output == Path("shop")


def test_reading_back_what_was_written_gives_the_same_recipe(write):
    for recipe in (Recipe(), load_recipe(write(EXAMPLE))):
        assert load_recipe(write(dump(recipe))) == recipe


@settings(max_examples=60)
@given(
    floor=st.floats(0, 1e6),
    rate=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32 - 1),
    components=st.one_of(st.integers(1, 10**6), st.just("auto")),
    names=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1), max_size=3),
)
def test_any_recipe_survives_yaml(floor, rate, seed, components, names):
    flags = {
        "head.variance_floor": floor,
        "head.n_components": components,
        "decision.false_reject_rate": rate,
        "seed": seed,
        "data.unknown": names,
    }
    recipe = resolve(flags)
    data, _ = parse(dump(recipe), "text")
    assert Recipe.model_validate(data) == recipe


def test_flags_win_over_the_file_and_the_file_over_defaults(write):
    path = write("head: {family: full, rank: 3}\nseed: 5\n")
    recipe = resolve(
        {"head.family": "tied"}, path, default=resolve({"seed": 1, "head.rank": 9, "head.variance_floor": 0.5})
    )
    assert (recipe.head.family, recipe.head.rank, recipe.seed, recipe.head.variance_floor) == ("tied", 3, 5, 0.5)


def test_a_flag_of_none_clears_what_the_file_says(write):
    assert resolve({"data.root": None}, write("data: {root: photos}")).data.root is None


def test_a_flag_keeps_the_other_keys_of_its_section(write):
    recipe = resolve({"data.label": "coarse"}, write("data: {root: photos}"))
    assert (recipe.data.root, recipe.data.label) == (Path("photos"), "coarse")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("head: {famly: full}", "line 1: there is no key 'head.famly'. Did you mean 'head.family'?"),
        ("seed: 1\nfamily: full", "line 2: there is no key 'family'. Did you mean 'head.family'?"),
        (
            "projection:\n  - l2\n  - {name: pca, varianc: 3}",
            "line 3: there is no key 'projection.1.varianc'. Did you mean",
        ),
        ("head:\n  rank: 3\n  rank: 4", "line 3: key 'head.rank' stands on line 2 already"),
        ("seed: 1\nhead: {}\nseed: 1", "line 3: key 'seed' stands on line 1 already"),
        ("head: {rank: 0}", "line 1: head.rank is 0, but it should be greater than or equal to 1."),
        ("head: {n_components: x}", "head.n_components is 'x', but it should be a whole number or 'auto'."),
        ("head: {variance_floor: .nan}", "head.variance_floor is nan, but it should be a finite number."),
        *(
            (
                f"decision: {{false_reject_rate: {rate}}}",
                f"false_reject_rate is {rate}, but it should be above 0 and below 1, as in 0.05 or 5%.",
            )
            for rate in (5, 0, 1, 1.0, -0.1, True, "'120%'", "'often'")
        ),
        ("projection: [{name: l2, power: 1}]", "l2 has no option 'power' (its options: none)"),
        ("projection: [{power: 1}]", "projection.0: name is missing"),
        ("train: {foo: 1}", "line 1: there is no key 'train.foo'."),
        ("train: {epoch: 1}", "there is no key 'train.epoch'. Did you mean 'train.epochs'?"),
        ("train: {epochs: 1, rate: 0.1}", "there is no key 'train.epochs' any more. Write fit.epochs: 1."),
        (
            "train: {schedule: {warm: 1}}",
            "there is no key 'train.schedule.warm'. Did you mean 'train.schedule.warmup'?",
        ),
        ("projection: pca", "projection is 'pca', but it should be a list"),
        ("split: {fractions: [0.5, 0.1, 0.1]}", "fractions must sum to 1 with train above 0, got a sum of 0.7"),
        ("split: {fractions: [0, 0.5, 0.5]}", "fractions must sum to 1 with train above 0, and the first"),
        ("head: {variance_floor: 1.0e+300}", "head.variance_floor is 1e+300, but it should be less than or equal to"),
        ("output: ''", "output is '', but it should not be empty"),
        ("seed: -1", "seed is -1, but it should be greater than or equal to 0"),
        ("a: &x 1\nb: *x", "line 2: aliases (*name) are not allowed"),
        ("<<: {seed: 3}", "line 1: '<<' cannot be a key"),
        ("no: 3", "line 1: 'no' cannot be a key"),
        ("? [a]\n: b", "a list or mapping' cannot be a key"),
        ("x: !!python/object:os.system 3", "could not determine a constructor for the tag"),
        ("seed: 3\n---\nseed: 4", "line 2: expected a single document"),
        ("[1, 2", "line 1: while parsing a flow sequence"),
        ("just words", "holds a str, not keys"),
        ("seed: 2024-13-45", "is not YAML: month must be in 1..12"),
        ("[" * 5000, "nested too deeply"),
        ("\x00", "is not YAML"),
        (b"\xff\xfe\x00s", "is not UTF-8 text"),
        ("#" * (MAX_BYTES + 1), "is longer than"),
    ],
)
def test_a_mistake_is_one_sentence_that_says_where(write, text, said):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(text))
    sentence = str(caught.value)
    assert said in sentence
    assert "\n" not in sentence
    assert "recipe.yaml" in sentence
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there_is_no_input(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(NoInput):
            load_recipe(path)


def test_empty_files_and_empty_sections_mean_the_defaults(write):
    for text in ("", "# nothing\n", "head:\nseed:\n", "\ufeffseed: 0\n"):
        assert load_recipe(write(text)) == Recipe()


def test_a_billion_laughs_are_refused_at_once(write):
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(RecipeError, match="aliases"):
        load_recipe(write("\n".join(lines)))


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_no_text_makes_anything_but_a_recipe_or_a_sentence(text):
    try:
        data, _ = parse(text, "text")
    except MixturaError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(data, dict)


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from([*keys()]),
        st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)),
        max_size=4,
    )
)
def test_no_flags_make_anything_but_a_recipe_or_a_sentence(flags):
    try:
        assert isinstance(resolve(flags), Recipe)
    except RecipeError as error:
        assert "\n" not in str(error)


def test_the_line_of_a_key_that_a_flag_replaced_is_not_blamed(write):
    with pytest.raises(RecipeError, match=r"the options: head\.rank is -1"):
        resolve({"head.rank": -1}, write("head: {rank: 3}"))


def test_settings_are_yaml_values():
    assert assignment("head.rank=8") == ("head.rank", 8)
    assert assignment("data.label=fine=really") == ("data.label", "fine=really")
    assert assignment("head.variance_floor=1e-3")[1] in (1e-3, "1e-3")
    assert resolve(dict([assignment("head.variance_floor=1e-3")])).head.variance_floor == 1e-3
    assert assignment("encoder.size=") == ("encoder.size", None)
    for wrong in ("head.rank", "=3", "a=[1"):
        with pytest.raises(RecipeError):
            assignment(wrong)


def test_every_projection_takes_exactly_the_options_that_recipes_know():
    for name in PROJECTIONS:
        taken = set(inspect.signature(find(PROJECTIONS, name).fit).parameters) - {"x", "labels"}
        assert STEP_OPTIONS[name] == taken, name
    assert set(STEP_OPTIONS) == set(PROJECTIONS)


def test_the_default_split_is_that_of_the_datasets():
    assert Recipe().split.fractions == DEFAULT_FRACTIONS


def test_every_key_has_a_description():
    def check(model):
        for name, field in model.model_fields.items():
            if name not in ("name", "projection") and not hasattr(field.annotation, "model_fields"):
                assert field.description, name
            if hasattr(field.annotation, "model_fields"):
                check(field.annotation)

    check(Recipe)


def test_a_resolved_recipe_is_plain_yaml_without_tags():
    text = dump(resolve({"output": Path("shop"), "data.root": Path("photos")}))
    assert "!!" not in text
    assert yaml.safe_load(text) == dump_dict(resolve({"output": Path("shop"), "data.root": Path("photos")}))


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_recipe_of_the_project_resolves_and_says_what_it_is(path):
    assert load_recipe(path)
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("# Source:", "# Command:", "# Time:", "# Expected:"):
        assert any(line.startswith(word) for line in header), word


def test_the_folder_recipe_shows_every_key_with_its_default():
    text = (Path(__file__).parents[1] / "recipes" / "folder.yaml").read_text()
    data, _ = parse(text, "folder.yaml")
    commented = [line.strip(" #").partition(":")[0] for line in text.splitlines() if "#" in line[:3] and ": " in line]
    shown = {*_dotted(data), *commented}
    assert resolve({}, Path(__file__).parents[1] / "recipes" / "folder.yaml") == Recipe()
    assert {key.rpartition(".")[2] for key in keys() if not key.startswith("projection.")} <= shown


def _dotted(data):
    for key, value in data.items():
        yield key
        if isinstance(value, dict):
            yield from _dotted(value)


def test_options_of_a_head_are_set_one_by_one_and_left_for_the_head_to_check():
    given = dict(map(assignment, ("head.options.metric=euclidean", "head.options.anything=[1, 2]")))
    assert resolve(given).head.options == {"metric": "euclidean", "anything": [1, 2]}
    recipe = resolve({"head.options": {"pool": "best"}}, default=resolve(given))
    assert recipe.head.options == {"metric": "euclidean", "anything": [1, 2], "pool": "best"}
    with pytest.raises(RecipeError, match=r"head\.options"):
        resolve({"head.options": 3})


@pytest.mark.parametrize("name", ["random", "random_features", "lda"])
def test_more_axes_than_memory_holds_are_refused_before_any_work(name):
    resolve({"data.root": "x", "projection": [{"name": name, "dimension": 2**16}]})
    with pytest.raises(RecipeError, match="1000000"):
        resolve({"data.root": "x", "projection": [{"name": name, "dimension": 1_000_000}]})
