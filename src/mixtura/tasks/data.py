"""The public data sets by name: what there is, and how to get it."""

import inspect
from pathlib import Path

from mixtura.datasets import DATASETS, NAMED
from mixtura.datasets.download import download
from mixtura.datasets.idx import SOURCES
from mixtura.errors import UnknownName
from mixtura.names import find, nearest


def list() -> dict[str, str]:
    """What each named set is, in a sentence."""
    return {name: (inspect.getdoc(find(DATASETS, name)) or "").partition("\n")[0] for name in NAMED}


def get(name: str, folder: Path | None = None) -> Path:
    """Download a set, check its files, and say where they are.

    Raises:
        UnknownName: no set that can be downloaded has this name.
        DataError: a file has another checksum than the known one.
        NoInput: the download failed.
    """
    if name not in SOURCES:
        others = "The others come with mixtura or are fetched by hand."
        raise UnknownName(f"{name!r} is no set to download. {nearest(name, SOURCES)} {others}")
    return download(name, folder)
