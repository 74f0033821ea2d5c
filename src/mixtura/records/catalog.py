"""What a catalog says of itself: plain values for the command line, the server and the page."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

STATUSES = ("fitted", "provisional", "confirmed")


@dataclass(frozen=True)
class Product:
    """A class of the catalog. ``id`` stays through renames and matches ``[a-z0-9-]{1,64}``.

    ``items`` counts what it is learned from; ``status`` is one of :data:`STATUSES`: provisional products were
    enrolled from a few photos and wait for a person's confirmation. ``created`` is a time in UTC (ISO 8601).
    """

    id: str
    name: str
    items: int
    status: str
    created: str


@dataclass(frozen=True)
class StoredItem:
    """A photo or sound that the catalog knows: its features, not its pixels.

    ``product`` is the id of its product; ``split`` is train, val or test, and test items are learned from by nothing.
    """

    id: int
    product: str
    source: str
    sha256: str
    added: str
    split: str


@dataclass(frozen=True)
class Edit:
    """One change of the catalog, whole or not at all. ``number`` counts from 1; ``at`` is a time in UTC (ISO 8601)."""

    number: int
    at: str
    kind: str
    summary: str
    undone: bool


@dataclass(frozen=True)
class Shot:
    """A photo to enroll: features of the model's encoder, hash (hex) of its bytes, and a small JPEG to show."""

    embedding: Float[np.ndarray, " D"]
    sha256: str
    source: str
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class EditResult:
    """What an edit did.

    ``before`` and ``after`` are shares in [0, 1] of ``tested`` test items of the products that stayed whose product
    was named right; ``None`` where there is nothing to test with.
    """

    edit: Edit
    product: Product | None = None
    before: float | None = None
    after: float | None = None
    tested: int = 0
    notes: tuple[str, ...] = field(default=())
