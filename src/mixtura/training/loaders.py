"""Photos to batches: decoded ahead in threads, kept in memory while they fit, augmented, prepared for an encoder."""

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Num, UInt8
from PIL import Image
from torch import Tensor

from mixtura.errors import BadItem, NoInput, UsageError
from mixtura.features.decode_ahead import decode_ahead
from mixtura.features.inputs import stack
from mixtura.features.records import Unreadable
from mixtura.interfaces import Dataset, Encoder
from mixtura.training.augment import Augmentation
from mixtura.training.order import RowOrder, repeats

Batch = dict[str, Tensor]
"""``x`` (N 3 H W, as the encoder's ``prepare`` gives it), ``label`` and ``row`` (N, int64), ``weight`` (N, float32).

Where the augmentation makes two views of each photo, the second is ``other x``."""

OTHER = "other "
"""Begins the names of what a batch has of the second view of its photos."""

Share = tuple[Int[np.ndarray, " B"], Int[np.ndarray, " B"]]
"""Rows of a batch, and how often each has occurred before in the epoch."""

CACHE_BYTES = 1 << 30
"""Memory for photos unless told otherwise: about 10,000 at 128 pixels, or 3,000 at 224."""

KEPT_PART = 0.75
"""Shorter side of a photo before augmentation, as a part of ``Encoder.draft``, which is about twice the network's side.
So a crop of 44% of the area still has the network's resolution, and the photo takes a fraction of its memory."""


