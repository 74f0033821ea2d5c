"""Recipes: one YAML file defines a run; an unknown or duplicate key is an error that names the nearest key.

A recipe is resolved from three sources, in order of precedence: command-line flags, the YAML file, the defaults below.
Paths are relative to the working directory, as on the command line. In a recipe that is kept they are absolute, so it
can be used from any directory.
"""

import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from mixtura import renames, strict_yaml
from mixtura.coarse_sections import CoarseSection
from mixtura.errors import RecipeError
from mixtura.files import is_there
from mixtura.formats import plain_words
from mixtura.sections import (
    DataSection,
    DecisionSection,
    EncoderSection,
    ExtractSection,
    FitSection,
    Flag,
    HeadSection,
    Location,
    Section,
    Seed,
    SplitSection,
    StepSection,
)
from mixtura.strict_yaml import Place
from mixtura.sweep_sections import SweepSection
from mixtura.training_sections import SearchSection, TrainSection

STORED_NAME, STORED_BESIDE = "recipe.yaml", ("config.json", "runs.jsonl")
"""The name of a recipe that a model or a sweep keeps, and what lies beside it."""

Kind = TypeVar("Kind", bound=Section)


class Recipe(Section):
    """All that a run depends on."""

    data: DataSection = DataSection()
    encoder: EncoderSection = EncoderSection()
    extract: ExtractSection = ExtractSection()
    projection: tuple[StepSection, ...] = ()
    head: HeadSection = HeadSection()
    fit: FitSection = FitSection()
    train: TrainSection | None = Field(default=None, description="Only for mixtura train; fit and sweep refuse it.")
    search: SearchSection | None = Field(default=None, description="Only for mixtura train --search.")
    coarse: CoarseSection | None = Field(
        default=None,
        description="Only for mixtura train with train.objective: scgm-g, supcon, ancor or maskcon; with conditional, "
        "it puts an embedder below the last layer.",
    )
    sweep: SweepSection = SweepSection()
    decision: DecisionSection = DecisionSection()
    split: SplitSection = SplitSection()
    seed: Annotated[Seed, Flag("N")] = Field(
        default=0, description="Seed of everything random but the split. The same seed gives the same result."
    )
    output: Location | None = Field(default=None, description="Folder to write.")


def load_recipe(path: Path | str) -> Recipe:
    """Return the recipe in a YAML file, with defaults for missing keys.

    Raises:
        NoInput: the file is missing or not a regular file.
        RecipeError: not YAML, too long, an alias, an unknown or duplicate key, or a value that does not fit.
    """
    return resolve({}, Path(path))


def load_stored_recipe(path: Path) -> Recipe:
    """Return a recipe that mixtura has stored; keys of earlier versions are converted to the current ones.

    Raises:
        NoInput, RecipeError: see :func:`load_recipe`.
    """
    given, lines = strict_yaml.read(path)
    return _validate(renames.migrated(given), str(path), lines)


def is_stored(path: Path) -> bool:
    """Whether mixtura wrote a recipe itself: it lies beside a model or the runs of a sweep."""
    return path.name == STORED_NAME and any(is_there(path.parent / name) for name in STORED_BESIDE)


