"""The named public data sets: list and download them."""

import inspect
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mixtura.datasets import DATASETS, PUBLIC
from mixtura.datasets.download import download
from mixtura.datasets.idx import SOURCES
from mixtura.errors import UnknownName
from mixtura.names import find, nearest


def list() -> dict[str, dict[str, Any]]:
    """What each public set is, where to get it, which files are read, and their published MD5, by its name."""
    return {
        name: {"about": (inspect.getdoc(find(DATASETS, name)) or "").partition("\n")[0]} | asdict(public)
        for name, public in PUBLIC.items()
    }


def get(name: str, folder: Path | None = None) -> Path:
    """Download a set, verify its files, and return their folder.

    Raises:
        UnknownName: no set that can be downloaded has this name.
        DataError: a file has another checksum than the known one.
        NoInput: the download failed.
    """
    if name not in SOURCES:
        if name in PUBLIC:
            raise UnknownName(f"{name!r} is no set that this command downloads. Where to get it: {PUBLIC[name].get}.")
        raise UnknownName(f"{name!r} is no set to download. {nearest(name, SOURCES)}")
    return download(name, folder)
