"""What extraction needs of a data set and of an encoder, and how prepared items become batches."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Num
from PIL import Image
from torch import Tensor


@runtime_checkable
class Describes(Protocol):
    """What extraction reads of an item: any record with these fields."""

    @property
    def id(self) -> str:
        """Its name, unique in the data set."""
        ...

    @property
    def source(self) -> str:
        """What people are shown."""
        ...

    @property
    def label(self) -> str | None:
        """Its class."""
        ...

    @property
    def superlabel(self) -> str | None:
        """Its superclass."""
        ...

    @property
    def group(self) -> str | None:
        """Items of one group stay on one side of a split."""
        ...

    @property
    def split(self) -> str | None:
        """Train, val or test, where that is given."""
        ...

    @property
    def weight(self) -> float:
        """Its sample weight, at least 0."""
        ...


@runtime_checkable
class Photos(Protocol):
    """What extraction needs of a data set; ``image`` and ``digest`` are called from several threads."""

    @property
    def items(self) -> Sequence[Describes]:
        """The items, in a fixed order."""
        ...

    def image(self, index: int, *, draft: int | None = None) -> Image.Image:
        """The photo as RGB; a JPEG may be reduced while it is decoded, to no side below ``draft`` pixels."""
        ...

    def digest(self, index: int) -> str:
        """The SHA-256 (hex) of the photo's bytes."""
        ...


@runtime_checkable
class Sounds(Protocol):
    """What extraction needs of a data set of sounds; ``sound`` and ``digest`` are called from several threads."""

    @property
    def items(self) -> Sequence[Describes]:
        """The items, in a fixed order."""
        ...

    def sound(self, index: int, rate: int) -> Float32[np.ndarray, " T"]:
        """The sound as one channel of ``rate`` samples a second."""
        ...

    def digest(self, index: int) -> str:
        """The SHA-256 (hex) of the sound's bytes."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """What extraction needs of an encoder of photos."""

    @property
    def identity(self) -> dict[str, str]:
        """What the encoder is."""
        ...

    @property
    def draft(self) -> int | None:
        """The ``draft`` to read photos with."""
        ...

    def prepare(self, image: Image.Image) -> Num[Tensor, "3 H W"]:
        """One photo as a tensor; called from several threads."""
        ...

    def encode(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch, on the CPU."""
        ...


@runtime_checkable
class Hears(Protocol):
    """What extraction needs of an encoder of sounds; those of one shape are encoded together."""

    @property
    def identity(self) -> dict[str, str]:
        """What the encoder is."""
        ...

    @property
    def sample_rate(self) -> int:
        """The samples a second to read sounds with."""
        ...

    def prepare(self, wave: Float32[np.ndarray, " T"]) -> Float[Tensor, "..."]:
        """One sound as a tensor, whose shape may depend on its length; called from several threads."""
        ...

    def encode(self, batch: Float[Tensor, "N ..."]) -> Float[Tensor, "N D"]:
        """The vectors of a batch, on the CPU."""
        ...


Batches = list[tuple[list[int], Tensor]]
"""Prepared items of one shape, stacked, each batch with their places."""


def stacked(prepared: Sequence[Tensor]) -> Batches:
    """Prepared items as batches of equal shape; photos, and sounds of one length, make one."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, tensor in enumerate(prepared):
        places.setdefault(tuple(tensor.shape), []).append(place)
    return [(members, torch.stack([prepared[place] for place in members])) for members in places.values()]


def encoded(encoder: Encodes | Hears, batches: Batches) -> Float[np.ndarray, "N D"]:
    """The vectors of all items of ``batches``, in the order of their places."""
    order = np.argsort([place for places, _ in batches for place in places], kind="stable")
    vectors = [encoder.encode(batch).numpy() for _, batch in batches]
    return vectors[0] if len(vectors) == 1 else np.concatenate(vectors)[order]
