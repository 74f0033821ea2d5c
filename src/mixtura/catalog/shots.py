"""Turn photos or sounds into shots: features, hash and thumbnail."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from mixtura.datasets.decode import read_bytes
from mixtura.datasets.items import Problem
from mixtura.errors import BadItem
from mixtura.pipeline.factory import Encoder
from mixtura.pipeline.queries import embed, name_of, prepare
from mixtura.records.catalog import Shot


def shots(encoder: Encoder, queries: Sequence[Path | bytes]) -> tuple[list[Shot], list[Problem]]:
    """Files as shots; unreadable ones are returned as problems."""
    made: list[Shot] = []
    problems: list[Problem] = []
    for query in queries:
        try:
            made.append(shot_of(encoder, read_bytes(query), name_of(query)))
        except BadItem as error:
            problems.append(Problem(name_of(query), error.reason, str(error)))
    return made, problems


def shot_of(encoder: Encoder, data: bytes, source: str) -> Shot:
    """The bytes of a file as a shot.

    Args:
        encoder: of the model.
        data: a photo, or a sound where the encoder takes sounds.
        source: name to show to people.

    Raises:
        BadItem: the bytes are not what the encoder takes.
    """
    prepared = prepare(encoder, data, source, picture=True)
    return Shot(embed(encoder, [prepared])[0], hashlib.sha256(data).hexdigest(), source, prepared.picture)
