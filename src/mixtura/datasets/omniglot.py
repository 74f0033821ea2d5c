"""Read Omniglot in its official layout: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people.

::

    root/images_background/Greek/character01/0394_01.png       30 alphabets, 964 characters: the part train
    root/images_evaluation/Tibetan/character01/1585_01.png     20 alphabets, 659 characters: the part test

The second number of a file is the person who drew it. A character is a class, such as ``Greek/character01``, its
alphabet is the superclass, and what a person drew of an alphabet is a group. The parts share no class, for few-shot
learning. Each may be read alone; it then has no part, and a split that is made keeps the drawings of a person together.

Source: Lake, Salakhutdinov and Tenenbaum, Human-level concept learning through probabilistic program induction
(Science 2015).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from mixtura.datasets import PUBLIC
from mixtura.datasets.items import Dataset, Item
from mixtura.datasets.paths import readable, to_id, to_label
from mixtura.datasets.published import require_count
from mixtura.datasets.walk import entries, is_dir, suffix_of
from mixtura.errors import DataError, NoInput
from mixtura.files import cache_folder, is_folder_at


@dataclass(frozen=True)
class Part:
    """One of the two folders: its name, its split, and how many alphabets, characters and pictures were published."""

    folder: str
    split: str
    alphabets: int
    characters: int
    pictures: int


PARTS = (
    Part("images_background", "train", 30, 964, 19_280),
    Part("images_evaluation", "test", 20, 659, 13_180),
)
PICTURE_SUFFIX = ".png"
_PICTURE = re.compile(r"\d+_(\d+)\.png", re.IGNORECASE)


def load(root: Path | None = None, *, label: str = "fine") -> Dataset:
    """Omniglot: 32,460 pictures of 1,623 characters of 50 alphabets; 964 characters to train on, 659 others to test on.

    Args:
        root: the folder with ``images_background`` and ``images_evaluation``, or one of these; the cache folder by
            default.
        label: ``fine`` for the characters, ``coarse`` for their alphabets.

    Raises:
        NoInput: a folder is missing, or cannot be listed.
        DataError: alphabets, characters or pictures are missing, or a file is none of them.
    """
    start = root if root is not None else cache_folder("omniglot")
    alone = [part for part in PARTS if start.name == part.folder and not is_folder_at(start / part.folder)]
    parts = {start if alone else start / part.folder: part for part in alone or PARTS}
    absent = [part for folder, part in parts.items() if not is_folder_at(folder)]
    if absent:
        raise NoInput(
            f"{readable(str(start))}: holds no folder {absent[0].folder}. Unpack {absent[0].folder}.zip there "
            f"({PUBLIC['omniglot'].get}), or give the folder of one part alone."
        )
    items = [item for folder, part in parts.items() for item in _items(folder, part, None if alone else part.split)]
    return Dataset("omniglot", tuple(items)).at_level(label)


def _items(root: Path, part: Part, split: str | None) -> list[Item]:
    """The pictures of a part, checked to be as many as were published."""
    advice = f"Unpack {part.folder}.zip again."
    try:
        alphabets = _folders(root)
        characters = [folder for alphabet in alphabets for folder in _folders(alphabet)]
        pictures = [(folder, name) for folder in characters for name in _pictures(folder)]
    except OSError as error:
        raise NoInput(f"{readable(str(root))}: cannot be listed ({error.strerror}). Check its permissions.") from error
    require_count(root, "alphabets", len(alphabets), part.alphabets, advice)
    require_count(root, "characters", len(characters), part.characters, advice)
    require_count(root, "pictures", len(pictures), part.pictures, advice)
    return [_item(part, folder, name, split) for folder, name in pictures]


def _folders(place: Path) -> list[Path]:
    return [Path(entry.path) for entry in entries(place) if is_dir(entry)]


def _pictures(folder: Path) -> list[str]:
    return [entry.name for entry in entries(folder) if suffix_of(entry.name) == PICTURE_SUFFIX]


def _item(part: Part, folder: Path, name: str, split: str | None) -> Item:
    alphabet, source = to_label(folder.parent.name), f"{part.folder}/{folder.parent.name}/{folder.name}/{name}"
    drawer = _PICTURE.fullmatch(name)
    if drawer is None:
        raise DataError(
            f"{readable(source)}: is no picture such as 0394_01.png, whose second number is the person who drew it. "
            f"Unpack {part.folder}.zip again."
        )
    return Item(
        id=to_id(source),
        source=readable(source),
        payload=folder / name,
        label=f"{alphabet}/{to_label(folder.name)}",
        superlabel=alphabet,
        group=f"{alphabet} drawer {int(drawer[1])}",
        split=split,
    )
