"""Read folders of photos at two levels: a folder for each superclass, and in it one for each class.

::

    root/fruit/apple/1.jpg            superclass fruit, class fruit/apple
    root/train/fruit/apple/1.jpg      splits, wrapped folders and lists as in :mod:`mixtura.datasets.folder`

A class is named with its superclass, so that two superclasses may each have a class ``other``.
"""

from pathlib import Path

from mixtura.datasets.folder import load_files
from mixtura.datasets.items import Dataset
from mixtura.datasets.walk import PHOTO_FILES


def load(root: Path, *, label: str = "fine", follow_links: bool = False) -> Dataset:
    """Return the photos below a folder of superclasses.

    Args:
        root: the folder.
        label: ``fine`` for the inner folders, ``coarse`` for the outer ones.
        follow_links: also follow links that lead out of the folder.

    Raises:
        NoInput: the folder does not exist or has no photos in classes.
        DataError: ``metadata.csv`` is wrong; the message gives the line.
    """
    return load_files(root, PHOTO_FILES, label, follow_links, nested=True)
