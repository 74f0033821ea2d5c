"""Split items into train, val and test: drawn once, written to a file, and never drawn again.

A split is stratified by label and keeps groups together: items with the same ``group``, the same bytes or nearly the
same pixels (:mod:`mixtura.datasets.duplicates`) are never separated. A given split is kept; see :func:`make_split`.
"""

import csv
import io
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mixtura import files
from mixtura.datasets.duplicates import find_groups, given_groups
from mixtura.datasets.items import SPLITS, Dataset
from mixtura.datasets.paths import readable
from mixtura.errors import CannotWrite, DataError, NoInput, UsageError
from mixtura.files import is_there

Split = dict[str, str]
Shares = tuple[float, float, float]
DEFAULT_FRACTIONS: Shares = (0.8, 0.0, 0.2)
_HEADER = ["id", "split"]


def make_split(
    dataset: Dataset,
    shares: Shares = DEFAULT_FRACTIONS,
    seed: int = 0,
    *,
    known: Mapping[str, str] | None = None,
    carve: bool = True,
    groups: Int[np.ndarray, " N"] | None = None,
) -> Split:
    """Return the split of each item (train, val or test), by id.

    Items in ``known`` and items with a split from their data set keep it, with one exception: with ``carve``, if the
    data set gives training items but none for val (or test), that split is held out of its training items.
    For each label, every split gets its share to within one group; a label with a single group goes to train.
    The result depends on ids, labels, pictures and seed, not on the order of the items.

    Args:
        shares: shares of train, val and test, summing to 1; train above 0.
        seed: random seed.
        known: an earlier split, by id.
        groups: of :func:`find_groups`, if it has been called; it reads all photos.

    Raises:
        UsageError: the shares are invalid.
    """
    _check_shares(shares)
    given = {item.id: item.split for item in dataset.items if item.split}
    missing = _missing_parts(set(given.values()), shares) if carve else ()
    pinned = {id_: part for id_, part in given.items() if not (missing and part == "train")} | dict(known or {})
    free = any(item.id not in pinned for item in dataset.items)
    numbers = given_groups(dataset) if not free else find_groups(dataset) if groups is None else groups
    split = {item.id: pinned[item.id] for item in dataset.items if item.id in pinned}
    for label, members in _strata(dataset, numbers).items():
        rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
        _Stratum(shares, given, missing, split).place(members, rng)
    return {item.id: split[item.id] for item in dataset.items}


def _check_shares(shares: Sequence[float]) -> None:
    if min(shares) < 0 or shares[0] <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise UsageError(f"Shares of train, val, test are {shares}; they must be >= 0, sum to 1, and train be above 0.")


def _missing_parts(given: set[str], shares: Shares) -> tuple[str, ...]:
    """Return the held-out splits without given items, if training items are given."""
    if "train" not in given:
        return ()
    return tuple(part for part, share in zip(SPLITS, shares, strict=True) if share > 0 and part not in given)


def _strata(dataset: Dataset, numbers: np.ndarray) -> dict[str, list[list[str]]]:
    """Return the groups, as lists of ids, by the most frequent label of each; all ordered by id."""
    members: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for item, number in zip(dataset.items, numbers.tolist(), strict=True):
        members[number].append((item.id, item.label or ""))
    strata: dict[str, list[list[str]]] = defaultdict(list)
    for group in sorted(sorted(pairs) for pairs in members.values()):
        label = Counter(label for _, label in group).most_common(1)[0][0]
        strata[label].append([id_ for id_, _ in group])
    return strata


@dataclass(frozen=True)
class _Stratum:
    """Places the groups of one label; fills ``split``."""

    shares: Shares
    given: Mapping[str, str | None]
    missing: tuple[str, ...]
    split: Split

    def place(self, groups: list[list[str]], rng: np.random.Generator) -> None:
        """Assign each unplaced group to the split furthest below its share, larger groups first."""
        loose = [group for group in groups if not self._join(group)]
        counts = Counter(self.split[id_] for group in groups for id_ in group if id_ in self.split)
        total = sum(map(len, groups))
        order = sorted(rng.permutation(len(loose)).tolist(), key=lambda i: -len(loose[i]))
        for group in (loose[i] for i in order):
            parts = self._parts(group)
            weight = sum(self.shares[SPLITS.index(part)] for part in parts)
            room = total - sum(counts[part] for part in SPLITS if part not in parts)
            lack = [self.shares[SPLITS.index(p)] / weight * room - counts[p] + 1e-6 * rng.random() for p in parts]
            part = parts[int(np.argmax(lack))] if counts["train"] else "train"
            self.split.update(dict.fromkeys(group, part))
            counts[part] += len(group)

    def _join(self, group: list[str]) -> bool:
        """Place a group with the majority of its placed members, or in train if in doubt."""
        placed = Counter(self.split[id_] for id_ in group if id_ in self.split)
        if not placed:
            return False
        part = max(SPLITS, key=lambda p: (placed[p], p == "train"))
        for id_ in group:
            self.split.setdefault(id_, part if part in self._parts([id_]) else "train")
        return True

    def _parts(self, group: list[str]) -> tuple[str, ...]:
        """Return the splits open to a group: for given training items, only those without given items."""
        if any(id_ in self.given for id_ in group):
            return ("train", *self.missing)
        return tuple(part for part, share in zip(SPLITS, self.shares, strict=True) if share > 0)


def settle_split(
    path: Path,
    dataset: Dataset,
    shares: Shares = DEFAULT_FRACTIONS,
    seed: int = 0,
    *,
    carve: bool = True,
    groups: Int[np.ndarray, " N"] | None = None,
) -> Split:
    """Return the split in a file; create the file if it is missing, and append new items; see :func:`make_split`.

    Raises:
        DataError: the file is not a split.
        CannotWrite, OutOfSpace: it cannot be written; an existing file is intact.
    """
    known = read_split(path) if is_there(path) else {}
    if any(item.id not in known for item in dataset.items):
        made = make_split(dataset, shares, seed, known=known, carve=carve, groups=groups)
        _write(path, known | made)
        known |= made
    return {item.id: known[item.id] for item in dataset.items}


def write_split(split: Mapping[str, str], path: Path) -> None:
    """Write a new split file atomically.

    Raises:
        CannotWrite: the file exists (a split is never redrawn), or the folder is not writable.
    """
    if is_there(path):
        raise CannotWrite(f"{path}: exists already, and a split is never redrawn. Remove it to draw another.")
    _write(path, split)


def read_split(path: Path) -> Split:
    """Return the split in a file, by id.

    Raises:
        NoInput: the file cannot be read.
        DataError: the file is not a split; the message gives the line.
    """
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True))
    except OSError as error:
        raise NoInput(f"{readable(str(path))}: cannot be read ({error.strerror}). Check the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{readable(str(path))}: is not a CSV file ({error}). Restore or remove it.") from error
    split: Split = {}
    for line, row in enumerate(rows, start=1):
        if line == 1 and row == _HEADER:
            continue
        if line == 1 or len(row) != 2 or row[1] not in SPLITS or row[0] in split:
            raise DataError(f"{readable(str(path))}, line {line}: {row!r} is not a new id with train, val or test.")
        split[row[0]] = row[1]
    return split


def _write(path: Path, split: Mapping[str, str]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_HEADER, *split.items()])
    files.write(path, text.getvalue().encode())
