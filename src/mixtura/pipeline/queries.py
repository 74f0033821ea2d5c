"""Query photos and sounds, in two steps: each is prepared alone, then all are encoded together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num
from torch import Tensor

from mixtura.datasets import quality, sound
from mixtura.datasets.decode import decode
from mixtura.datasets.paths import readable
from mixtura.features.inputs import encoded, stacked
from mixtura.interfaces import SoundEncoder
from mixtura.pipeline.factory import Encoder
from mixtura.pipeline.pictures import shrink


def name_of(query: Path | bytes) -> str:
    """What to call a query in answers and messages: its path as readable text, or ``-`` for the bytes of a file."""
    return "-" if isinstance(query, bytes) else readable(str(query))


@dataclass(frozen=True)
class Prepared:
    """An item as its encoder takes it; for photos, with an image flaw if there is one, and optionally a small JPEG."""

    tensor: Num[Tensor, "..."]
    flaw: quality.Flaw | None = None
    picture: bytes | None = None


def prepare(encoder: Encoder, payload: Path | bytes, name: str | None = None, picture: bool = False) -> Prepared:
    """Prepare an item from its file or bytes.

    Args:
        encoder: of the model.
        payload: a file, or the bytes of one.
        name: used in messages; the path by default.
        picture: also make a small JPEG of a photo.

    Raises:
        BadItem: it is not the photo or sound that the encoder takes, or cannot be decoded safely.
    """
    if isinstance(encoder, SoundEncoder):
        return Prepared(encoder.prepare(sound.decode(payload, encoder.sample_rate, name=name)))
    image = decode(payload, draft=encoder.draft, name=name)
    return Prepared(encoder.prepare(image), quality.flaw(image), shrink(image) if picture else None)


def embed(encoder: Encoder, items: Sequence[Prepared]) -> Float[np.ndarray, "N D"]:
    """Encode prepared items to features."""
    return np.ascontiguousarray(encoded(encoder, stacked([item.tensor for item in items])))
