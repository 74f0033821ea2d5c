"""``mixtura predict``: classify photos or sounds, one decision each."""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixtura.cli.output import Output
from mixtura.errors import NoInput, UsageError
from mixtura.formats import count, rate_of, short_percent

if TYPE_CHECKING:
    from mixtura.datasets.items import Problem

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder written by mixtura fit.")]
Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE", help="Photos or sounds, folders of them, or - to read names from standard input."),
]
FalseDiscoveryRate = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE",
        help="Of the files called unknown, the largest expected share of genuine ones, as in 5% or 0.05. "
        "Default: the model's false-reject rate decides, file by file.",
    ),
]
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
Neighbors = Annotated[int, typer.Option(min=0, metavar="N", help="Number of similar known items to list per answer.")]


def predict(
    out: Output,
    model: Model,
    files: Files,
    neighbors: Neighbors = 3,
    false_discovery_rate: FalseDiscoveryRate = None,
) -> None:
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
      mixtura predict shop inbox/ --false-discovery-rate 5%
      find . -name '*.png' | mixtura predict shop - --json
    """
    from mixtura.cli import views
    from mixtura.tasks.predict import run

    given = false_discovery_rate
    stated = None if given is None else rate_of(given, "--false-discovery-rate")
    paths, missed = photos(files)
    answers = [*run(model, paths, neighbors, stated), *missed]
    out.result(
        [views.answer_record(answer) for answer in answers],
        [views.answer_line(answer) for answer in answers],
        [*views.answers_view(answers), *_promise([answer for answer in answers if not views.is_problem(answer)])],
    )
    if any(map(views.is_problem, answers)):
        raise typer.Exit(NoInput.exit_code)


def _promise(decisions: Sequence[Any]) -> Iterable[str]:
    """Yield what a false-discovery rate promises of the files called unknown, in one sentence."""
    rate = decisions[0].false_discovery_rate if decisions else None
    if rate is None:
        return
    stated, unknown = short_percent(rate), sum(decision.verdict == "unknown" for decision in decisions)
    if unknown > 1:
        number = f"{rate * unknown:.0f}" if rate * unknown >= 1 else "fewer than one"
        yield f"Of the {unknown:,} files called unknown, at most {stated} ({number}) are expected to be genuine."
    elif unknown:
        yield f"1 file is called unknown. Of files called unknown so, at most {stated} are expected to be genuine."
    else:
        lowest, needed = min(decision.typicality for decision in decisions), decisions[0].threshold
        yield (
            f"No file is called unknown: the lowest typicality is {100 * lowest:.2g}%. At a false-discovery rate of "
            f"{stated}, a single one of {count(len(decisions), 'file')} would need {100 * needed:.2g}% or less."
        )


def photos(names: Sequence[str]) -> tuple[list[Path], "list[Problem]"]:
    """Return the named files, and the folders that cannot be read; ``-`` reads names from standard input.

    Folders are searched, as for fit; files of formats that are not read are among their files.

    Raises:
        NoInput: no file is found.
        UsageError: a name is an address.
    """
    from mixtura.datasets.walk import ITEM_SUFFIXES, files_below

    found: list[Path] = []
    missed: list[Problem] = []
    for name in names:
        for given in filter(None, sys.stdin.read().splitlines() if name == "-" else [name]):
            if ADDRESS.match(given):
                raise UsageError(f"{given} is an address, not a file here. Download it, and give the file.")
            files, problems = files_below(Path(given)) if Path(given).is_dir() else ([Path(given)], [])
            found += files
            missed += problems
    if not found and not missed:
        raise NoInput(
            f"There is no photo or sound in {', '.join(names)}. Known endings: {', '.join(sorted(ITEM_SUFFIXES))}."
        )
    return found, missed
