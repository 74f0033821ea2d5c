"""The journal: every decision with its embedding, for later analysis of drift, unknown photos and mistakes.

It is stored in ``catalog.sqlite`` beside the catalog's own tables and survives a refit: each decision records its
model, and decisions by another encoder are counted but not compared. It keeps the decision and the numbers behind it,
no file name, and no photo unless enabled. Decisions older than ``KEEP_DAYS`` or beyond the latest ``KEEP_COUNT`` are
deleted.
"""

import os
import re
import secrets
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mixtura.catalog.database import CATALOG_FILE
from mixtura.catalog.journal_database import JournalDatabase
from mixtura.errors import NoInput, UsageError
from mixtura.files import is_file_at
from mixtura.identity import fingerprint
from mixtura.model.model import Model
from mixtura.records.decision import Decision
from mixtura.records.journal import LoggedDecision

KEEP_DAYS, KEEP_COUNT = 90, 50_000
"""Retention in days and in decisions; 50,000 decisions of 1,280 numbers take about 140 MB."""

PRUNE_EVERY = 500  # decisions between two checks for outdated ones
MAX_PHOTO_BYTES = 65_536  # size of the largest thumbnail kept
FLOAT16_TOLERANCE = 1e-3  # accepted rounding error of float16, as a share of the row's largest value
SECONDS_A_DAY = 86_400.0
BAD_PHOTO = "bad_photo"
PRODUCT_ID = re.compile(r"[a-z0-9-]{1,64}")
DECISION_COLUMNS = "id, at, verdict, reason, label, probability, typicality, told, product, photo is not null"
IS_UNSETTLED = (
    "settled is null and (reason is null or reason <> ?) and "
    "((verdict = 'unknown' and told is null) or (told is not null and product is null))"
)
"""Decisions likely to be of a novel class: unknown without feedback, or with feedback "not in the catalog"."""


