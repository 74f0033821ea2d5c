"""``mixtura predict``: classify photos or sounds, one decision each."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from mixtura.cli.output import Output
from mixtura.errors import NoInput
from mixtura.pipeline.data_source import ITEM_SUFFIXES

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder written by mixtura fit.")]
Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE", help="Photos or sounds, folders of them, or - to read names from standard input."),
]
Neighbors = Annotated[int, typer.Option(min=0, metavar="N", help="Number of similar known items to list per answer.")]


def predict(out: Output, model: Model, files: Files, neighbors: Neighbors = 3) -> None:
    """Classify each photo or sound, or report it as unknown.

    The verdict is match, unsure (several classes fit) or unknown (no class fits). Probability says which class it is,
    assuming it is a known one. Typicality says whether it is known: the share of genuine items that look at least this
    unusual. An unreadable file gets a row with the reason; the other files are still answered, and the exit code is
    then 66.

    Examples:
      mixtura predict shop a.jpg b.jpg
      mixtura predict shop inbox/                    all photos in a folder
      mixtura predict shop a.jpg --json | jq -r '.[0].label'
      mixtura predict shop inbox/ -q | cut -f 1,2    tabs between values
      find . -name '*.png' | mixtura predict shop - --json
    """
    from mixtura.cli import views
    from mixtura.tasks.predict import run

    answers = run(model, photos(files), neighbors)
    out.result(
        [views.answer_record(answer) for answer in answers],
        [views.answer_line(answer) for answer in answers],
        views.answers_view(answers),
    )
    if any(map(views.is_problem, answers)):
        raise typer.Exit(NoInput.exit_code)


def photos(names: Iterable[str]) -> list[Path]:
    """Return the named files: folders are searched, ``-`` reads names from standard input.

    Raises:
        NoInput: no file is found.
    """
    found: list[Path] = []
    for name in names:
        given = sys.stdin.read().splitlines() if name == "-" else [name]
        for path in map(Path, filter(None, given)):
            found += sorted(_below(path)) if path.is_dir() else [path]
    if not found:
        raise NoInput(
            f"There is no photo or sound in {', '.join(names)}. Known endings: {', '.join(sorted(ITEM_SUFFIXES))}."
        )
    return found


def _below(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in ITEM_SUFFIXES and path.is_file())
