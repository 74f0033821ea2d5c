"""Extraction: decode ahead in threads, encode in batches, commit parts, resume where it stopped."""

import reprlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mixtura.errors import BadItem, WrongKind
from mixtura.features.decode_ahead import decode_ahead
from mixtura.features.inputs import Batches, encoded, photos_at_once, stacked
from mixtura.features.records import Rows, Unreadable
from mixtura.features.store import FeatureStore
from mixtura.interfaces import Dataset, Encoder, Item, SoundDataset, SoundEncoder
from mixtura.signals import stoppable


@dataclass(frozen=True)
class Progress:
    """How far an extraction is: ``done`` of ``total`` items (encoded, skipped or unreadable) after ``seconds``.

    ``rate`` is in encoded items a second, ``remaining`` in seconds (infinite before the first item is encoded).
    ``encoded`` counts items of this run, ``left`` those to come that the store lacks. ``message`` is a sentence to show
    once, or empty.
    """

    done: int
    total: int
    seconds: float
    rate: float
    remaining: float
    encoded: int = 0
    left: int = 0
    message: str = ""


@dataclass(frozen=True)
class ExtractReport:
    """What an extraction did: items encoded, items that were there already (``updated`` of them with a new label,
    group, split or weight), items that could not be read, the time in seconds and the folder of the store; ``notes``
    are sentences to show.
    """

    done: int
    skipped: int
    updated: int
    problems: tuple[Unreadable, ...]
    seconds: float
    store: Path
    notes: tuple[str, ...] = ()


@dataclass
class _Chunk:
    """Consecutive items, decoded: ``batches`` hold one prepared item for each entry of ``index``, with its place."""

    index: list[int] = field(default_factory=list)
    digest: list[str] = field(default_factory=list)
    batches: Batches = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    problems: list[Unreadable] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.index) + len(self.skipped) + len(self.problems)


def extract(
    encoder: Encoder | SoundEncoder,
    dataset: Dataset | SoundDataset,
    store: FeatureStore,
    *,
    batch_size: int = 64,
    workers: int = 2,
    part_rows: int = 1024,
    progress: Callable[[Progress], None] | None = None,
) -> ExtractReport:
    """Encode the items of ``dataset`` that ``store`` does not hold yet, and commit them in parts.

    Sounds are read for an encoder that has a sample rate, photos for any other.
    An item whose id and photo are in the store is not computed again; if its label or other facts have changed, its
    row is written again with the stored embedding. A changed photo is computed again. An unreadable photo is listed
    and skipped. On an interrupt or a termination signal the running batch is finished and committed, then the signal
    takes its usual effect; a second signal takes effect at once.

    Args:
        batch_size: photos in one call of the encoder, at most; fewer large ones, so that memory stays bounded.
        workers: threads that decode ahead of the encoder; 0 to decode between the batches.
        part_rows: rows in one part of the store; at most this much work is lost when the process is killed.
        progress: called after each batch, in this thread.

    Raises:
        WrongKind: the encoder or the data set is something else.
        FingerprintMismatch: the store belongs to another encoder.
        NonFinite: the encoder gave NaN or infinity.
        OutOfSpace: the disk is full; the parts committed before are intact.
        CannotWrite: the folder is not writable, or another process is extracting into it.
    """
    check_kinds(encoder, dataset)
    store.check(encoder.identity)
    with stoppable() as stopped, store.lock():
        run = _Run(encoder, dataset, store, part_rows, progress)
        size = photos_at_once(encoder, batch_size)
        total = len(dataset.items)
        pieces = (range(start, min(start + size, total)) for start in range(0, total, size))
        with decode_ahead(run.decode, pieces, workers) as chunks:
            for chunk in chunks:
                run.take(chunk)
                if stopped():
                    break
        run.commit()
        if not stopped():
            run.update_facts()
        return run.report()


def check_kinds(encoder: object, dataset: object) -> None:
    """Check that an encoder and a data set are such.

    Raises:
        WrongKind: one is something else.
    """
    if not isinstance(encoder, Encoder | SoundEncoder):
        raise WrongKind(f"Give an encoder, not {reprlib.repr(encoder)}. See Encoder in mixtura.interfaces.")
    if not isinstance(dataset, Dataset | SoundDataset):
        raise WrongKind(f"Give a data set, not {reprlib.repr(dataset)}. See Dataset in mixtura.interfaces.")


