"""Small pictures of the photos in a feature store: the photos may move, the pictures go with the features."""

import io
import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image

from mixtura.datasets.items import Dataset, Item

PICTURES_FILE = "pictures.sqlite"
"""File in a feature store with small pictures of its photos."""

MAX_SIDE, JPEG_QUALITY = 112, 80
"""Longest side in pixels, and JPEG quality in percent."""

BUFFERED_PICTURES = 256  # about a megabyte


def shrink(image: Image.Image) -> bytes:
    """Scale a picture to at most :data:`MAX_SIDE` pixels per side and encode it as JPEG."""
    small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC, reducing_gap=1.0)  # averages first: twice as fast
    target = io.BytesIO()
    small.save(target, "JPEG", quality=JPEG_QUALITY)
    return target.getvalue()


def picture_in(path: Path, id: str) -> bytes | None:
    """The small JPEG of an item in a file of pictures; ``None`` if it has none, or cannot be read."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as file:
        row = file.execute("SELECT jpeg FROM picture WHERE id = ?", (id,)).fetchone()
        return None if row is None else row[0]
    return None


@dataclass
class Pictures:
    """The small JPEGs of a store's photos by item id, in one SQLite file.

    They are optional: what cannot be written is left out, and the photo itself is read where a picture is missing.
    """

    store: Path
    _waiting: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, id: str, picture: bytes) -> None:
        """Keep a picture; any thread may call this."""
        with self._lock:
            self._waiting[id] = picture
            if len(self._waiting) >= BUFFERED_PICTURES:
                self._write()

    def flush(self, stored: Callable[[], Collection[str]]) -> None:
        """Write what waits, of the items that the store has in the end; ``stored`` gives their ids."""
        with self._lock:
            if self._waiting:
                ids = stored()
                self._waiting = {id: picture for id, picture in self._waiting.items() if id in ids}
                self._write()

    def _write(self) -> None:
        rows, self._waiting = list(self._waiting.items()), {}
        if not rows or not self.store.is_dir():
            return
        with suppress(sqlite3.Error), closing(sqlite3.connect(self.store / PICTURES_FILE)) as file, file:
            file.execute("CREATE TABLE IF NOT EXISTS picture (id TEXT PRIMARY KEY, jpeg BLOB NOT NULL)")
            file.executemany("INSERT OR REPLACE INTO picture VALUES (?, ?)", rows)


@dataclass(frozen=True)
class Pictured:
    """A data set to extract from that keeps a small picture of each photo that is decoded from a file."""

    dataset: Dataset
    pictures: Pictures

    @property
    def items(self) -> Sequence[Item]:
        """The items of the data set."""
        return self.dataset.items

    def image(self, index: int, *, draft: int | None = None) -> Image.Image:
        """The photo as RGB, see :meth:`Dataset.image`."""
        image, item = self.dataset.image(index, draft=draft), self.items[index]
        if isinstance(item.payload, Path):
            self.pictures.add(item.id, shrink(image))
        return image

    def sound(self, index: int, rate: int) -> Float32[np.ndarray, " T"]:
        """The sound, see :meth:`Dataset.sound`."""
        return self.dataset.sound(index, rate)

    def digest(self, index: int) -> str:
        """The hash of an item, see :meth:`Dataset.digest`."""
        return self.dataset.digest(index)