class Journal:
    """The decisions of one catalog; all methods are thread-safe."""

    def __init__(self, folder: Path, keep_photos: bool = False) -> None:
        self.folder, self.keep_photos = folder, keep_photos
        self._file = JournalDatabase(folder / CATALOG_FILE)
        self._since_pruned = 0

    @classmethod
    def open(cls, folder: Path, keep_photos: bool = False) -> "Journal":
        """Open the journal of an existing catalog; creates its table if necessary.

        Args:
            folder: a model folder.
            keep_photos: also keep the thumbnails passed to :meth:`log`.

        Raises:
            NoInput: the folder holds no catalog.
            CannotWrite, OutOfSpace, BundleError: the file cannot be used.
        """
        if not is_file_at(folder / CATALOG_FILE):
            raise NoInput(
                f"{folder} is no catalog yet: {CATALOG_FILE} is missing. "
                f"Open it once, as with: mixtura products {folder}"
            )
        journal = cls(folder, keep_photos)
        if os.access(folder, os.W_OK):  # one that only reads deletes nothing
            journal.prune()
        return journal

    def close(self) -> None:
        """Close the file; the next use reopens it."""
        self._file.close()

    def log(
        self,
        decisions: Sequence[Decision],
        embedding: Float[np.ndarray, "N D"],
        pictures: Sequence[bytes | None] = (),
        at: float | None = None,
    ) -> list[str]:
        """Store decisions, all or none, and return an id for each.

        Args:
            decisions: to store.
            embedding: the features of each decision.
            pictures: small JPEGs, kept only if the journal keeps photos and only up to 64 KiB each.
            at: time in seconds since 1970; now by default.

        Raises:
            UsageError: the numbers of decisions, rows and pictures differ.
            CannotWrite, OutOfSpace: the file cannot be written.
        """
        if len(decisions) != len(embedding) or (len(pictures) and len(pictures) != len(decisions)):
            raise UsageError(
                f"{len(decisions)} decisions, {len(embedding)} rows of features and {len(pictures)} pictures do not "
                "fit together. Give one of each."
            )
        ids = [secrets.token_hex(16) for _ in decisions]
        photos = [_kept(photo) for photo in pictures] if self.keep_photos and pictures else [None] * len(ids)
        now = time.time() if at is None else at
        rows = [
            (id, now, d.verdict, d.reason, d.label, d.probability, d.typicality, d.model, *_packed(row), photo)
            for id, d, row, photo in zip(ids, decisions, embedding, photos, strict=True)
        ]
        with self._file.writing() as file:
            file.executemany(
                "insert into decision (id, at, verdict, reason, label, probability, typicality, model, embedding, "
                "wide, photo) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
        self._since_pruned += len(ids)
        if self._since_pruned >= PRUNE_EVERY:
            self.prune()
        return ids

    def check_writable(self) -> None:
        """See that decisions could be stored now; writes one of the largest size and takes it back.

        Raises:
            CannotWrite, OutOfSpace: they could not.
        """
        with self._file.writing() as file:
            file.execute(
                "insert into decision (id, at, verdict, label, probability, typicality, model, embedding, wide) "
                "values ('', 0, '', '', 0, 0, '', zeroblob(?), 0)",
                (MAX_PHOTO_BYTES,),
            )
            file.execute("delete from decision where id = ''")

    def prune(self, days: int = KEEP_DAYS, count: int = KEEP_COUNT) -> int:
        """Delete decisions older than ``days`` or beyond the latest ``count``; returns how many were deleted."""
        self._since_pruned = 0
        with self._file.writing() as file:
            gone = file.execute("delete from decision where at < ?", (time.time() - days * SECONDS_A_DAY,)).rowcount
            last = "select number from decision order by number desc limit 1 offset ?"
            return gone + file.execute(f"delete from decision where number <= ({last})", (count,)).rowcount  # noqa: S608

    def feedback(self, id: str, product: str | None) -> None:
        """Store a client's feedback on a decision: the correct product's id, or ``None`` for "not in the catalog".

        Raises:
            NoInput: there is no such decision.
            UsageError: that is no id of a product.
        """
        _require_product(product)
        now = time.time()
        self._update("told = ?, product = ?, settled = ?", (now, product, None if product is None else now), [id])

    def resolve(self, ids: Sequence[str], product: str) -> None:
        """Mark decisions as settled with this product, for example after enrolling them; this is no feedback.

        Raises:
            NoInput: there is no such decision; then none is settled.
            UsageError: that is no id of a product.
        """
        _require_product(product)
        self._update("product = ?, settled = ?", (product, time.time()), ids)

    def logged(self, days: int = KEEP_DAYS) -> tuple[LoggedDecision, ...]:
        """The decisions of the last ``days`` days, oldest first."""
        return self._select("at >= ? order by at, number", time.time() - days * SECONDS_A_DAY)

    def unknowns(self, products: Collection[str] | None = None) -> tuple[LoggedDecision, ...]:
        """Unsettled decisions, oldest first: verdict unknown, or feedback "not in the catalog".

        Args:
            products: ids of the existing products; if given, decisions settled with a product that has since been
                removed are open again.
        """
        found = self._select(f"{IS_UNSETTLED} order by at, number", BAD_PHOTO)
        if products is None:
            return found
        settled = self._select("product is not null and verdict = 'unknown'")
        again = [note for note in settled if note.product not in products]
        return tuple(sorted((*found, *again), key=lambda note: note.at))

    def bad_photos(self) -> tuple[LoggedDecision, ...]:
        """Unsettled decisions on blurred, dark or blank photos, oldest first; they are not among :meth:`unknowns`."""
        return self._select("settled is null and reason = ? order by at, number", BAD_PHOTO)

    def answered(self) -> tuple[LoggedDecision, ...]:
        """The decisions whose feedback names a product; those that only :meth:`resolve` settled are not among them."""
        return self._select("told is not null and product is not null and settled = told order by at, number")

    def embedding(self, ids: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """The stored features of decisions; after a refit see :meth:`comparable`.

        Raises:
            NoInput: there is no such decision.
            UsageError: they are of encoders with different numbers of features.
        """
        with self._file.reading() as file:
            found = [file.execute("select embedding, wide from decision where id = ?", (id,)).fetchone() for id in ids]
        missing = [id for id, row in zip(ids, found, strict=True) if row is None]
        if missing:
            raise _no_decision(missing[0])
        rows = [_unpacked(*row) for row in found]
        if len({len(row) for row in rows}) > 1:
            raise UsageError("These decisions were made with different encoders. Ask for those of one encoder.")
        return np.stack(rows) if rows else np.zeros((0, 0), np.float32)

    def comparable(self, model: Model) -> frozenset[str]:
        """Ids of the decisions whose features come from a model's encoder; the model can only re-evaluate these.

        If the encoder of a decision is not recorded, the number of features decides.
        """
        own = fingerprint(model.identity)
        text = (
            "select id from decision left join encoder on bundle = substr(model, 1, instr(model || 'r', 'r') - 1) "
            "where coalesce(fingerprint, ?) = ? and length(embedding) = ? * (case wide when 1 then 4 else 2 end)"
        )
        with self._file.reading() as file:
            return frozenset(row[0] for row in file.execute(text, (own, own, model.dimension)))

    def picture(self, id: str) -> bytes | None:
        """The thumbnail of a decision, if photos are kept.

        Raises:
            NoInput: there is no such decision.
        """
        with self._file.reading() as file:
            row = file.execute("select photo from decision where id = ?", (id,)).fetchone()
        if row is None:
            raise _no_decision(id)
        return row[0]

    def _update(self, columns: str, values: Sequence[Any], ids: Sequence[str]) -> None:
        with self._file.writing() as file:
            for id in ids:
                if file.execute(f"update decision set {columns} where id = ?", (*values, id)).rowcount == 0:  # noqa: S608
                    raise _no_decision(id)

    def _select(self, where: str, *values: Any) -> tuple[LoggedDecision, ...]:
        with self._file.reading() as file:
            rows = file.execute(f"select {DECISION_COLUMNS} from decision where {where}", values).fetchall()  # noqa: S608
        return tuple(_noted(*row) for row in rows)


def when(seconds: float) -> str:
    """A time in seconds since 1970 as ISO 8601 in UTC.

    >>> when(0.0)
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _noted(*columns: Any) -> LoggedDecision:
    id, at, verdict, reason, label, probability, typicality, told, product, photo = columns
    answered = told is not None
    return LoggedDecision(id, when(at), verdict, reason, label, probability, typicality, answered, product, bool(photo))


def _packed(row: Float[np.ndarray, " D"]) -> tuple[bytes, int]:
    """A row as float16 if the rounding error is acceptable, else as float32, and whether it is float32."""
    row = np.asarray(row, np.float32)
    with np.errstate(over="ignore"):
        narrow = row.astype("<f2")
    error = np.abs(narrow.astype(np.float32) - row).max(initial=0.0)
    wide = not error <= FLOAT16_TOLERANCE * np.abs(row).max(initial=0.0)
    return (row.astype("<f4").tobytes(), 1) if wide else (narrow.tobytes(), 0)


def _unpacked(data: bytes, wide: int) -> Float[np.ndarray, " D"]:
    return np.frombuffer(data, "<f4" if wide else "<f2").astype(np.float32)


def _kept(photo: bytes | None) -> bytes | None:
    return photo if photo is not None and len(photo) <= MAX_PHOTO_BYTES else None


def _require_product(product: str | None) -> None:
    if product is not None and not PRODUCT_ID.fullmatch(product):
        raise UsageError(f"{product!r} is no id of a product. Give the id that mixtura products shows.")


def _no_decision(id: str) -> NoInput:
    return NoInput(
        f"The journal has no decision {id!r}. Give the decision_id of an answer; they are kept for {KEEP_DAYS} days."
    )
