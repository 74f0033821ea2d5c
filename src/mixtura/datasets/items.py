"""The common form of all data sets: photos or sounds with labels, and a list of unusable files."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Int
from PIL import Image

from mixtura.datasets import sound
from mixtura.datasets.decode import Payload, decode, read_bytes
from mixtura.errors import BadImage, BadItem, BadSound, DataError, LabelError

SPLITS = ("train", "val", "test")
MODALITIES: dict[str, type[BadItem]] = {"image": BadImage, "audio": BadSound}
"""The modalities of a data set, each with the error for an unreadable item."""

_ALSO_CALLED = {
    "training": "train", "trainval": "train", "valid": "val", "validation": "val", "dev": "val", "devel": "val",
    "development": "val", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_BESIDE_SPLITS = r"(?:data)?sets?|splits?|parts?|folders?|data|images?|imgs?|photos?|pictures?|pics|sounds?|audio|files"
_SPLIT_NAME = re.compile(
    rf"[\W\d_]*(?:(?:{_BESIDE_SPLITS})[\W\d_]*)*({'|'.join((*SPLITS, *_ALSO_CALLED))})"
    rf"(?:[\W\d_]*(?:{_BESIDE_SPLITS}))*[\W\d_]*"
)


def to_split(name: str) -> str | None:
    """Return the one of :data:`SPLITS` that a folder or column names, or ``None``.

    Words such as set and images, digits and signs beside the name of the split do not count.

    >>> to_split("Validation"), to_split("train2017"), to_split("testImages"), to_split("train shoes")
    ('val', 'train', 'test', None)
    """
    found = _SPLIT_NAME.fullmatch(name.strip().lower())
    return None if found is None else _ALSO_CALLED.get(found[1], found[1])


@dataclass(frozen=True)
class Item:
    """One picture or sound with its metadata.

    ``id`` is unique in its data set and stable across runs; ``source`` is shown to people: a path relative to the
    root, or ``pack.npz#17``. ``split`` is set if the data set gives one. ``weight`` is relative, >= 0.
    Items are compared by their metadata, not by their content.
    """

    id: str
    source: str
    payload: Payload = field(repr=False, compare=False)
    label: str | None
    superlabel: str | None = None
    group: str | None = None
    split: str | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Problem:
    """A file or row that was left out: its source, a reason code, and one sentence for people."""

    source: str
    reason: str
    message: str


@dataclass(frozen=True)
class Dataset:
    """Items in a fixed order, decoded on access. ``modality`` is ``image`` or ``audio`` for all items.

    Raises:
        DataError: two items share an id.
    """

    name: str
    items: tuple[Item, ...]
    problems: list[Problem] = field(default_factory=list)
    modality: str = "image"

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(item.id for item in self.items).items() if count > 1]
        if twice:
            raise DataError(
                f"{self.name}: {len(twice)} ids occur more than once, first {twice[0]!r}. Make them unique."
            )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels in use, sorted."""
        return tuple(sorted({item.label for item in self.items if item.label is not None}))

    @property
    def superclasses(self) -> tuple[str, ...]:
        """The superlabels in use, sorted."""
        return tuple(sorted({item.superlabel for item in self.items if item.superlabel is not None}))

    def image(self, index: int, *, draft: int | None = None) -> Image.Image:
        """Return the picture as RGB; ``draft`` in pixels, as in :func:`~mixtura.datasets.decode.decode`.

        Raises:
            BadImage: it cannot be decoded safely.
        """
        item = self.items[index]
        return decode(item.payload, draft=draft, name=item.source)

    def sound(self, index: int, rate: int) -> sound.Waveform:
        """Return the sound as one channel at ``rate`` samples/s.

        Raises:
            BadSound: it cannot be decoded safely.
            MissingExtra: the sound library is not installed.
        """
        item = self.items[index]
        return sound.decode(item.payload, rate, name=item.source)

    def digest(self, index: int) -> str:
        """Return the SHA-256 of the item's bytes, in hex; for pixels, of their shape and values.

        Raises:
            BadItem: the file cannot be read.
        """
        item = self.items[index]
        if isinstance(item.payload, np.ndarray):
            data = repr(item.payload.shape).encode() + item.payload.tobytes()
        else:
            data = read_bytes(item.payload, name=item.source, wrong=MODALITIES[self.modality])
        return hashlib.sha256(data).hexdigest()

    def subset(self, indices: Iterable[int] | Int[np.ndarray, " M"]) -> "Dataset":
        """Return the items at ``indices``, in that order; the problems stay."""
        return replace(self, items=tuple(self.items[int(index)] for index in indices))

    def at_level(self, level: str) -> "Dataset":
        """Return the same items labeled at a level: ``fine`` keeps the labels, ``coarse`` uses the superlabels.

        Raises:
            LabelError: the level is unknown, or an item has no superlabel.
        """
        if level == "fine":
            return self
        if level != "coarse":
            raise LabelError(f"Unknown label level {level!r}. Known: coarse, fine.")
        missing = sum(item.superlabel is None for item in self.items)
        if missing:
            raise LabelError(f"{self.name}: {missing} of {len(self)} items have no superclass. Use label 'fine'.")
        return replace(self, items=tuple(replace(item, label=item.superlabel, superlabel=None) for item in self.items))
