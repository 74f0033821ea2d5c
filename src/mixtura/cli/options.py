"""Options of the command line that are made from the sections of the recipe, and the recipe that they mean."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from annotated_types import Ge
from pydantic.fields import FieldInfo

from mixtura.cli.lists import names_in, numbers_in
from mixtura.cli.output import Output, signed
from mixtura.core import FAMILIES
from mixtura.datasets import DATASETS, NEED_PATH
from mixtura.encoders import ENCODERS
from mixtura.errors import UsageError
from mixtura.features import PROJECTIONS
from mixtura.heads import HEADS, VARIANTS
from mixtura.objectives import HEAD_OBJECTIVES
from mixtura.pipeline.data_source import data_keys
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
"""Names that a key takes, from the tables; these are read without importing what they name."""

ENCODER = {"Encoder": ("encoder", "extract")}
"""The panel of options that :func:`takes_flags` makes for every command that encodes."""

DATA_HELP = (
    "A folder with one sub-folder of photos or sounds per class; or a list (.csv with file_name,label), "
    "a pack (.npz), a feature store, or the name of a public set (mixtura data list). May come from the recipe instead."
)

Data = Annotated[str | None, typer.Argument(metavar="DATA", help=DATA_HELP, show_default=False)]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe", "-r", metavar="FILE", help="YAML recipe; options given here win over it.", rich_help_panel="Recipe"
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of a recipe, as in head.rank=8. May be given several times.",
        rich_help_panel="Recipe",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved recipe as YAML and stop.", rich_help_panel="Recipe")
]

Command = Callable[..., None]


@dataclass(frozen=True)
class Option:
    """A key of the recipe as an option: the name, type, bounds, default and help that its field has."""

    key: str
    field: FieldInfo
    flag: Flag

    @property
    def name(self) -> str:
        """The name as typer passes it on."""
        return self.flag.name or self.key.rpartition(".")[2]

    @property
    def switch(self) -> str:
        """The name as people write it."""
        return f"--{self.name.replace('_', '-')}"

    def parameter(self, panel: str) -> Parameter:
        """The parameter that typer reads."""
        shown, kind = _default(self.field.default), self._kind
        bounds: list[Any] = [part.ge for part in _parts(self.field) if isinstance(part, Ge)] if kind is int else []
        option = typer.Option(
            self.switch,
            metavar=self.flag.metavar or None,
            help=described(self.key, self.field) + (f" Default: {shown}." if shown else ""),
            min=next(iter(bounds), None),
            rich_help_panel=panel,
        )
        return Parameter(self.name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option])

    @property
    def _kind(self) -> Any:
        """A number or a switch for typer to check; text where the recipe knows better what is allowed."""
        if self.flag.repeatable:
            return list[str]
        kinds = [part for part in _parts(self.field) if isinstance(part, type | str) and part is not type(None)]
        return kinds[0] if kinds in ([int], [float], [bool]) and not self._between_commas else str

    @property
    def _between_commas(self) -> bool:
        return get_origin(self.field.annotation) is tuple and not self.flag.repeatable

    def read(self, value: Any) -> Any:
        """What was given, with a list taken apart; everything else the recipe reads by itself."""
        if not self._between_commas:
            return value
        return numbers_in(value, self.switch) if {int, float} & {*_parts(self.field)} else names_in(value)


def described(key: str, field: FieldInfo) -> str:
    """What a key means, and the names that it takes."""
    parts = _parts(field)
    literals = [] if {int, float, str} & {*parts} else [part for part in parts if isinstance(part, str)]
    names = ", ".join(CHOICES.get(key, literals))
    return f"{field.description}{f' Choices: {names}.' if names else ''}"


def _parts(field: FieldInfo) -> list[Any]:
    """What the type of a field is made of: plain types, allowed words, bounds."""
    return [*_inside(field.annotation), *field.metadata]


def _inside(annotation: Any) -> list[Any]:
    inner = annotation.metadata if isinstance(annotation, FieldInfo) else get_args(annotation)
    return [part for one in inner for part in _inside(one)] if inner else [annotation]


def _default(value: Any) -> str:
    """A default as one would give it; empty where there is none to give."""
    if value is None or value is False:
        return ""
    values = value if isinstance(value, tuple) else (value,)
    return ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values)


FLAGS = {key: Option(key, field, mark) for key, field in fields() for mark in field.metadata if isinstance(mark, Flag)}
"""Every key of the recipe that has an option."""


def takes_flags(panels: Mapping[str, Iterable[str]]) -> Callable[[Command], Command]:
    """Give a command the options of some keys; it gets those that were given as ``flags``, value by key.

    Args:
        panels: title in the help -> sections, or single keys, in order.
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
            said = [(option, values.pop(name)) for name, (option, _) in options.items()]
            flags = {option.key: option.read(value) for option, value in said if value not in (None, [])}
            function(*arguments, flags=flags, **values)

        made = [option.parameter(panel) for option, panel in options.values()]
        return signed(wrapper, function, _replaced(function, "flags", made))

    return decorate


