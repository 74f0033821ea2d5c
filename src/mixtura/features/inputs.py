"""How prepared items become batches, and batches vectors."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.interfaces import Encoder, SoundEncoder

Batches = list[tuple[list[int], Tensor]]
"""Prepared items of one shape, stacked, each batch with their places."""


def stacked(prepared: Sequence[Tensor]) -> Batches:
    """Prepared items as batches of equal shape; photos, and sounds of one length, make one."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, tensor in enumerate(prepared):
        places.setdefault(tuple(tensor.shape), []).append(place)
    return [(members, _stack([prepared[place] for place in members])) for members in places.values()]


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """As ``torch.stack``, but the memory of photos stays channels last: one plain copy, where a transposition of bytes
    takes as long as decoding a photo.
    """
    if tensors[0].dim() != 3 or not tensors[0].permute(1, 2, 0).is_contiguous():
        return torch.stack(list(tensors))
    return torch.stack([tensor.permute(1, 2, 0) for tensor in tensors]).permute(0, 3, 1, 2)


def encoded(encoder: Encoder | SoundEncoder, batches: Batches) -> Float[np.ndarray, "N D"]:
    """The vectors of all items of ``batches``, in the order of their places."""
    order = np.argsort([place for places, _ in batches for place in places], kind="stable")
    vectors = [encoder.encode(batch).numpy() for _, batch in batches]
    return vectors[0] if len(vectors) == 1 else np.concatenate(vectors)[order]
