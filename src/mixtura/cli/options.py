"""Make command-line options from the sections of the recipe, and a recipe from the options."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from mixtura.cli.lists import names_in, numbers_in
from mixtura.cli.output import Output, signed
from mixtura.core import FAMILIES
from mixtura.datasets import DATASETS, NEED_PATH
from mixtura.encoders import ENCODERS, NATIVE_SIZES, WITHOUT_SIZE
from mixtura.encoders.sizes import FAST_SIZE
from mixtura.errors import UsageError
from mixtura.features import PROJECTIONS
from mixtura.heads import HEADS, VARIANTS
from mixtura.objectives import HEAD_OBJECTIVES
from mixtura.pipeline.data_source import as_stated, data_keys, require_photos
from mixtura.recipe import Recipe, assignment, dump, dump_dict, fields, resolve
from mixtura.sections import Flag

CHOICES: dict[str, Iterable[str]] = {
    "data.kind": (*DATASETS, "features"),
    "encoder.name": ENCODERS,
    "projection.name": PROJECTIONS,
    "head.name": HEADS | VARIANTS,
    "head.family": ("auto", *FAMILIES),
    "fit.objective": HEAD_OBJECTIVES,
    "sweep.heads": HEADS | VARIANTS,
    "sweep.objectives": HEAD_OBJECTIVES,
}
"""Names allowed for a key, from the registries; nothing they name is imported."""

ENCODER = {"Encoder": ("encoder", "extract")}
"""The panel of options for every command that encodes; see :func:`takes_flags`."""

DATA_HELP = (
    "A folder with one sub-folder of photos or sounds per class, a list (.csv with file_name,label), "
    "a pack (.npz), a feature store, or the name of a public data set (mixtura data list). A recipe may name it too."
)
PHOTOS_HELP = DATA_HELP.replace("photos or sounds", "photos").replace("a feature store, ", "")
"""The help of DATA for a command that takes photos only."""

RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe", "-r", metavar="FILE", help="YAML recipe; options given here override it.", rich_help_panel="Recipe"
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any key of the recipe, as in head.rank=8. Repeatable.",
        rich_help_panel="Recipe",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved recipe as YAML and stop.", rich_help_panel="Recipe")
]

FAST, SIZE_KEY = "fast", "encoder.size"
"""The flag of ``--fast``, which is no key of a recipe, and the key that it sets."""

Command = Callable[..., None]


@dataclass(frozen=True)
class Option:
    """A key of the recipe as an option, with the name, type, bounds, default and help of its field."""

    key: str
    field: FieldInfo
    flag: Flag

    @property
    def name(self) -> str:
        """The parameter name that typer passes on."""
        return self.flag.name or self.key.rpartition(".")[2]

    @property
    def switch(self) -> str:
        """The name on the command line, such as ``--n-components``."""
        return f"--{self.name.replace('_', '-')}"

    def parameter(self, panel: str) -> Parameter:
        """Return the parameter for typer."""
        shown, kind = _default(self.field.default), self._kind
        option = typer.Option(
            self.switch,
            metavar=self.flag.metavar or None,
            help=described(self.key, self.field) + (f" Default: {shown}." if shown else ""),
            rich_help_panel=panel,
        )
        return Parameter(self.name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option])

    @property
    def _kind(self) -> Any:
        """A switch or text, which the recipe checks; typer's own errors do not name the value."""
        if self.flag.repeatable:
            return list[str]
        kinds = [part for part in _parts(self.field) if isinstance(part, type | str) and part is not type(None)]
        return bool if kinds == [bool] and not self._between_commas else str

    @property
    def _between_commas(self) -> bool:
        return get_origin(self.field.annotation) is tuple and not self.flag.repeatable

    def read(self, value: Any) -> Any:
        """Return the value, with a list split at its commas; the recipe parses everything else."""
        if not self._between_commas:
            return value
        kinds = {*_parts(self.field)}
        if not {int, float} & kinds:
            return names_in(value)
        return numbers_in(value, self.switch, "0.1,0.2,...,1" if float in kinds else "1,2,...,10")


def described(key: str, field: FieldInfo) -> str:
    """Return the description of a key and its allowed names."""
    parts = _parts(field)
    literals = [] if {int, float, str} & {*parts} else [part for part in parts if isinstance(part, str)]
    names = ", ".join(CHOICES.get(key, literals))
    return f"{field.description}{f' Choices: {names}.' if names else ''}"