def takes_recipe(panels: Mapping[str, Iterable[str]], output: str, key: str = "output") -> Callable[[Command], Command]:
    """Give a command data and all that makes a recipe of it; it gets the recipe after ``out``, unless that is printed.

    Args:
        panels: see :func:`takes_flags`.
        output: what the output folder is for.
        key: the key that the output folder sets.
    """
    folder = Annotated[str | None, typer.Option("--output", "-o", metavar="FOLDER", help=output)]

    def decorate(function: Command) -> Command:
        def wrapper(
            out: Output,
            data: Data = None,
            output: folder = None,  # pyright: ignore[reportInvalidTypeForm] - typer reads it
            recipe: RecipeFile = None,
            settings: Settings = None,
            dry_run: DryRun = False,
            *,
            flags: dict[str, Any],
            **own: Any,
        ) -> None:
            resolved = recipe_of(data, recipe, settings, flags if output is None else flags | {key: output})
            if dry_run:
                return print_recipe(out, resolved)
            return function(out, resolved, **own)

        own = list(signature(function).parameters.values())[2:]
        return takes_flags(panels)(signed(wrapper, function, _replaced(wrapper, "own", own)))

    return decorate


def _replaced(function: Command, name: str, by: Iterable[Parameter]) -> list[Parameter]:
    """The parameters of a function with others in the place of one."""
    return [one for own in signature(function).parameters.values() for one in (by if own.name == name else [own])]


def recipe_of(data: str | None, file: Path | None, settings: list[str] | None, flags: Mapping[str, Any]) -> Recipe:
    """The recipe that a command line means; ``flags`` are those that were given, by key.

    Raises:
        UsageError: a key is set twice, or nothing says where the data is.
        RecipeError, NoInput: see :func:`mixtura.recipe.resolve`.
    """
    given = dict(flags)
    guess = data_keys(data) if data is not None else {}
    if any(setting.startswith("data.kind=") for setting in settings or ()) and guess.get("data.root"):
        del guess["data.kind"]  # what a path holds was guessed, and the user knows better
    given |= guess
    for key, value in map(assignment, settings or ()):
        if given.get(key) is not None:
            raise UsageError(f"{key!r} is set twice, to {given[key]!r} and {value!r}. Give it once.")
        given[key] = value
    recipe = resolve(given, file)
    if recipe.data.root is None and recipe.data.kind in NEED_PATH:
        raise UsageError("No data given. Name a folder with one sub-folder of photos per class, or a recipe that does.")
    return recipe


def print_recipe(out: Output, recipe: Recipe) -> None:
    """Answer ``--dry-run``: the resolved recipe as YAML, or as JSON."""
    if out.json:
        out.result(dump_dict(recipe), (), ())
    else:
        print(dump(recipe), end="")


def need_output(recipe: Recipe, example: str) -> Path:
    """The output folder of a recipe.

    Raises:
        UsageError: there is none.
    """
    if recipe.output is None:
        raise UsageError(f"No output folder given. Name one with -o, as in: mixtura {example}")
    return recipe.output


def store_of(recipe: Recipe, example: str) -> Path:
    """Where the features of a recipe go: its store, or ``features`` in its output folder.

    Raises:
        UsageError: it names neither.
    """
    return recipe.extract.store or need_output(recipe, example) / "features"
