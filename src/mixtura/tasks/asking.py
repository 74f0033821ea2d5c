"""Photos that arrive as bytes, in two steps: each is prepared alone, and all are encoded together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num
from torch import Tensor

from mixtura.datasets import quality
from mixtura.datasets.decode import decode
from mixtura.features.inputs import encoded, stacked
from mixtura.tasks.build import PhotoEncoder
from mixtura.tasks.thumbnails import shrink


@dataclass(frozen=True)
class Prepared:
    """A photo as its encoder takes it, what is plainly wrong with it, and a small JPEG if one was wanted."""

    tensor: Num[Tensor, "3 H W"]
    flaw: quality.Flaw | None
    picture: bytes | None


def prepare(encoder: PhotoEncoder, data: bytes, name: str, picture: bool = False) -> Prepared:
    """A photo from its bytes.

    Args:
        encoder: of the model.
        data: the bytes of a file.
        name: what messages call it.
        picture: make a small JPEG too.

    Raises:
        BadImage: it cannot be decoded safely.
    """
    image = decode(data, draft=encoder.draft, name=name)
    return Prepared(encoder.prepare(image), quality.flaw(image), shrink(image) if picture else None)


def embed(encoder: PhotoEncoder, photos: Sequence[Prepared]) -> Float[np.ndarray, "N D"]:
    """The features of prepared photos."""
    return np.ascontiguousarray(encoded(encoder, stacked([photo.tensor for photo in photos])))