class _Run:
    """The state of one extraction."""

    def __init__(
        self,
        encoder: Encoder | SoundEncoder,
        dataset: Dataset | SoundDataset,
        store: FeatureStore,
        part_rows: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.encoder, self.dataset, self.store = encoder, dataset, store
        self.part_rows, self.progress = part_rows, progress
        self.stored = store.facts()
        self.row = {id: row for row, id in enumerate(self.stored.id)}
        self.lacking = sum(item.id not in self.row for item in dataset.items)
        self.pending: list[tuple[_Chunk, Float[np.ndarray, "N D"]]] = []
        self.skipped: list[int] = []
        self.problems: list[Unreadable] = []
        self.encoded = 0
        self.start = time.perf_counter()

    def decode(self, indices: Sequence[int]) -> _Chunk:
        """Read and prepare some items; runs in a worker thread and changes nothing here."""
        chunk, prepared = _Chunk(), []
        for index in indices:
            item = self.dataset.items[index]
            try:
                digest = self.dataset.digest(index)
                if self._has(item.id, digest):
                    chunk.skipped.append(index)
                    continue
                prepared.append(self._prepare(index))
            except (BadItem, OSError) as error:
                chunk.problems.append(Unreadable.because_of(error, item))
                continue
            chunk.index.append(index)
            chunk.digest.append(digest)
        chunk.batches = stacked(prepared)
        return chunk

    def _prepare(self, index: int) -> Tensor:
        encoder, dataset = self.encoder, self.dataset
        if isinstance(encoder, SoundEncoder):
            return encoder.prepare(cast(SoundDataset, dataset).sound(index, encoder.sample_rate))
        return encoder.prepare(cast(Dataset, dataset).image(index, draft=encoder.draft))

    def take(self, chunk: _Chunk) -> None:
        """Encode a chunk, commit a part if one is full, and say how far we are."""
        self.skipped += chunk.skipped
        self.problems += chunk.problems
        if chunk.batches:
            self.pending.append((chunk, encoded(self.encoder, chunk.batches)))
            self.encoded += len(chunk.index)
            chunk.batches = []
        if sum(len(waiting.index) for waiting, _ in self.pending) >= self.part_rows:
            self.commit()
        if self.progress:
            self.progress(self._progress())

    def commit(self) -> None:
        """Write what is encoded as one part."""
        waiting, self.pending = self.pending, []
        if waiting:
            index = [i for chunk, _ in waiting for i in chunk.index]
            digest = [value for chunk, _ in waiting for value in chunk.digest]
            rows = _rows(self.dataset, index, digest, np.concatenate([vectors for _, vectors in waiting]))
            self.store.append(rows, self.encoder.versions)

    def update_facts(self) -> None:
        """Write items whose photo is the same and whose label or other facts are not, with the stored embedding."""
        changed = self._changed()
        if changed:
            stored = self.store.read().select_ids([self.dataset.items[i].id for i in changed])
            self.store.append(_rows(self.dataset, changed, stored.sha256, stored.embedding))

    def report(self) -> ExtractReport:
        """The record of the run."""
        seconds = time.perf_counter() - self.start
        updated = len(self._changed())
        return ExtractReport(self.encoded, len(self.skipped), updated, tuple(self.problems), seconds, self.store.path)

    def _has(self, id: str, digest: str) -> bool:
        row = self.row.get(id)
        return row is not None and self.stored.sha256[row] == digest

    def _changed(self) -> list[int]:
        return [
            i for i in self.skipped if _facts(self.dataset.items[i]) != self._stored_facts(self.dataset.items[i].id)
        ]

    def _stored_facts(self, id: str) -> tuple[Any, ...]:
        stored, row = self.stored, self.row[id]
        text = (stored.source, stored.label, stored.superlabel, stored.group, stored.split)
        return (*(column[row] for column in text), float(stored.weight[row]))

    def _progress(self) -> Progress:
        total, seconds = len(self.dataset.items), time.perf_counter() - self.start
        done = self.encoded + len(self.skipped) + len(self.problems)
        rate = self.encoded / seconds if seconds > 0 else 0.0
        left = min(total - done, max(0, self.lacking - self.encoded - len(self.problems)))
        remaining = (total - done) / rate if rate else float("inf")
        return Progress(done, total, seconds, rate, remaining, self.encoded, left)


def _facts(item: Item) -> tuple[Any, ...]:
    return (item.source, item.label, item.superlabel, item.group, item.split, float(item.weight))


def _rows(
    dataset: Dataset | SoundDataset, index: Sequence[int], digest: list[str], embedding: Float[np.ndarray, "N D"]
) -> Rows:
    """The rows of some items."""
    items = [dataset.items[i] for i in index]
    names = ("id", "source", "label", "superlabel", "group", "split")
    text: dict[str, Any] = {name: [getattr(item, name) for item in items] for name in names}
    weight = np.array([item.weight for item in items], dtype=np.float64)
    return Rows(embedding=embedding, weight=weight, sha256=digest, **text)
