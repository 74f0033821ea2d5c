"""``mixtura predict``: classify photos or sounds, one decision each."""

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixtura.cli.checked import OPTIONAL_FILE, STANDARD_OUTPUT
from mixtura.cli.output import Output
from mixtura.errors import NoInput, UsageError
from mixtura.files import is_file_at, is_folder_at
from mixtura.formats import count, rate_of, short_percent
from mixtura.pipeline.data_source import STORE_HEADER

if TYPE_CHECKING:
    from mixtura.datasets.items import Problem

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder written by mixtura fit.")]
Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        help="Photos or sounds, folders or lists of them, a feature store, vectors (.npy, .npz, .parquet), or - for "
        "standard input: names, or one file itself.",
    ),
]
FalseDiscoveryRate = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE",
        help="Of the files called unknown, the largest expected share of genuine ones, as in 5% or 0.05. "
        "Default: the model's false-reject rate decides, file by file.",
    ),
]
CsvFile = Annotated[
    str | None,
    typer.Option(
        "--csv",
        metavar=OPTIONAL_FILE,
        help="Also write the answers as CSV for a spreadsheet, one row per file; without a file, print only that.",
    ),
]
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# How files of photos and sounds begin, and names do not.
CONTENT = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF.{4}W(EBP|AVE)|BM.{4}\0|P[456]\s+\d+\s+\d+\s|II\*\0|MM\0\*|.{4}ftyp|"
    rb"(fLaC|OggS)\0|ID3.\0|\xff[\xf2\xf3\xfa\xfb]",
    re.DOTALL,
)
VECTORS = re.compile(rb"\x93NUMPY|PK\x03\x04|PAR1\x15")
"""How files of vectors begin."""

Neighbors = Annotated[
    int, typer.Option(min=0, max=10**6, metavar="N", help="Number of similar known items to list per answer.")
]


def predict(
    out: Output,
    model: Model,
    files: Files,
    neighbors: Neighbors = 3,
    false_discovery_rate: FalseDiscoveryRate = None,
    csv: CsvFile = None,
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
      mixtura predict shop inbox/ --csv answers.csv  for a spreadsheet
      find . -name '*.png' | mixtura predict shop - --json
      curl -s https://example.org/a.jpg | mixtura predict shop -
    """
    if csv is not None:
        _check_target(out, csv)
    from mixtura.cli import views
    from mixtura.tasks.predict import run

    given = false_discovery_rate
    stated = None if given is None else rate_of(given, "--false-discovery-rate")
    paths, missed = photos(files)
    answers = [*run(model, paths, neighbors, stated), *missed]
    if csv is not None:
        from mixtura.cli.spreadsheet import write_answers

        write_answers(answers, csv)
    if csv != STANDARD_OUTPUT:
        out.result(
            [views.answer_record(answer) for answer in answers],
            [views.answer_line(answer) for answer in answers],
            [
                *views.answers_view(answers),
                *_promise([answer for answer in answers if not views.is_problem(answer)]),
                *([] if csv is None else [views.written(Path(csv))]),
            ],
        )
    if any(map(views.is_problem, answers)):
        raise typer.Exit(NoInput.exit_code)


def _check_target(out: Output, csv: str) -> None:
    """Check, before any work, that the answers can go where ``--csv`` says."""
    from mixtura.cli.spreadsheet import check_file

    if csv != STANDARD_OUTPUT:
        check_file(Path(csv))
    elif out.json:
        raise UsageError("--json and --csv both print the answers. Leave one out, or name a file, as in --csv a.csv.")


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


def photos(names: Sequence[str]) -> tuple[list[Path | bytes], "list[Problem]"]:
    """Return the named files, and the folders that cannot be read.

    Folders are searched and lists read, as for fit; files of formats that are not read are among their files. A feature
    store stays one name. ``-`` stands for standard input: the bytes of a photo or sound, or names, one a line or
    separated by NUL bytes.

    Raises:
        NoInput: no file is found.
        UsageError: a name is an address.
    """
    from mixtura.datasets.walk import ITEM_SUFFIXES

    found: list[Path | bytes] = []
    missed: list[Problem] = []
    for name in names:
        for given in _standard_input() if name == "-" else [name]:
            if isinstance(given, bytes):
                found.append(given)
                continue
            if ADDRESS.match(given):
                raise UsageError(f"{given} is an address, not a file here. Download it, and give the file.")
            files, problems = _files_of(Path(given))
            found += files
            missed += problems
    if not found and not missed:
        raise NoInput(
            f"There is no photo or sound in {', '.join(names)}. Known endings: {', '.join(sorted(ITEM_SUFFIXES))}."
        )
    return found, missed


def _files_of(path: Path) -> "tuple[list[Path], list[Problem]]":
    """Return the files of a folder or of a list; any other path as it is."""
    from mixtura.datasets import BY_SUFFIX
    from mixtura.datasets.items import Problem
    from mixtura.datasets.listing import read_list
    from mixtura.datasets.paths import from_id, readable
    from mixtura.datasets.walk import files_below

    if is_folder_at(path):
        return ([path], []) if is_file_at(path / STORE_HEADER) else files_below(path)
    if BY_SUFFIX.get(path.suffix.lower()) != "csv" or not is_file_at(path):
        return [path], []
    try:
        items, problems = read_list(path, path.parent)
    except NoInput as error:  # no permission
        return [], [Problem(readable(str(path)), "unreadable", str(error))]
    return [path.parent / from_id(item.id) for item in items], problems


def _standard_input() -> list[str] | list[bytes]:
    """Return the names on standard input, or the bytes of the file that was piped into it."""
    data = sys.stdin.buffer.read()
    if CONTENT.match(data):
        return [data]
    if VECTORS.match(data):
        raise UsageError(
            "Standard input holds vectors (.npy, .npz or .parquet), which are read from a file only. Save them, and "
            "give the file."
        )
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [os.fsdecode(name) for name in names if name]
