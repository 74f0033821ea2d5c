"""Recipes: one YAML file says what a run does; an unknown or duplicate key is an error that names the nearest key.

A recipe is resolved from three sources, the first that speaks wins: flags of the command line, the YAML file, the
defaults below. Paths are relative to the folder in which the command runs, as they are on the command line.
"""

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mixtura import strict_yaml
from mixtura.errors import RecipeError
from mixtura.strict_yaml import Place

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _not_empty(value: Any) -> Any:
    # An unset shell variable gives "", which pathlib would read as the current folder.
    if value == "":
        raise ValueError("should not be empty")
    return value


Location = Annotated[Path, BeforeValidator(_not_empty)]


class Section(BaseModel):
    """What all sections share: no unknown keys, no changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSection(Section):
    """Where the items come from."""

    kind: str = Field(
        default="folder", description="a dataset of mixtura, 'features' for a feature store, or package.module:load"
    )
    root: Location | None = Field(default=None, description="folder or file; not needed by the named public sets")
    label: str | None = Field(
        default=None, description="which label to learn where the data has several, e.g. fine or coarse"
    )
    unknown: tuple[str, ...] = Field(
        default=(), description="classes left out of the catalog; they test the verdict 'unknown'"
    )


class ClipsSection(Section):
    """How a sound is cut before it is encoded."""

    how: Literal["none", "mean"] = Field(
        default="mean", description="none: the sound at once; mean: clips are encoded one by one and averaged"
    )
    seconds: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="length of a clip; default: the encoder's own"
    )
    hop: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="seconds from clip to clip; default: their length"
    )


class EncoderSection(Section):
    """What turns an image or a sound into numbers."""

    name: str = Field(
        default="lite0", description="an encoder of mixtura, timm:NAME, clap:NAME, or package.module:Class"
    )
    size: Count | None = Field(
        default=None, description="side of the encoder's input in pixels; default: the encoder's own"
    )
    weights: Location | None = Field(default=None, description="local weight file")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    clips: ClipsSection | None = Field(default=None, description="sounds only; default: the encoder's own")
    normalize: bool | None = Field(
        default=None, description="sounds only: unit length for the vector of each clip; default: the encoder's own"
    )


class ExtractSection(Section):
    """How features are computed and stored."""

    batch_size: Count = Field(default=32, description="images per forward pass")
    workers: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="threads that decode; default: by the cores"
    )
    dtype: Literal["float16", "float32"] = Field(default="float16", description="how the store keeps a number")
    store: Location | None = Field(
        default=None, description="folder of the feature store; default: features/ in the output folder"
    )


class StepSection(Section):
    """One projection of the features; a bare name stands for a step without options."""

    name: str
    share: Annotated[float, Field(gt=0, le=100)] | None = Field(
        default=None, description="pca: explained variance, percent"
    )
    dimension: Count | None = Field(default=None, description="lda, random: number of axes")
    shrinkage: Share | None = Field(default=None, description="lda: share of the scaled identity")
    eps: Annotated[float, Field(ge=0)] | None = Field(default=None, description="whiten: relative to the mean variance")
    seed: Seed | None = Field(default=None, description="random: seed of the signs")
    sparsity: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="random: one in so many entries is not zero"
    )

    power: Annotated[float, Field(gt=0, le=1)] | None = Field(default=None, description="power: the exponent")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> "StepSection":
        allowed = STEP_OPTIONS.get(self.name, frozenset(type(self).model_fields))
        wrong = sorted(set(self.options()) - allowed)
        if wrong:
            known = ", ".join(sorted(allowed)) or "none"
            raise ValueError(f"{self.name} has no option {wrong[0]!r} (its options: {known})")
        return self

    def options(self) -> dict[str, Any]:
        """The options that were given, for ``fit`` of the projection."""
        return self.model_dump(exclude={"name"}, exclude_none=True)


STEP_OPTIONS: dict[str, frozenset[str]] = {
    "pca": frozenset({"share"}),
    "lda": frozenset({"shrinkage", "dimension"}),
    "whiten": frozenset({"eps"}),
    "random": frozenset({"dimension", "seed", "sparsity"}),
    "random_features": frozenset({"dimension", "seed"}),
    "power": frozenset({"power"}),
    "l2": frozenset(),
    "identity": frozenset(),
}
"""What each projection of mixtura takes; one from outside may take any option of a step."""


class HeadSection(Section):
    """What reads the classes off the features: a mixture of Gaussians of each class, or another head."""

    name: str = Field(
        default="gaussian", description="gaussian, sdgm, online, vmf, prototype, linear, random_projection, or a variant"
    )
    family: str = Field(default="auto", description="auto, spherical, diagonal, lowrank, tied or full")
    components: Count | Literal["auto"] = Field(default=1, description="Gaussians per class, or auto")
    shrinkage: Share | Literal["auto"] = Field(
        default="auto", description="towards pooled and round covariances, 0 to 1, or auto"
    )
    rank: Count = Field(default=16, description="lowrank: number of directions")
    floor: Annotated[float, Field(ge=0)] = Field(default=1e-6, description="least variance, relative to the data's own")


class TrainSection(Section):
    """How the head is fitted, and its training by gradients."""

    fit: Literal["auto", "closed", "em", "sgd", "hybrid"] = Field(
        default="auto",
        description="closed form, EM, gradients from there (sgd: log-posterior; hybrid: plus density); auto: no gradients",
    )
    epochs: Annotated[int, Field(ge=0)] = Field(default=30, description="passes over the training rows")
    batch_size: Count = Field(default=256, description="rows in a step")
    rate: Annotated[float, Field(gt=0)] = Field(default=3e-3, description="Adam's learning rate, falling by a half cosine")
    patience: Count | None = Field(
        default=None, description="epochs without a better validation loss before training ends"
    )
    hybrid: Annotated[float, Field(ge=0)] = Field(
        default=0.1, description="hybrid: weight of -log p(x, y) per dimension beside -log p(y | x)"
    )
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="label smoothing")
    penalty: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="sdgm: weight of its KL term relative to 1 / N; more prunes more"
    )
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="share of the training rows that pick the epoch, where the data has no validation part"
    )


Shares = Annotated[tuple[Annotated[float, Field(gt=0, le=100)], ...], Field(min_length=1)]
"""Explained variances in percent."""


class SweepSection(Section):
    """The grid of mixtura sweep."""

    heads: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default=("spherical", "diagonal", "tied", "linear"), description="heads or variants"
    )
    fits: Annotated[tuple[Literal["closed", "em", "sgd", "hybrid"], ...], Field(min_length=1)] = Field(
        default=("sgd",), description="how each is fitted"
    )
    shares: Shares = Field(default=(20, 40, 60, 80, 90, 95, 100), description="variance that PCA keeps, in percent")
    components: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(default=(1,), description="Gaussians a class")
    seeds: Count = Field(default=3, description="runs of each cell; each draws its own validation rows")
    folds: bool = Field(default=False, description="each group of the data is the test part once (ESC-10, ESC-50)")
    whiten: bool = Field(default=False, description="scale the kept axes to variance one")
    jobs: Count | None = Field(default=None, description="processes; default: by the cores, one with a GPU")


class DecisionSection(Section):
    """When an item is matched, unsure or unknown."""

    false_reject_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05, description="share of genuine items that may be called unknown"
    )
    min_probability: Share = Field(default=0.5, description="a label less probable than this is unsure")


class SplitSection(Section):
    """How items without a given split are shared out."""

    shares: tuple[Share, Share, Share] = Field(default=(0.8, 0.0, 0.2), description="train, validation and test")
    seed: Seed = Field(default=0, description="seed of the draw")
    file: Location | None = Field(
        default=None, description="split file to use; default: split.csv in the output folder"
    )

    @model_validator(mode="after")
    def _sum(self) -> "SplitSection":
        if abs(sum(self.shares) - 1) > 1e-6 or self.shares[0] == 0:
            raise ValueError(f"shares must sum to 1 with train above 0, got a sum of {sum(self.shares):g}")
        return self


class Recipe(Section):
    """All that a run depends on."""

    data: DataSection = DataSection()
    encoder: EncoderSection = EncoderSection()
    extract: ExtractSection = ExtractSection()
    projection: tuple[StepSection, ...] = ()
    head: HeadSection = HeadSection()
    train: TrainSection = TrainSection()
    sweep: SweepSection = SweepSection()
    decision: DecisionSection = DecisionSection()
    split: SplitSection = SplitSection()
    seed: Seed = Field(default=0, description="seed of everything that draws, but the split")
    output: Location | None = Field(default=None, description="folder to write")


def load_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file, with defaults for what it leaves out.

    Raises:
        NoInput: the file is missing or not a regular file.
        RecipeError: not YAML, too long, an alias, an unknown or duplicate key, or a value that does not fit.
    """
    return resolve({}, path)


