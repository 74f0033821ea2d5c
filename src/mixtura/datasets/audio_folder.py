"""Folders of sounds, laid out as folders of photos are (see :mod:`mixtura.datasets.folder`).

::

    root/rain/1.wav                   the folder's name is the label; deeper folders belong to it
    root/train/rain/1.wav             where every folder in root is named train, val or test
    root/1.wav                        no folders: sounds without labels
    root/metadata.csv                 a list beside the sounds wins (see :mod:`mixtura.datasets.listing`)
"""

from pathlib import Path

from mixtura.datasets.folder import Files, load_files
from mixtura.datasets.items import Dataset
from mixtura.datasets.paths import SOUND_SUFFIXES

# Sounds to their owner, but not read: told apart from files that merely lie around.
REFUSED_SUFFIXES = frozenset(
    {".m4a", ".aac", ".mp4", ".wma", ".aif", ".aiff", ".amr", ".mid", ".midi", ".au", ".caf", ".w64"}
)
SOUND_FILES = Files("audio", "sounds", SOUND_SUFFIXES, REFUSED_SUFFIXES, "Save it as WAV or FLAC")


def load(root: Path, *, label: str = "fine") -> Dataset:
    """The sounds below a folder.

    Args:
        root: the folder.
        label: ``fine``, or ``coarse`` for the column ``superclass`` of ``metadata.csv``.

    Raises:
        NoInput: there is no such folder, or no sound in it.
        DataError: ``metadata.csv`` is wrong; the message gives the line.
    """
    return load_files(root, SOUND_FILES, label)