class Loader:
    """The photos of a data set as batches of tensors for training; row i is item i of the data set.

    The batches are the same for any number of threads and any size of the cache. Photos that cannot be read are left
    out of their batch and listed in ``problems``; the other rows stay as they are.

    Args:
        dataset: the photos; reduce it to the training photos first.
        encoder: prepares the photos; its network is not used.
        labels: class of each row.
        weights: weight of each row in the loss; ``None`` for 1 each.
        augmentation: random views of the photos; ``None`` for the photos as they are encoded in prediction.
        workers: threads that decode ahead; with 0, photos are decoded when their batch is asked for.
        cache_bytes: memory for what does not change from epoch to epoch: photos before augmentation, or prepared ones
            without it. Photos beyond are decoded again in each epoch.

    Raises:
        UsageError: labels or weights are not one per item.
    """

    def __init__(
        self,
        dataset: Dataset,
        encoder: Encoder,
        labels: Int[np.ndarray, " N"],
        *,
        weights: Float[np.ndarray, " M"] | None = None,
        augmentation: Augmentation | None = None,
        workers: int = 2,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        for name, column in (("labels", labels), ("weights", weights)):
            if column is not None and len(column) != len(dataset.items):
                raise UsageError(f"There are {len(column)} {name} for {len(dataset.items)} photos. Give one per photo.")
        self.dataset, self.encoder, self.augmentation, self.workers = dataset, encoder, augmentation, workers
        self._label = torch.as_tensor(labels, dtype=torch.int64)
        weight = np.ones(len(labels)) if weights is None else weights
        self._weight = torch.as_tensor(weight, dtype=torch.float32)
        self._cache = _Cache(cache_bytes)
        self._problems: dict[str, Unreadable] = {}

    @property
    def problems(self) -> tuple[Unreadable, ...]:
        """The photos that could not be read so far, each once."""
        return tuple(self._problems.values())

    def batches(
        self, order: RowOrder, epoch: int, first: int = 0, rank: int = 0, processes: int = 1
    ) -> Generator[Batch, None, None]:
        """Return the batches of one process in an epoch, one per step from step ``first`` on.

        A batch has no rows where the process has no share of the last step, or where no photo of it can be read.
        Close the generator, or use it up, to end its threads.

        Raises:
            UsageError: the order has another number of rows, or there is no such epoch, step or rank.
            NoInput: none of the process's photos of a whole epoch can be read; raised in place of its last batch.
        """
        if order.count != len(self.dataset.items):
            raise UsageError(f"The order is for {order.count} rows, and there are {len(self.dataset.items)} photos.")
        rows, shares = order.rows(epoch), order.slices(first, rank, processes)
        repeat = repeats(rows) if self.augmentation else np.zeros_like(rows)
        views = self.augmentation.count if self.augmentation else 1
        batches = self._read(((rows[share], repeat[share]) for share in shares), epoch, views)
        return batches if first else self._not_all_gone(batches, order.steps)

    def read(self, batches: Iterable[Int[np.ndarray, " _"]], epoch: int = 0) -> Generator[Batch, None, None]:
        """Return a batch for each array of rows, as for validation, or for a fixed set of views.

        Args:
            batches: the rows of each batch.
            epoch: whose views of the photos; those of rows that occur for the first time in it.
        """
        return self._read(((rows, np.zeros_like(rows)) for rows in batches), epoch)

    def _not_all_gone(self, batches: Generator[Batch, None, None], steps: int) -> Generator[Batch, None, None]:
        """The batches of a whole epoch; an error in place of the last one if no photo of any can be read."""
        readable = 0
        with closing(batches):
            for step, batch in enumerate(batches, 1):
                readable += len(batch["row"])
                if step == steps and not readable and self._problems:
                    raise NoInput(
                        f"None of the photos of an epoch can be read; the first problem: {self.problems[0].message} "
                        "Check that the folder of the photos is still there."
                    )
                yield batch

    def _read(self, shares: Iterable[Share], epoch: int, views: int = 1) -> Generator[Batch, None, None]:
        with decode_ahead(partial(self._decode, epoch, views), shares, self.workers) as decoded:
            for batch, problems in decoded:
                for problem in problems:
                    self._problems.setdefault(problem.id, problem)
                yield batch

    def view(self, row: int, epoch: int | None) -> Image.Image:
        """A photo as an epoch shows it before it is prepared for the encoder; ``None`` for the photo as it is.

        Raises:
            BadItem, OSError: the photo cannot be read.
        """
        photo = Image.fromarray(self._kept(row))
        if epoch is None or self.augmentation is None:
            return photo
        return self.augmentation(photo, self.dataset.items[row].id, epoch)

    def _decode(self, epoch: int, views: int, share: Share) -> tuple[Batch, list[Unreadable]]:
        """One batch, and what is missing in it; runs in a thread and changes nothing here but the cache."""
        prepared: list[list[Tensor]] = []
        index: list[int] = []
        problems: list[Unreadable] = []
        for row, repeat in zip(*(part.tolist() for part in share), strict=True):
            try:
                prepared.append([self._prepared(row, epoch, repeat, number) for number in range(views)])
            except (BadItem, OSError) as error:
                problems.append(Unreadable.because_of(error, self.dataset.items[row]))
                continue
            index.append(row)
        rows = torch.tensor(index, dtype=torch.int64)
        made = map(stack, zip(*prepared, strict=True)) if prepared else [self._no_photos] * views
        photos = dict(zip(("x", f"{OTHER}x"), made, strict=False))
        return photos | {"label": self._label[rows], "weight": self._weight[rows], "row": rows}, problems

    def _prepared(self, row: int, epoch: int, repeat: int, number: int) -> Num[Tensor, "3 H W"]:
        if self.augmentation is None:
            return self._cache.get(row, lambda: self.encoder.prepare(self._photo(row)))
        photo = Image.fromarray(self._cache.get(row, lambda: self._kept(row)))
        return self.encoder.prepare(self.augmentation(photo, self.dataset.items[row].id, epoch, repeat, number))

    def _photo(self, row: int) -> Image.Image:
        return self.dataset.image(row, draft=self.encoder.draft)

    def _kept(self, row: int) -> UInt8[np.ndarray, "H W 3"]:
        """A photo before augmentation; larger ones are reduced, whether or not they will fit into the cache."""
        photo, draft = self._photo(row), self.encoder.draft
        if draft is not None and min(photo.size) > (side := round(KEPT_PART * draft)):
            width, height = (max(side, round(own * side / min(photo.size))) for own in photo.size)
            photo = photo.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        return np.array(photo)

    @cached_property
    def _no_photos(self) -> Num[Tensor, "0 3 H W"]:
        return self.encoder.prepare(Image.new("RGB", (64, 64)))[None][:0]


class _Cache:
    """Values by row, as long as there is room; several threads may use it.

    Nothing is thrown out: each row is used about once per epoch, so a new one is no better than an old one, and the
    share of rows that are found is the share that fits.
    """

    def __init__(self, budget: int) -> None:
        self._left, self._values, self._lock = budget, {}, threading.Lock()

    def get(self, row: int, make: Callable[[], Any]) -> Any:
        """The value of a row: kept, or made now."""
        value = self._values.get(row)
        if value is None:
            value = make()
            with self._lock:
                if row not in self._values and value.nbytes <= self._left:
                    self._values[row] = value
                    self._left -= value.nbytes
        return value
