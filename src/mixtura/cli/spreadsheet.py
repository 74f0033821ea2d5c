"""Answers as CSV, for spreadsheets: one row per file, in UTF-8."""

import csv
import io
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, get_origin

from mixtura import files
from mixtura.cli.checked import STANDARD_OUTPUT
from mixtura.cli.output import shown
from mixtura.cli.views import is_problem
from mixtura.errors import CannotWrite, NoInput
from mixtura.files import is_folder_at, is_there
from mixtura.records.decision import ClassRow, Decision

TITLES = {"id": "item", "label": "class"}
"""Titles of columns, where they are not the names of JSON."""

FIRST_KEYS = ("id", "verdict", "label", "probability", "typicality", "reason")
PLAIN_KEYS = tuple(one.name for one in fields(Decision) if get_origin(one.type) is not tuple)
KEYS = (*FIRST_KEYS, *(key for key in PLAIN_KEYS if key not in FIRST_KEYS))
HEADER = ",".join(TITLES.get(key, key) for key in KEYS)
FIRST_TITLES = ",".join(TITLES.get(key, key) for key in FIRST_KEYS)

_FORMULA = re.compile(r"'*[=+\-@\t\r].")
"""How text begins that a spreadsheet would run; quotes before it are counted, so one more can be told from them."""


def cell(value: Any) -> Any:
    """Return a value as a spreadsheet shows it: text that would be a formula gets a quote in front.

    >>> cell("=HYPERLINK(0)"), cell("a=b.jpg"), cell("-"), cell(-0.5), cell(None)
    ("'=HYPERLINK(0)", 'a=b.jpg', '-', -0.5, None)
    """
    if not isinstance(value, str):
        return value
    return shown(f"'{value}" if _FORMULA.match(value) else value)


CLASS_HEADER = ",".join(one.name for one in fields(ClassRow)).replace("name", "class", 1)
"""First line of a class table."""


def write_classes(rows: Iterable[ClassRow], path: Path) -> None:
    """Write the figures of each class as a table.

    Raises:
        CannotWrite, OutOfSpace: the file cannot be written.
    """
    text = io.StringIO()
    text.write(f"{CLASS_HEADER}\n")
    csv.writer(text, lineterminator="\n").writerows([cell(value) for value in astuple(row)] for row in rows)
    files.write(path, text.getvalue().encode())


def answers_csv(answers: Iterable[Any]) -> str:
    """Return a header and one row per answer, in order; an unreadable file has the verdict ``error`` and its reason."""
    text = io.StringIO()
    table = csv.DictWriter(text, KEYS, lineterminator="\n")
    text.write(f"{HEADER}\n")
    table.writerows({key: cell(value) for key, value in _row(answer).items()} for answer in answers)
    return text.getvalue()


def _row(answer: Any) -> dict[str, Any]:
    if is_problem(answer):
        return {"id": answer.source, "verdict": "error", "reason": answer.reason, "sentence": answer.message}
    return {key: getattr(answer, key) for key in KEYS}


def check_file(path: Path, header: str = HEADER) -> None:
    """Check, before any work, that answers, or rows under another header, can be written to a file.

    Raises:
        NoInput: its folder does not exist.
        CannotWrite: there is a file that holds no answers of an earlier run.
    """
    if not is_folder_at(path.parent):
        raise NoInput(f"There is no folder {path.parent} to write {path.name} into. Make it, or name another file.")
    if is_there(path) and not _holds_answers(path, header):
        what = "answers" if header == HEADER else "class table"
        raise CannotWrite(f"{path} is there already and holds no {what} of mixtura. Name another file for --csv.")


def _holds_answers(path: Path, header: str) -> bool:
    try:
        with path.open("rb") as file:
            first = file.read(len(header) + 1).partition(b"\n")[0].strip().decode("utf-8", "replace")
            return first in ("", header) or (first.startswith(FIRST_TITLES) and header.startswith(f"{first},"))
    except OSError:
        return False


def write_answers(answers: Sequence[Any], target: str) -> None:
    """Write answers to a file, or to standard output for ``-``.

    Raises:
        CannotWrite, OutOfSpace: the file cannot be written.
    """
    text = answers_csv(answers)
    if target != STANDARD_OUTPUT:
        files.write(Path(target), text.encode())
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    print(text, end="")
