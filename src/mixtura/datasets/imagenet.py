"""Read ImageNet (ILSVRC 2012) in its official layout.

::

    root/train/n01440764/n01440764_10026.JPEG
    root/val/ILSVRC2012_val_00000001.JPEG           or root/val/n01440764/ILSVRC2012_val_00000293.JPEG
    root/ILSVRC2012_devkit_t12/data/meta.mat        synsets and their words
    root/ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt

The published validation split is the test split here, as in most papers: the labels of the real one are not public.
Without the devkit, classes are named by synset only, and a flat ``val`` cannot be labeled.

Source: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge (IJCV 2015).
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixtura.datasets.folder import Scan
from mixtura.datasets.items import Dataset, Item, Problem
from mixtura.datasets.paths import readable, to_label
from mixtura.datasets.published import read_mat, unreadable_as_error
from mixtura.datasets.walk import PHOTO_FILES
from mixtura.errors import DataError, NoInput
from mixtura.files import is_file_at, is_folder_at

DEVKIT = "ILSVRC2012_devkit_t12"
META_FILE, TRUTH_FILE = Path("data", "meta.mat"), Path("data", "ILSVRC2012_validation_ground_truth.txt")
SPLIT_FOLDERS = {"train": "train", "val": "test"}
_SYNSET = re.compile(r"n\d{8}")
_FLAT = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")


def load(root: Path | None, *, label: str = "fine", follow_links: bool = False) -> Dataset:
    """ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 test photos of 1,000 classes (official folders).

    Args:
        root: the folder with ``train`` and ``val``.
        label: ``fine``; there is no other.
        follow_links: also follow links that lead out of the folder.

    Raises:
        NoInput: a folder is missing, or a flat ``val`` has no devkit for its labels.
        DataError: the devkit is damaged.
    """
    if root is None or not any(is_folder_at(root / name) for name in SPLIT_FOLDERS):
        raise NoInput(
            f"{readable(str(root)) if root is not None else 'imagenet'}: holds neither train nor val. Give the folder "
            "of ILSVRC 2012 with train/n01440764/*.JPEG and val/ (image-net.org)."
        )
    scan = Scan(root.resolve(), PHOTO_FILES, follow_links)
    for name, split in SPLIT_FOLDERS.items():
        if is_folder_at(root / name):
            scan.part(scan.root / name, split)
    kit = _Devkit(root / DEVKIT)
    items: list[Item] = []
    for item in scan.items:
        synset = kit.synset_of(item) if item.label is None else item.label
        if _SYNSET.fullmatch(synset or ""):
            items.append(replace(item, label=kit.title(str(synset))))
        else:
            reason = f"{item.source}: lies in no folder of a synset such as n01440764 and is left out."
            scan.problems.append(Problem(item.source, "no_class", reason))
    return Dataset("imagenet", tuple(items), scan.problems).at_level(label)


class _Devkit:
    """The contents of the devkit, read on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.synsets, self.words = _meta(folder / META_FILE) if is_file_at(folder / META_FILE) else ({}, {})
        self._truth: list[int] | None = None

    def title(self, synset: str) -> str:
        """Return the synset with its first word: ``n01440764 tench``."""
        return to_label(" ".join((synset, self.words.get(synset, ""))))

    def synset_of(self, item: Item) -> str | None:
        """Return the synset of a photo in a flat validation folder, or ``None`` for a file with another name.

        Raises:
            NoInput: the devkit is missing.
            DataError: it has no label for this photo.
        """
        name = _FLAT.fullmatch(Path(item.source).name)
        if name is None:
            return None
        if self._truth is None:
            self._truth = self._read_truth()
        number = int(name[1])
        if not 1 <= number <= len(self._truth) or self._truth[number - 1] not in self.synsets:
            raise DataError(
                f"{readable(str(self.folder / TRUTH_FILE))}: holds no label for {item.source}. Unpack it again."
            )
        return self.synsets[self._truth[number - 1]]

    def _read_truth(self) -> list[int]:
        path = self.folder / TRUTH_FILE
        if not is_file_at(path) or not self.synsets:
            raise NoInput(
                f"{readable(str(self.folder.parent))}: val/ holds photos without class folders, whose labels are in "
                f"the devkit. Unpack {DEVKIT}.tar.gz (image-net.org) beside it."
            )
        try:
            return [int(line) for line in path.read_text(encoding="ascii").split()]
        except (OSError, ValueError) as error:
            raise DataError(f"{readable(str(path))}: is no list of numbers ({error}). Unpack it again.") from error


def _meta(path: Path) -> tuple[dict[int, str], dict[str, str]]:
    """Return synset by number, and first word by synset, without inner nodes of the tree, which have no photos.

    Raises:
        DataError: the file is damaged.
    """
    advice = f"Unpack {DEVKIT}.tar.gz again."
    table: Any = read_mat(path, ("synsets",), advice)["synsets"]
    synsets: dict[int, str] = {}
    words: dict[str, str] = {}
    with unreadable_as_error(path, advice):
        for row in table.reshape(-1):
            if int(row["num_children"].item()) == 0:
                synset = str(row["WNID"].item())
                synsets[int(row["ILSVRC2012_ID"].item())] = synset
                words[synset] = str(row["words"].item()).partition(",")[0].strip()
    return synsets, words
