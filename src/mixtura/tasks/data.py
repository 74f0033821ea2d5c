"""The named public data sets: list and download them."""

import inspect
from pathlib import Path

from mixtura.datasets import DATASETS, NAMED
from mixtura.datasets.download import download
from mixtura.datasets.idx import SOURCES
from mixtura.errors import UnknownName
from mixtura.names import find, nearest


def list() -> dict[str, str]:
    """A one-sentence description of each named set."""
    return {name: (inspect.getdoc(find(DATASETS, name)) or "").partition("\n")[0] for name in NAMED}


def get(name: str, folder: Path | None = None) -> Path:
    """Download a set, verify its files, and return their folder.

    Raises:
        UnknownName: no set that can be downloaded has this name.
        DataError: a file has another checksum than the known one.
        NoInput: the download failed.
    """
    if name not in SOURCES:
        others = "The others come with mixtura or are fetched by hand."
        raise UnknownName(f"{name!r} is no set to download. {nearest(name, SOURCES)} {others}")
    return download(name, folder)
