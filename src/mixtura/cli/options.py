"""The options that ``extract`` and ``fit`` share, and how they become a recipe."""

import os
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixtura.cli.output import Output
from mixtura.core import FAMILIES
from mixtura.encoders import ENCODERS
from mixtura.errors import UsageError
from mixtura.heads import HEADS, VARIANTS
from mixtura.objectives import HEAD_OBJECTIVES

if TYPE_CHECKING:
    from mixtura.recipe import Recipe

DATA_HELP = (
    "A folder with one sub-folder of photos, or of sounds, per class; or a list (.csv with file_name,label), "
    "a pack (.npz), a feature store, or the name of a public set (mixtura data list). May come from the recipe instead."
)
PHOTOS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm"})
SOUNDS = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"})
"""Endings by which files in a folder are taken for photos and for sounds; a file that is named is always tried."""

LOOKED_AT = 1000
"""Files of a folder at which is looked, to see what it holds."""

STORE_HEADER = "store.json"
"""The file by which a feature store is known."""

FLAGS = {
    "output": "output",
    "store": "extract.store",
    "encoder": "encoder.name",
    "size": "encoder.size",
    "weights": "encoder.weights",
    "device": "encoder.device",
    "batch_size": "extract.batch_size",
    "workers": "extract.workers",
    "label": "data.label",
    "unknown": "data.unknown",
    "family": "head.family",
    "n_components": "head.n_components",
    "false_reject_rate": "decision.false_reject_rate",
    "seed": "seed",
    "head": "head.name",
    "solver": "fit.solver",
    "objective": "fit.objective",
    "learning_rate": "fit.learning_rate",
    "epochs": "fit.epochs",
    "heads": "sweep.heads",
    "solvers": "sweep.solvers",
    "objectives": "sweep.objectives",
    "explained_variance": "sweep.explained_variance",
    "counts": "sweep.n_components",
    "n_seeds": "sweep.n_seeds",
    "folds": "sweep.folds",
    "jobs": "sweep.jobs",
}
"""Which key of the recipe each option sets."""

PATH_KINDS = frozenset({"folder", "csv", "npz", "features", "audio", "esc50", "esc10"})
"""Kinds of data that mean nothing without a path."""

ENCODER, MODEL, RECIPE = "Encoder", "Model", "Recipe"

SOLVERS = ("closed", "em", "gradient")
HEAD_NAMES = ", ".join(HEADS | VARIANTS)
OBJECTIVE_NAMES = ", ".join(HEAD_OBJECTIVES)
"""Names as help texts list them; tables are read without importing what they name."""

Data = Annotated[str | None, typer.Argument(metavar="DATA", help=DATA_HELP, show_default=False)]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe", "-r", metavar="FILE", help="YAML recipe; options given here win over it.", rich_help_panel=RECIPE
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of a recipe, as in head.rank=8. May be given several times.",
        rich_help_panel=RECIPE,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved recipe as YAML and stop.", rich_help_panel=RECIPE)
]
Encoder = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"{', '.join(ENCODERS)}. A network of timm, hf or clap is named behind a colon: timm:NAME, "
        "timm:NAME@weights.safetensors, hf:NAME, hf:./folder, clap:NAME. Default: lite0.",
        rich_help_panel=ENCODER,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PIXELS",
        help="Side of the encoder's input. Larger sees more and takes longer. Default: the encoder's own.",
        rich_help_panel=ENCODER,
    ),
]
Weights = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Local weight file of the encoder.", rich_help_panel=ENCODER)
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="cpu, cuda, cuda:1, mps, or auto for the fastest here. Default: auto.",
        rich_help_panel=ENCODER,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Images per forward pass. Default: 32.", rich_help_panel=ENCODER),
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Threads that read images. Default: by the cores.", rich_help_panel=ENCODER),
]
Label = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Which label to learn where the data has several: fine, coarse.", rich_help_panel=MODEL
    ),
]
Unknown = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASS",
        help="Leave this class out of the catalog and test with it that unknown things are noticed. Repeatable.",
        rich_help_panel=MODEL,
    ),
]
Family = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Shape of the Gaussians: auto (by validation), {', '.join(FAMILIES)}. Default: auto.",
        rich_help_panel=MODEL,
    ),
]
Head = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Classifier on top of the features: {HEAD_NAMES}. Default: gaussian.",
        rich_help_panel=MODEL,
    ),
]
Solver = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"{', '.join(SOLVERS)}, or auto (no gradients). Default: auto.",
        rich_help_panel=MODEL,
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"What the solver gradient lowers: {OBJECTIVE_NAMES}. Default: conditional.",
        rich_help_panel=MODEL,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(metavar="X", help="Of the solver gradient. Default: 0.003.", rich_help_panel=MODEL),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="N", help="Passes over the rows, for the solver gradient. Default: 30.", rich_help_panel=MODEL
    ),
]
Components = Annotated[
    str | None,
    typer.Option(metavar="N|auto", help="Gaussians per class. Default: 1.", rich_help_panel=MODEL),
]
FalseRejectRate = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="How many genuine items may be called unknown: 0.05 is one in twenty. Default: 0.05.",
        rich_help_panel=MODEL,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Same seed, same result. Default: 0.", rich_help_panel=MODEL),
]


