"""Resolve a DATA argument: a folder, a list, a pack, a feature store, or the name of a public data set."""

import os
from itertools import islice
from pathlib import Path
from typing import Any

from mixtura.datasets import BY_SUFFIX, NAMED, OFFICIAL
from mixtura.datasets.paths import SOUND_SUFFIXES
from mixtura.names import is_outside

ITEM_SUFFIXES = SOUND_SUFFIXES | {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm"}
"""Extensions of photos and sounds when searching a folder; a file given by name is always tried."""

LOOKED_AT = 1000
"""Maximum number of files to check when guessing what a folder holds."""

STORE_HEADER = "store.json"
"""The file that marks a feature store."""


def data_keys(source: str) -> dict[str, Any]:
    """Return the recipe keys for a DATA argument.

    A path on disk takes precedence over the name of a public data set or of an outside loader (package.module:load); a
    folder written by ``extract`` is a store.

    >>> data_keys("digits")
    {'data.kind': 'digits', 'data.root': None}
    >>> data_keys("list.csv")["data.kind"]
    'csv'
    """
    if not source:  # an unset shell variable; pathlib would read it as the current folder
        return {"data.kind": "folder", "data.root": source}
    path = Path(source)
    if not path.exists() and (source in NAMED or is_outside(source)):
        return {"data.kind": source, "data.root": None}
    kind = BY_SUFFIX.get(path.suffix.lower(), "folder")
    if path.is_dir():
        kind = _kind_of_folder(path)
    elif path.is_file():
        kind = _official(path) or kind
    return {"data.kind": kind, "data.root": path}


def _kind_of_folder(path: Path) -> str:
    """Return the kind: a feature store, an official public data set, or photos or sounds by the first such file."""
    if (path / STORE_HEADER).is_file():
        return "features"
    if found := _official(path):
        return found
    names = (Path(name) for _, _, files in os.walk(path) for name in files)
    endings = (name.suffix.lower() for name in islice(names, LOOKED_AT))
    return next(
        ("audio" if ending in SOUND_SUFFIXES else "folder" for ending in endings if ending in ITEM_SUFFIXES), "folder"
    )


def _official(path: Path) -> str | None:
    """Return the public data set whose official files these are."""
    for kind, names in OFFICIAL.items():
        if path.name in names or any((path / name).exists() for name in names):
            return kind
    return None
