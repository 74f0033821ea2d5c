"""How prepared items become batches, and batches vectors."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mixtura.interfaces import Encoder, SoundEncoder

MAX_NUMBERS = 3 << 24  # of the items in one call of an encoder: 64 photos of 512 x 512 pixels, 4 of 2048 x 2048
Batches = list[tuple[list[int], Tensor]]
"""Prepared items of one shape, stacked, each batch with their places."""


def stacked(prepared: Sequence[Tensor]) -> Batches:
    """Prepared items as batches of equal shape; photos, and sounds of one length, make one."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, tensor in enumerate(prepared):
        places.setdefault(tuple(tensor.shape), []).append(place)
    return [(members, stack([prepared[place] for place in members])) for members in places.values()]


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Return prepared items of one shape as a batch.

    It is ``torch.stack``, but the memory of photos stays channels last: one plain copy, where a transposition of bytes
    takes as long as decoding a photo.
    """
    if tensors[0].dim() != 3 or not tensors[0].permute(1, 2, 0).is_contiguous():
        return torch.stack(list(tensors))
    return torch.stack([tensor.permute(1, 2, 0) for tensor in tensors]).permute(0, 3, 1, 2)


def at_once(numbers: int, most: int) -> int:
    """How many items of so many numbers an encoder takes at once, at most ``most``: memory grows with their product."""
    return max(1, min(most, MAX_NUMBERS // max(1, numbers)))


def photos_at_once(encoder: Encoder | SoundEncoder, most: int) -> int:
    """How many photos wait for an encoder together, at most ``most``; sounds differ in length, and any number may."""
    if isinstance(encoder, SoundEncoder):
        return most
    return at_once(encoder.prepare(Image.new("RGB", (64, 64))).numel(), most)


def encoded(encoder: Encoder | SoundEncoder, batches: Batches) -> Float[np.ndarray, "N D"]:
    """The vectors of all items of ``batches``, in the order of their places."""
    order = np.argsort([place for places, _ in batches for place in places], kind="stable")
    parts = [part for _, batch in batches for part in batch.split(at_once(batch[0].numel(), len(batch)))]
    vectors = [encoder.encode(part).numpy() for part in parts]
    return vectors[0] if len(vectors) == 1 else np.concatenate(vectors)[order]
