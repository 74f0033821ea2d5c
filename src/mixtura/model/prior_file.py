"""Read the class prior that a recipe or a command asks for: a word, or a file of classes and shares."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mixtura.errors import DataError, NoInput
from mixtura.formats import rate
from mixtura.model.model import Model
from mixtura.model.prior import DATA, UNIFORM, AskedPrior, asked_prior
from mixtura.names import Spellings, nearest, printable

ROUNDING = 1e-3  # by which rounded shares may miss a sum of 1
HEADER = ("class", "share")


def read_prior(model: Model, asked: str | Path) -> AskedPrior:
    """Return the prior that is asked of a model.

    Args:
        model: as it was fitted; a file names its classes.
        asked: ``data``, ``uniform``, or a file.

    Raises:
        NoInput: the file cannot be read.
        DataError: it is no list of classes and shares, or not of these classes.
    """
    if str(asked) in (DATA, UNIFORM):
        return asked_prior(model, str(asked))
    path = Path(asked)
    return asked_prior(model, path.absolute(), torch.tensor(_of_classes(path, model.classes), dtype=torch.float64))


def check_prior(asked: str | Path | None) -> None:
    """Check, before anything is fitted, that a file of shares can be read, whatever classes there will be.

    Raises:
        NoInput, DataError: see :func:`read_prior`.
    """
    if asked is not None and str(asked) not in (DATA, UNIFORM):
        _shares(Path(asked))


def _of_classes(path: Path, classes: Sequence[str]) -> list[float]:
    """The share of each class; names may be spelled in any form and case."""
    known, found = Spellings(classes), dict[str, float]()
    for name, share in _shares(path).items():
        alike = known.of(name)
        if not alike:
            raise DataError(f"{_shown(path)}: the model has no class {name!r}. {nearest(name, classes)}")
        if alike[-1] in found:
            raise DataError(f"{_shown(path)}: class {alike[-1]!r} is there twice. Give each class one share.")
        found[alike[-1]] = share
    missing = [name for name in classes if name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{_shown(path)}: class {missing[0]!r}{more} has no share. Give one to each class.")
    total = sum(found.values())
    return [found[name] / total for name in classes]


def _shares(path: Path) -> dict[str, float]:
    """Shares by class as the file has them, in order; they sum to 1 but for rounding."""
    pairs = _read(path)
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise DataError(f"{_shown(path)}: class {twice[0]!r} is there twice. Give each class one share.")
    found = {name: _share(path, name, value) for name, value in pairs}
    total = sum(found.values())
    if abs(total - 1) > ROUNDING:
        raise DataError(f"{_shown(path)}: the shares sum to {total:g}. Give shares that sum to 1.")
    return found


def _share(path: Path, name: str, value: Any) -> float:
    try:
        return 1.0 if str(value).strip() in ("1", "1.0", "100%") else rate(value)
    except ValueError:
        raise DataError(
            f"{_shown(path)}: the share of class {name!r} is {value!r}, and no class is left out this way. "
            "Give a number above 0 and below 1, or a percentage."
        ) from None


def _read(path: Path) -> list[tuple[str, Any]]:
    """Pairs of class and share: lines of a CSV, or an object of JSON."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise NoInput(
            f"{_shown(path)}: the file of class shares cannot be read ({error.strerror}). Give data, uniform, or a CSV "
            "or JSON file of class and share."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{_shown(path)}: is no text in UTF-8. Save it as CSV or JSON in UTF-8.") from error
    return _of_json(path, text) if text.lstrip().startswith(("{", "[")) else _of_csv(path, text)


def _of_json(path: Path, text: str) -> list[tuple[str, Any]]:
    try:
        found = json.loads(text, object_pairs_hook=list)
    except ValueError as error:
        raise DataError(f"{_shown(path)}: is no JSON ({error}). Give an object of class and share.") from error
    if not all(isinstance(pair, tuple) for pair in found):
        raise DataError(f'{_shown(path)}: is no object of class and share, as {{"kettle": 0.2, "mug": 0.8}}.')
    return found


def _of_csv(path: Path, text: str) -> list[tuple[str, Any]]:
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    read = enumerate(csv.reader(text.splitlines(), delimiter=delimiter), start=1)
    lines = [(number, [cell.strip() for cell in row]) for number, row in read if any(row)]
    if lines and tuple(cell.lower() for cell in lines[0][1]) == HEADER:
        lines = lines[1:]
    wrong = next(((number, row) for number, row in lines if len(row) != len(HEADER)), None)
    if wrong is not None or not lines:
        where = "is empty" if wrong is None else f"row {wrong[0]} has {len(wrong[1])} columns"
        raise DataError(f"{_shown(path)}: {where}. Give two columns: {' and '.join(HEADER)}.")
    return [(row[0], row[1]) for _, row in lines]


def _shown(path: Path) -> str:
    return printable(str(path))