def _parts(field: FieldInfo) -> list[Any]:
    """Return the parts of a field's type: plain types, allowed words, bounds."""
    return [*_inside(field.annotation), *field.metadata]


def _inside(annotation: Any) -> list[Any]:
    inner = annotation.metadata if isinstance(annotation, FieldInfo) else get_args(annotation)
    return [part for one in inner for part in _inside(one)] if inner else [annotation]


def _default(value: Any) -> str:
    """Return a default as you would type it; empty if there is none."""
    if value is None or value is False:
        return ""
    values = value if isinstance(value, tuple) else (value,)
    return ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values)


FLAGS = {key: Option(key, field, mark) for key, field in fields() for mark in field.metadata if isinstance(mark, Flag)}
"""The option of every recipe key that has one."""


def switch_of(key: str) -> str:
    """Return the option of a key among the ``flags`` of a command, as in ``--size``."""
    return FLAGS[key].switch if key in FLAGS else f"--{key}"


def words_for(keys: Mapping[str, Any]) -> list[str]:
    """Return the options by which a command takes keys with JSON-ready values, quoted for a shell.

    >>> words_for({"encoder.size": 64, "encoder.filters": 4})
    ['--size 64', '--set encoder.filters=4']
    """
    return [
        f"{FLAGS[key].switch} {quote(str(value))}" if key in FLAGS else f"--set {quote(f'{key}={json.dumps(value)}')}"
        for key, value in keys.items()
    ]


def takes_flags(panels: Mapping[str, Iterable[str]]) -> Callable[[Command], Command]:
    """Give a command the options of some keys; it receives the options given as ``flags``, a map from key to value.

    Args:
        panels: help panel title -> sections, or single keys, in order.
    """
    options = {
        option.name: (option, panel)
        for panel, places in panels.items()
        for place in places
        for key, option in FLAGS.items()
        if place in (key, key.partition(".")[0])
    }

    def decorate(function: Command) -> Command:
        def wrapper(*arguments: Any, **values: Any) -> None:
            fast = {FAST: True} if values.pop(FAST, None) else {}
            said = [(option, values.pop(name)) for name, (option, _) in options.items()]
            flags = {option.key: option.read(value) for option, value in said if value not in (None, [])}
            function(*arguments, flags=flags | fast, **values)

        made = [one for option, panel in options.values() for one in _parameters(option, panel)]
        return signed(wrapper, function, _replaced(function, "flags", made))

    return decorate


def _parameters(option: Option, panel: str) -> list[Parameter]:
    """Return the parameter of an option; ``--fast`` follows ``--size``."""
    if option.key != SIZE_KEY:
        return [option.parameter(panel)]
    said = f"The same as --size {FAST_SIZE}: faster than the encoder's own size, and less accurate."
    fast = Annotated[bool, typer.Option("--fast", help=said, rich_help_panel=panel)]
    return [option.parameter(panel), Parameter(FAST, Parameter.KEYWORD_ONLY, default=False, annotation=fast)]


def takes_recipe(
    panels: Mapping[str, Iterable[str]],
    output: str,
    key: str = "output",
    default: Recipe | None = None,
    takes: str = DATA_HELP,
) -> Callable[[Command], Command]:
    """Give a command DATA and the recipe options; it receives the recipe after ``out``, except with ``--dry-run``.

    Args:
        panels: see :func:`takes_flags`.
        output: help text of the output folder.
        key: the recipe key of the output folder.
        default: what neither options nor file say.
        takes: help text of DATA.
    """
    place = Annotated[str | None, typer.Argument(metavar="DATA", help=takes, show_default=False)]
    folder = Annotated[str | None, typer.Option("--output", "-o", metavar="FOLDER", help=output)]

    def decorate(function: Command) -> Command:
        def wrapper(
            out: Output,
            data: place = None,  # pyright: ignore[reportInvalidTypeForm] - typer reads it
            output: folder = None,  # pyright: ignore[reportInvalidTypeForm] - typer reads it
            recipe: RecipeFile = None,
            settings: Settings = None,
            dry_run: DryRun = False,
            *,
            flags: dict[str, Any],
            **own: Any,
        ) -> None:
            given = flags if output is None else flags | {key: output}
            resolved = recipe_of(data, recipe, settings, given, default)
            if dry_run:
                return print_recipe(out, resolved)
            return function(out, resolved, **own)

        own = list(signature(function).parameters.values())[2:]
        return takes_flags(panels)(signed(wrapper, function, _replaced(wrapper, "own", own)))

    return decorate


