"""Read folders of sounds, laid out like folders of photos (see :mod:`mixtura.datasets.folder`).

::

    root/rain/1.wav                   the folder name is the label, for all folders below it too
    root/train/rain/1.wav             if every folder in root is named train, val or test
    root/1.wav                        no folders: sounds without labels
    root/metadata.csv                 a list next to the sounds wins (see :mod:`mixtura.datasets.listing`)
"""

from pathlib import Path

from mixtura.datasets.folder import Files, load_files
from mixtura.datasets.items import Dataset
from mixtura.datasets.paths import SOUND_SUFFIXES

# Sound formats that are not supported: reported, unlike unrelated files.
REFUSED_SUFFIXES = frozenset(
    {".m4a", ".aac", ".mp4", ".wma", ".aif", ".aiff", ".amr", ".mid", ".midi", ".au", ".caf", ".w64"}
)
SOUND_FILES = Files("audio", "sounds", SOUND_SUFFIXES, REFUSED_SUFFIXES, "Save it as WAV or FLAC")


def load(root: Path, *, label: str = "fine") -> Dataset:
    """Return the sounds below a folder.

    Args:
        root: the folder.
        label: ``fine``, or ``coarse`` for the column ``superclass`` of ``metadata.csv``.

    Raises:
        NoInput: the folder does not exist or has no sounds.
        DataError: ``metadata.csv`` is wrong; the message gives the line.
    """
    return load_files(root, SOUND_FILES, label)