def resolve(flags: Mapping[str, Any], file: Path | None = None, default: Recipe | None = None) -> Recipe:
    """The recipe of a run: flags win over the file, the file over ``default``.

    Args:
        flags: dotted key -> value, only those that were given; ``None`` is a value and clears the key.
        file: YAML recipe.
        default: what neither says; the defaults of :class:`Recipe` if left out.

    Raises:
        NoInput: the file is missing or not a regular file.
        RecipeError: see :func:`load_recipe`; a flag of a key that does not exist.
    """
    data = dump_dict(default) if default else {}
    lines: dict[Place, int] = {}
    if file is not None:
        given, lines = strict_yaml.read(file)
        data = _merge(data, given)
    for key, value in flags.items():
        data = _merge(data, _nested(key.split("."), value))
        lines = {place: line for place, line in lines.items() if place[: key.count(".") + 1] != tuple(key.split("."))}
    return _validate(data, str(file), lines)


def assignment(text: str) -> tuple[str, Any]:
    """The key and value of ``--set a.b=value``; the value is read as YAML.

    >>> assignment("head.components=auto")
    ('head.components', 'auto')
    >>> assignment("projection=[{name: pca, share: 95}, l2]")
    ('projection', [{'name': 'pca', 'share': 95}, 'l2'])

    Raises:
        RecipeError: there is no ``=`` or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {text!r} is not KEY=VALUE. Write for example --set head.family=full.")
    return key.strip(), strict_yaml.construct(value, f"--set {key.strip()}")[0]


def dump(recipe: Recipe) -> str:
    """The recipe as YAML; reading it back gives the same recipe."""
    return yaml.safe_dump(dump_dict(recipe), sort_keys=False, allow_unicode=True)


def dump_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON-ready values, without the keys that are not set."""
    return recipe.model_dump(mode="json", exclude_none=True)


def keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Every dotted key that a recipe may hold, in order.

    >>> [key for key in keys() if key.startswith("decision")]
    ['decision', 'decision.false_reject_rate', 'decision.min_probability']
    """
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = _section_of(field.annotation)
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}.")


def _nested(parts: Iterable[str], value: Any) -> dict[str, Any]:
    for part in reversed(list(parts)):
        value = {part: value}
    return value


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _validate(data: Mapping[str, Any], where: str, lines: Mapping[Place, int]) -> Recipe:
    # A section with nothing below it ("head:") means its defaults.
    given = {key: value for key, value in data.items() if value is not None}
    try:
        return Recipe.model_validate(given)
    except ValidationError as error:
        raise RecipeError(_explain(error, given, where, lines)) from error


def _explain(error: ValidationError, data: Mapping[str, Any], where: str, lines: Mapping[Place, int]) -> str:
    """The first thing that is wrong, by line, with all that pydantic says of that place."""
    problems: dict[Place, list[Any]] = {}
    for detail in error.errors(include_url=False, include_context=False):
        problems.setdefault(_given_place(detail["loc"], data), []).append(detail)
    place = min(problems, key=lambda p: lines.get(p, 0))
    details = problems[place]
    at = f"{where}, line {lines[place]}" if place in lines else "the options"
    dotted = ".".join(map(str, place))
    if details[0]["type"] == "extra_forbidden":
        return f"{at}: there is no key {dotted!r}. {_nearest_key(dotted)}"
    said = " or be ".join(dict.fromkeys(_plain(detail) for detail in details)).replace(" or be should be ", " or ")
    value = details[0]["input"]
    shown = f"{dotted}:" if isinstance(value, dict | list) else f"{dotted} is {reprlib.repr(value)}, but it"
    return f"{at}: {shown} {said}."


def _plain(detail: Any) -> str:
    """What pydantic says, in our words."""
    if detail["type"] == "missing":
        return f"{detail['loc'][-1]} is missing" if isinstance(detail["loc"][-1], str) else "a value is missing"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    message = message.replace("a valid tuple", "a list").replace("a valid integer", "a whole number")
    return (
        message.partition(" or instance of ")[0]
        .replace("a valid dictionary", "keys and values")
        .partition(", unable")[0]
    )


def _given_place(loc: Place, data: Any) -> Place:
    """The part of pydantic's location that the user wrote: the tags of unions are cut off."""
    place: Place = ()
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
        place = (*place, part)
    return place or loc[:1]


def _nearest_key(dotted: str) -> str:
    """A hint: the nearest sibling, else the nearest key anywhere, and what is known at this place."""
    known = list(keys())
    plain = ".".join(part for part in dotted.split(".") if not part.isdecimal())
    parent, _, leaf = plain.rpartition(".")
    siblings = [key for key in known if key.rpartition(".")[0] == parent]
    for pool in (siblings, known):
        leaves = {key.rpartition(".")[2]: key for key in reversed(pool)}
        close = get_close_matches(leaf, leaves, n=1, cutoff=0.6)
        if close:
            return f"Did you mean {leaves[close[0]]!r}? Known here: {', '.join(siblings)}."
    return f"Known here: {', '.join(siblings or known)}."


def _section_of(annotation: Any) -> type[Section] | None:
    """The section inside an annotation such as ``tuple[StepSection, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for inner in get_args(annotation):
        if isinstance(inner, type) and issubclass(inner, Section):
            return inner
    return None