def resolve(
    flags: Mapping[str, Any],
    file: Path | None = None,
    default: Recipe | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> Recipe:
    """The recipe of a run: flags win over the file, the file over ``default``.

    Args:
        flags: dotted key -> value, only those that were given; ``None`` is a value and clears the key.
        file: YAML recipe.
        default: what neither says; the defaults of :class:`Recipe` if left out.
        options: dotted key -> the option that gave it, for errors to name.

    Raises:
        NoInput: the file is missing or not a regular file.
        RecipeError: see :func:`load_recipe`; a flag of a key that does not exist.
    """
    data = default.model_dump(mode="json", exclude_none=True, exclude_unset=True) if default else {}
    lines: dict[Place, int] = {}
    if file is not None:
        given, lines = strict_yaml.read(file)
        data = _merge(data, renames.migrated(given) if is_stored(file) else given)
    for key, value in flags.items():
        data = _merge(data, _nested(key.split("."), value))
        lines = {place: line for place, line in lines.items() if place[: key.count(".") + 1] != tuple(key.split("."))}
    return _validate(data, str(file), lines, options)


def with_absolute_paths(section: Kind) -> Kind:
    """A recipe, or a section of one, that means the same from any working directory."""
    changed: dict[str, Any] = {}
    for name in section.model_fields_set:  # only what was given, so that defaults stay defaults
        value = getattr(section, name)
        if isinstance(value, Path):
            changed[name] = value.absolute()
        elif isinstance(value, Section):
            changed[name] = with_absolute_paths(value)
    return section.model_copy(update=changed)


def with_settings(recipe: Recipe, settings: Mapping[str, Any], of: str) -> Recipe:
    """A recipe with other values of some keys.

    Args:
        recipe: all other values.
        settings: dotted key -> value.
        of: section that gave the settings, for errors to name.

    Raises:
        RecipeError: there is no such key, or a value does not fit.
    """
    data, known = dump_dict(recipe), set(keys())
    for key, value in settings.items():
        if key not in known:
            raise RecipeError(f"{of}: there is no key {key!r}. {_nearest_key(key)}")
        data = _merge(data, _nested(key.split("."), value))
    return _validate(data, of, {}, {key: f"{of}: {key}" for key in settings})


def assignment(text: str) -> tuple[str, Any]:
    """The key and value of ``--set a.b=value``; the value is read as YAML.

    >>> assignment("head.n_components=auto")
    ('head.n_components', 'auto')
    >>> assignment("projection=[{name: pca, explained_variance: 0.95}, l2]")
    ('projection', [{'name': 'pca', 'explained_variance': 0.95}, 'l2'])

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


def dump_dict(recipe: Section) -> dict[str, Any]:
    """The recipe, or a section of one, as JSON-ready values, without the keys that are not set."""
    return recipe.model_dump(mode="json", exclude_none=True)


def keys() -> Iterator[str]:
    """Every dotted key that a recipe may hold, in order.

    >>> [key for key in keys() if key.startswith("split")]
    ['split', 'split.fractions', 'split.seed', 'split.file']
    """
    return (key for key, _ in fields())


def fields(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every dotted key with its field: the type, the default, what it means."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        inner = _section_of(field.annotation)
        if inner is not None:
            yield from fields(inner, f"{prefix}{name}.")


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


def _validate(
    data: Mapping[str, Any], where: str, lines: Mapping[Place, int], options: Mapping[str, str] = MappingProxyType({})
) -> Recipe:
    # A section with nothing below it ("head:") means its defaults.
    given = {key: value for key, value in data.items() if value is not None}
    _refuse_old(given, where, lines)
    try:
        return Recipe.model_validate(given)
    except ValidationError as error:
        raise RecipeError(_explain(error, given, where, lines, options)) from error


def _refuse_old(data: Mapping[str, Any], where: str, lines: Mapping[Place, int]) -> None:
    """Name the new key, and its value, of the first key that has another name now."""
    found = sorted(renames.old_keys(data), key=lambda pair: lines.get(pair[0], 0))
    if found:
        place, new = found[0]
        more = f" {len(found) - 1} more of your keys have other names now: see CHANGELOG.md." if found[1:] else ""
        dotted = ".".join(map(str, place))
        write = f"Write {renames.told(new)}."
        raise RecipeError(f"{_at(where, place, lines)}: there is no key {dotted!r} any more. {write}{more}")


def _at(where: str, place: Place, lines: Mapping[Place, int]) -> str:
    return f"{where}, line {lines[place]}" if place in lines else "the options"


def _explain(
    error: ValidationError, data: Mapping[str, Any], where: str, lines: Mapping[Place, int], options: Mapping[str, str]
) -> str:
    """The first thing that is wrong, by line, with all that pydantic says of that place."""
    problems: dict[Place, list[Any]] = {}
    for detail in error.errors(include_url=False, include_context=False):
        problems.setdefault(_given_place(detail["loc"], data), []).append(detail)
    place = min(problems, key=lambda p: lines.get(p, 0))
    details = problems[place]
    dotted = ".".join(map(str, place))
    if details[0]["type"] == "extra_forbidden":
        return f"{_at(where, place, lines)}: there is no key {dotted!r}. {_nearest_key(dotted)}"
    said = " or be ".join(dict.fromkeys(_plain(detail) for detail in details)).replace(" or be should be ", " or ")
    value, name = details[0]["input"], _option_of(place, options)
    if name and isinstance(place[-1], int) and said.startswith("should"):
        return f"{name} holds {reprlib.repr(value)}, but each value {said}."
    at = name or f"{_at(where, place, lines)}: {dotted}"
    return f"{at} is {reprlib.repr(value)}, but it {said}." if said.startswith("should") else f"{at}: {said}."


def _option_of(place: Place, options: Mapping[str, str]) -> str:
    """The option that gave the value at a place, or a part of it; empty if none did."""
    keys = (".".join(map(str, place[:length])) for length in range(len(place), 0, -1))
    return next((options[key] for key in keys if key in options), "")


def _plain(detail: Any) -> str:
    """What pydantic says, in our words."""
    if detail["type"] == "missing":
        return f"{detail['loc'][-1]} is missing" if isinstance(detail["loc"][-1], str) else "should hold more values"
    return plain_words(detail["msg"])


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
            return f"Did you mean {leaves[close[0]]!r}? {_listed(parent, siblings)}"
    return _listed(parent, siblings) if siblings else f"Known are: {', '.join(known)}."


def _listed(parent: str, keys: Sequence[str]) -> str:
    """What is known in a section, without its name before each key."""
    return f"Known {f'in {parent}' if parent else 'here'}: {', '.join(key.rpartition('.')[2] for key in keys)}."


def _section_of(annotation: Any) -> type[Section] | None:
    """The section inside an annotation such as ``tuple[StepSection, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for inner in () if get_origin(annotation) is dict else get_args(annotation):
        if isinstance(inner, type) and issubclass(inner, Section):
            return inner
    return None