def recipe_of(data: str | None, file: Path | None, settings: list[str] | None, **flags: Any) -> "Recipe":
    """The recipe that a command line means; ``flags`` go by the names of :data:`FLAGS`, ``None`` is not given.

    Raises:
        UsageError: a key is set twice, or nothing says where the data is.
        RecipeError, NoInput: see :func:`mixtura.recipe.resolve`.
    """
    from mixtura.recipe import assignment, resolve

    given = {FLAGS[name]: value for name, value in flags.items() if value not in (None, [])}
    guess = data_keys(data) if data is not None else {}
    if any(setting.startswith("data.kind=") for setting in settings or ()) and guess.get("data.root"):
        del guess["data.kind"]  # what a path holds was guessed, and the user knows better
    given |= guess
    for key, value in map(assignment, settings or ()):
        if given.get(key) is not None:
            raise UsageError(f"{key!r} is set twice, to {given[key]!r} and {value!r}. Give it once.")
        given[key] = value
    recipe = resolve(given, file)
    if recipe.data.root is None and recipe.data.kind in PATH_KINDS:
        raise UsageError("No data given. Name a folder with one sub-folder of photos per class, or a recipe that does.")
    return recipe


def print_recipe(out: Output, recipe: "Recipe") -> None:
    """Answer ``--dry-run``: the resolved recipe as YAML, or as JSON."""
    from mixtura.recipe import dump, dump_dict

    if out.json:
        out.result(dump_dict(recipe), (), ())
    else:
        print(dump(recipe), end="")


def need_output(recipe: "Recipe", example: str) -> Path:
    """The output folder of a recipe.

    Raises:
        UsageError: there is none.
    """
    if recipe.output is None:
        raise UsageError(f"No output folder given. Name one with -o, as in: mixtura {example}")
    return recipe.output


def store_of(recipe: "Recipe", example: str) -> Path:
    """Where the features of a recipe go: its store, or ``features`` in its output folder.

    Raises:
        UsageError: it names neither.
    """
    return recipe.extract.store or need_output(recipe, example) / "features"


def data_keys(source: str) -> dict[str, Any]:
    """What a user means by one word of data, as keys of a recipe.

    What exists on disk wins over the name of a public set; a folder that ``extract`` has written is a feature store.

    >>> data_keys("digits")
    {'data.kind': 'digits', 'data.root': None}
    >>> data_keys("list.csv")["data.kind"]
    'csv'
    """
    if not source:  # an unset shell variable; pathlib would read it as the current folder
        return {"data.kind": "folder", "data.root": source}
    path = Path(source)
    if not path.exists() and source in named_sets():
        return {"data.kind": source, "data.root": None}
    kind = {".csv": "csv", ".npz": "npz"}.get(path.suffix.lower(), "folder")
    if path.is_dir():
        kind = _kind_of_folder(path)
    elif path.is_file():
        kind = _official(path) or kind
    return {"data.kind": kind, "data.root": path}


def names_in(text: str | None) -> list[str] | None:
    """Names between commas.

    >>> names_in("tied, full")
    ['tied', 'full']
    """
    names = None if text is None else [part.strip() for part in text.split(",")]
    if names is not None and not all(names):
        raise UsageError(f"{text!r} holds an empty name. Write names between commas, as in tied,full.")
    return names


def numbers_in(text: str | None, flag: str) -> list[float | int] | None:
    """Numbers between commas; ``...`` goes on in steps of the two before it.

    >>> numbers_in("5,10,...,25", "--n-components")
    [5, 10, 15, 20, 25]
    >>> numbers_in("0.1,0.2,...,0.5,1", "--explained-variance")
    [0.1, 0.2, 0.3, 0.4, 0.5, 1]

    Raises:
        UsageError: something is no number, or the dots have no step.
    """
    if text is None:
        return None
    found: list[float | int] = []
    parts = [part.strip() for part in text.split(",")]
    for place, part in enumerate(parts):
        if part == "...":
            found += _between(found, parts[place + 1 :], text, flag)
        else:
            found.append(_number(part, text, flag))
    return found


def _number(part: str, text: str, flag: str) -> float | int:
    try:
        value = float(part)
    except ValueError:
        raise UsageError(f"{flag} {text!r}: {part!r} is no number. Write for example {flag} 1,2,...,10.") from None
    return int(value) if value.is_integer() else value


def _between(found: list[float | int], rest: list[str], text: str, flag: str) -> list[float | int]:
    """What the dots stand for."""
    step = found[-1] - found[-2] if len(found) > 1 else 0
    last = _number(rest[0], text, flag) if rest else 0
    if step <= 0 or last <= found[-1] or (last - found[-1]) / step > 1000:
        raise UsageError(
            f"{flag} {text!r}: dots need two rising numbers before and the last one after, as in 1,2,...,10."
        )
    # rounded: 0.2 + 0.1 is to be 0.3
    return [round(found[-1] + step * i, 10) for i in range(1, round((last - found[-1]) / step))]


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Of the arguments of a command, those that set a key of the recipe by themselves."""
    return {name: value for name, value in options.items() if name in FLAGS}


def _kind_of_folder(path: Path) -> str:
    """A feature store, a public set in its official layout, or photos or sounds, by the first such file that is met."""
    if (path / STORE_HEADER).is_file():
        return "features"
    if (path / "meta" / "esc50.csv").is_file():
        return "esc50"
    if found := _official(path):
        return found
    names = (Path(name) for _, _, files in os.walk(path) for name in files)
    endings = (name.suffix.lower() for name in islice(names, LOOKED_AT))
    return next(
        ("audio" if ending in SOUNDS else "folder" for ending in endings if ending in SOUNDS | PHOTOS), "folder"
    )


def _official(path: Path) -> str | None:
    """The public set whose official files these are."""
    from mixtura.datasets import OFFICIAL

    for kind, names in OFFICIAL.items():
        if path.name in names or any((path / name).exists() for name in names):
            return kind
    return None


def named_sets() -> Collection[str]:
    """The datasets that need no path."""
    from mixtura.datasets import DATASETS

    return set(DATASETS) - PATH_KINDS