def _replaced(function: Command, name: str, by: Iterable[Parameter]) -> list[Parameter]:
    """Return the parameters of a function with one replaced by others."""
    return [one for own in signature(function).parameters.values() for one in (by if own.name == name else [own])]


def recipe_of(
    data: str | None,
    file: Path | None,
    settings: list[str] | None,
    flags: Mapping[str, Any],
    default: Recipe | None = None,
) -> Recipe:
    """Return the recipe for a command line; ``flags`` are the options given, by key.

    Raises:
        UsageError: a key is set twice, or no data is named.
        RecipeError, NoInput: see :func:`mixtura.recipe.resolve`.
    """
    given = {key: value for key, value in flags.items() if key != FAST}
    guess = data_keys(data) if data is not None else {}
    if any(setting.startswith("data.kind=") for setting in settings or ()) and guess.get("data.root"):
        del guess["data.kind"]  # the kind was only guessed, and the user knows better
    given |= guess
    for key, value in map(assignment, settings or ()):
        if given.get(key) is not None:
            raise UsageError(f"{key!r} is set twice, to {given[key]!r} and {value!r}. Give it once.")
        given[key] = value
    options = {key: FLAGS[key].switch if key in FLAGS else "--output" for key in flags if key != FAST}
    options = {key: f"--set {key}" for key in given} | dict.fromkeys(guess, "DATA") | options
    if guess and file is not None and "data.kind" in guess:
        stated = resolve({key: value for key, value in given.items() if key != "data.kind"}, file, default, options)
        given |= as_stated(guess, stated.data.kind)
    if FAST in flags:
        given = _sped_up(given, resolve(given, file, default, options))
    recipe = resolve(given, file, default, options)
    if recipe.data.kind == "features":
        require_photos({key: option for key, option in options.items() if option != "--output"}, recipe.data.root)
    if recipe.data.root is None and recipe.data.kind in NEED_PATH:
        raise UsageError("No data given. Name a folder with one sub-folder of photos per class, or a recipe that does.")
    return recipe


def _sped_up(given: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The options with ``--fast`` as a size, checked against the encoder of the recipe.

    Raises:
        UsageError: another size is given, or the encoder would not be faster.
    """
    name = recipe.encoder.name.partition(":")[0]
    if recipe.encoder.size not in (None, FAST_SIZE) and given.get(SIZE_KEY) is not None:
        raise UsageError(
            f"--fast means {FAST_SIZE} px, and a size of {recipe.encoder.size} px is given. Leave one of them out."
        )
    if name in WITHOUT_SIZE:
        raise UsageError(f"--fast is for photos, and the encoder {name!r} takes sounds. Leave --fast out.")
    if NATIVE_SIZES.get(name, FAST_SIZE) < FAST_SIZE:
        raise UsageError(
            f"The encoder {name!r} reads photos at {NATIVE_SIZES[name]} px, and --fast would enlarge them to "
            f"{FAST_SIZE} px. Leave --fast out."
        )
    return given | {SIZE_KEY: FAST_SIZE}


def print_recipe(out: Output, recipe: Recipe) -> None:
    """Print the resolved recipe as YAML or JSON, for ``--dry-run``."""
    if out.json:
        out.result(dump_dict(recipe), (), ())
    else:
        print(dump(recipe), end="")


def need_output(recipe: Recipe, example: str) -> Path:
    """Return the output folder of a recipe.

    Raises:
        UsageError: there is none.
    """
    if recipe.output is None:
        raise UsageError(f"No output folder given. Name one with -o, as in: mixtura {example}")
    return recipe.output


def store_of(recipe: Recipe, example: str) -> Path:
    """Return the feature store of a recipe, or ``features`` in its output folder.

    Raises:
        UsageError: it names neither.
    """
    return recipe.extract.store or need_output(recipe, example) / "features"
