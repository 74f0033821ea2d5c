"""Read text tables as spreadsheets of different countries write them: UTF-8 or UTF-16, and one of four separators."""

import codecs
import csv
import re
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import TextIO

DELIMITERS = (",", ";", "\t", "|")
_STATED_DELIMITER = re.compile(r"sep=(.)", re.IGNORECASE)  # a first line of Excel's own


def encoding_of(path: Path) -> str:
    """The encoding of a text file: UTF-16 if a mark says so, else UTF-8, with a mark or without.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def begun(file: TextIO, *headers: Collection[str]) -> tuple[Iterator[str], str, int]:
    """The lines of a table from its header on, the character between its columns, and the number of lines before.

    Args:
        file: at its beginning.
        headers: sets of names; the separator that sets all names of one of them apart is taken, else the
            one that occurs most.
    """
    first = file.readline()
    stated = _STATED_DELIMITER.fullmatch(first.strip())
    if stated:
        return file, stated[1], 1
    known = [one for one in DELIMITERS for names in headers if set(names) <= set(cells(first, one))]
    return chain([first], file), known[0] if known else max(DELIMITERS, key=first.count), 0


def read_rows(path: Path, header: Collection[str]) -> list[dict[str, str]]:
    """The rows of a table by the names of its columns; rows without any value are left out.

    Args:
        path: of the table.
        header: names that it should have, by which the separator is known; whether it has them is not checked.

    Raises:
        OSError, UnicodeError, csv.Error: it cannot be read.
    """
    with path.open(encoding=encoding_of(path), newline="") as file:
        lines, delimiter, _ = begun(file, header)
        reader = csv.reader(lines, delimiter=delimiter)
        names = [name.strip() for name in next(reader, [])]
        filled = [values + [""] * (len(names) - len(values)) for values in reader if any(map(str.strip, values))]
    return [dict(zip(names, values, strict=False)) for values in filled]


def cells(line: str, delimiter: str) -> list[str]:
    """The names in a header, without blanks and quotes.

    >>> cells('"file_name"; label', ";")
    ['file_name', 'label']
    """
    return [name.strip(' "\r\n') for name in line.split(delimiter)]
