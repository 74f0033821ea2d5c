"""Records of the catalog for the command line, the server and the page."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

CATALOG_FILE = "catalog.sqlite"
"""File of a model folder with its products, their edits and the journal."""

STATUSES = ("fitted", "provisional", "confirmed")


@dataclass(frozen=True)
class Product:
    """A class of the catalog. ``id`` survives renames and matches ``[a-z0-9-]{1,64}``.

    ``items`` counts the items it is learned from. ``status`` is one of :data:`STATUSES`; provisional products were
    enrolled from a few photos and await confirmation. ``created`` is a time in UTC (ISO 8601).
    """

    id: str
    name: str
    items: int
    status: str
    created: str


@dataclass(frozen=True)
class StoredItem:
    """A photo or sound in the catalog, stored as features, not pixels.

    ``product`` is the id of its product; ``split`` is train, val or test. Test items are never learned from.
    """

    id: int
    product: str
    source: str
    sha256: str
    added: str
    split: str


@dataclass(frozen=True)
class Kind:
    """A kind of a product: its name, and the numbers of its items. Items of no kind have the name of the product."""

    name: str
    items: tuple[int, ...]


@dataclass(frozen=True)
class KindsEffect:
    """The number of items of each kind of a product before and after an edit; ``id`` and ``product`` name it."""

    id: str
    product: str
    before: dict[str, int]
    after: dict[str, int]


@dataclass(frozen=True)
class Edit:
    """One atomic change of the catalog. ``number`` counts from 1; ``at`` is a time in UTC (ISO 8601)."""

    number: int
    at: str
    kind: str
    summary: str
    undone: bool


@dataclass(frozen=True)
class Shot:
    """A photo to enroll: its features from the model's encoder, the hash (hex) of its bytes, and a small JPEG."""

    embedding: Float[np.ndarray, " D"]
    sha256: str
    source: str
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class EditResult:
    """The result of an edit.

    ``before`` and ``after`` are accuracies in [0, 1] on ``tested`` test items of the products that stayed;
    ``None`` if there are no such items. ``kinds`` says what became of the kinds that the edit changed.
    """

    edit: Edit
    product: Product | None = None
    before: float | None = None
    after: float | None = None
    tested: int = 0
    notes: tuple[str, ...] = field(default=())
    kinds: tuple[KindsEffect, ...] = ()
