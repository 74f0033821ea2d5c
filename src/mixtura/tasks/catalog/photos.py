"""From photos or sounds to shots: features, hash and a small picture."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mixtura.datasets import sound
from mixtura.datasets.decode import decode, read_bytes
from mixtura.datasets.items import Problem
from mixtura.encoders.sounds import SoundEncoder
from mixtura.errors import BadItem
from mixtura.features.inputs import encoded, stacked
from mixtura.tasks.build import Encoder
from mixtura.tasks.catalog.records import Shot
from mixtura.tasks.thumbnails import shrink


def shots(encoder: Encoder, paths: Sequence[Path]) -> tuple[list[Shot], list[Problem]]:
    """Files as shots; those that cannot be read are problems."""
    made: list[Shot] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            made.append(shot_of(encoder, read_bytes(path), str(path)))
        except BadItem as error:
            problems.append(Problem(str(path), error.reason, str(error)))
    return made, problems


def shot_of(encoder: Encoder, data: bytes, source: str) -> Shot:
    """The bytes of a file as a shot.

    Args:
        encoder: of the model.
        data: a photo, or a sound where the encoder takes sounds.
        source: what people are shown.

    Raises:
        BadItem: the bytes are not what the encoder takes.
    """
    small = None
    if isinstance(encoder, SoundEncoder):
        prepared = encoder.prepare(sound.decode(data, encoder.sample_rate))
    else:
        image = decode(data, draft=encoder.draft)
        prepared, small = encoder.prepare(image), shrink(image)
    embedding = np.ascontiguousarray(encoded(encoder, stacked([prepared]))[0], dtype=np.float32)
    return Shot(embedding, hashlib.sha256(data).hexdigest(), source, small)
