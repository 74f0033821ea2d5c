"""Read folders of sounds, laid out like folders of photos (see :mod:`mixtura.datasets.folder`)."""

from pathlib import Path

from mixtura.datasets.folder import load_files
from mixtura.datasets.items import Dataset
from mixtura.datasets.paths import SOUND_SUFFIXES
from mixtura.datasets.walk import REFUSED_SOUND_SUFFIXES, Files

SOUND_FILES = Files("audio", "sounds", SOUND_SUFFIXES, REFUSED_SOUND_SUFFIXES, "Save it as WAV or FLAC")


def load(root: Path, *, label: str = "fine", follow_links: bool = False) -> Dataset:
    """Return the sounds below a folder.

    Args:
        root: the folder.
        label: ``fine``, or ``coarse`` for the column ``superclass`` of ``metadata.csv``.
        follow_links: also follow links that lead out of the folder.

    Raises:
        NoInput: the folder does not exist or has no sounds.
        DataError: ``metadata.csv`` is wrong; the message gives the line.
    """
    return load_files(root, SOUND_FILES, label, follow_links)
