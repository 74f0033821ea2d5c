"""Rows of features, and the features of one encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from mixtura.errors import BadItem, NonFinite, StoreError, WrongDimension
from mixtura.identity import fingerprint
from mixtura.interfaces import Item

RECORD_COLUMNS = ("id", "source", "label", "superlabel", "group", "split", "weight", "sha256")

R = TypeVar("R", bound="Rows")


@dataclass(frozen=True)
class Rows:
    """Items with their embedding: row i of every column is item i.

    ``id`` is unique; ``source`` is shown to people; ``label``, ``superlabel``, ``group`` and ``split`` may hold
    ``None``; ``weight`` is a sample weight >= 0; ``sha256`` is the hash (hex) of the photo's bytes. ``sublabel`` is
    what is learned below the label, where both levels are; no store holds it.

    Raises:
        StoreError: the columns are not equally long, or an id occurs twice.
    """

    embedding: Float[np.ndarray, "N D"]
    id: list[str]
    source: list[str]
    label: list[str | None]
    superlabel: list[str | None]
    group: list[str | None]
    split: list[str | None]
    weight: Float[np.ndarray, " N"]
    sha256: list[str]
    sublabel: list[str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in RECORD_COLUMNS:
            if len(getattr(self, name)) != len(self.embedding):
                raise StoreError(
                    f"Column {name!r} has {len(getattr(self, name))} rows and the embedding {len(self.embedding)}. "
                    "Give one entry an item."
                )
        if len(set(self.id)) != len(self.id):
            raise StoreError(f"Id {_first_repeated(self.id)!r} occurs twice. Give each item its own id.")

    def __len__(self) -> int:
        return len(self.id)

    @property
    def dimension(self) -> int:
        """Numbers in one embedding."""
        return self.embedding.shape[1]

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, sorted; items without a label count for nothing."""
        return tuple(sorted({label for label in self.label if label is not None}))

    @property
    def superclasses(self) -> tuple[str, ...]:
        """The superlabels that occur, sorted."""
        return tuple(sorted({label for label in self.superlabel if label is not None}))

    def label_index(self, classes: Sequence[str]) -> Int[np.ndarray, " N"]:
        """For each row the place of its label in ``classes``; -1 for a label that is not there, or no label."""
        place: dict[str | None, int] = {name: index for index, name in enumerate(classes)}
        return np.array([place.get(label, -1) for label in self.label], dtype=np.int64)

    def select(self: R, rows: Bool[np.ndarray, " N"] | Int[np.ndarray, " M"] | Sequence[int]) -> R:
        """The rows of a mask, or of indices in their order."""
        chosen = np.asarray(rows)
        index = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        lists = {name: [getattr(self, name)[i] for i in index.tolist()] for name in RECORD_COLUMNS if name != "weight"}
        below = None if self.sublabel is None else [self.sublabel[i] for i in index.tolist()]
        return replace(self, embedding=self.embedding[index], weight=self.weight[index], sublabel=below, **lists)

    def select_split(self: R, split: str) -> R:
        """The rows of one split."""
        return self.select(np.array([own == split for own in self.split], dtype=bool))

    def select_ids(self: R, ids: Sequence[str]) -> R:
        """The rows of ``ids``, in that order.

        Raises:
            StoreError: an id has no row.
        """
        place = {id: row for row, id in enumerate(self.id)}
        missing = [id for id in ids if id not in place]
        if missing:
            raise StoreError(
                f"{len(missing)} items have no features, the first {missing[:5]}. Run the extraction again."
            )
        return self.select(np.array([place[id] for id in ids], dtype=np.int64))

    def with_split(self: R, split: Mapping[str, str | None]) -> R:
        """The same rows with the split that ``split`` gives to their ids; rows it does not name keep theirs."""
        return replace(self, split=[split.get(id, own) for id, own in zip(self.id, self.split, strict=True)])

    def validate(self: R, dimension: int | None = None) -> R:
        """The rows themselves, once every number is finite and the width is right.

        Raises:
            NonFinite: NaN or infinity; names how many rows and the first five.
            WrongDimension: the embedding has another width than ``dimension``.
        """
        if dimension is not None and self.dimension != dimension:
            raise WrongDimension(
                f"The features have {self.dimension} dimensions, not {dimension}. Use the encoder that made the others."
            )
        bad = np.flatnonzero(~(np.isfinite(self.embedding).all(axis=1) & np.isfinite(self.weight)))
        if bad.size:
            names = ", ".join(self.id[row] for row in bad[:5].tolist())
            raise NonFinite(
                f"{bad.size} of {len(self)} rows hold NaN or infinity: {names}{', ...' if bad.size > 5 else ''}. "
                "Remove these items or repair their features."
            )
        return self


@dataclass(frozen=True)
class Features(Rows):
    """Rows of one encoder: ``embedding`` is float32 and C-contiguous, every number is finite."""

    identity: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the encoder."""
        return fingerprint(self.identity)


@dataclass(frozen=True)
class Unreadable:
    """An item that could not be read, and why; ``reason`` is a code of :class:`mixtura.errors.BadItem`."""

    id: str
    source: str
    reason: str
    message: str

    @classmethod
    def because_of(cls, error: BadItem | OSError, item: Item) -> "Unreadable":
        """The record of an item whose reading raised an error."""
        reason = error.reason if isinstance(error, BadItem) else "unreadable"
        return cls(item.id, item.source, reason, str(error))


def to_features(rows: Rows, identity: Mapping[str, str], versions: Mapping[str, str] | None = None) -> Features:
    """Rows with the identity of their encoder, checked, as float32.

    Raises:
        NonFinite: NaN or infinity.
    """
    values: dict[str, Any] = {item.name: getattr(rows, item.name) for item in fields(Rows)}
    values["embedding"] = np.ascontiguousarray(rows.embedding, dtype=np.float32)
    return Features(**values, identity=dict(identity), versions=dict(versions or {})).validate()


def _first_repeated(ids: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(id for id in ids if id in seen or seen.add(id))
