"""Small pictures of the photos in a feature store: the photos may move, the pictures go with the features."""

import sqlite3
import threading
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from mixtura.datasets.items import Dataset
from mixtura.pipeline.thumbnails import PICTURES_FILE, shrink

BUFFERED_PICTURES = 256  # about a megabyte


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
class Pictured(Dataset):
    """A data set that keeps a small picture of each photo that is decoded from a file."""

    pictures: Pictures = field(kw_only=True)

    @classmethod
    def of(cls, dataset: Dataset, store: Path) -> "Pictured":
        """The data set, with the pictures in a store."""
        return cls(dataset.name, dataset.items, dataset.problems, dataset.modality, pictures=Pictures(store))

    def image(self, index: int, *, draft: int | None = None) -> Image.Image:
        """The picture as RGB, see :meth:`Dataset.image`."""
        image = super().image(index, draft=draft)
        if isinstance(self.items[index].payload, Path):
            self.pictures.add(self.items[index].id, shrink(image))
        return image
