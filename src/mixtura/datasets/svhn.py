"""Read SVHN, street view house numbers, from the official MATLAB files of cropped digits.

::

    root/train_32x32.mat              X: 32 x 32 x 3 x 73,257 bytes; y: 1 to 10, where 10 is the digit 0
    root/test_32x32.mat               X: 32 x 32 x 3 x 26,032 bytes; y: 1 to 10

``extra_32x32.mat``, 531,131 easier digits, is not read.

Source: Netzer et al., Reading digits in natural images with unsupervised feature learning (NIPS workshop 2011).
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mixtura.datasets import PUBLIC
from mixtura.datasets.items import Dataset, Item
from mixtura.datasets.paths import readable
from mixtura.datasets.published import read_mat, require_count, require_md5
from mixtura.errors import NoInput
from mixtura.files import cache_folder, is_file_at

FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
PUBLISHED = {"train": 73_257, "test": 26_032}  # pictures
ADVICE = f"Download it again from {PUBLIC['svhn'].get}."
ZERO = 10  # the label of the digit 0


def load(root: Path | None = None, *, label: str = "fine") -> Dataset:
    """SVHN: 73,257 training and 26,032 test pictures of the digits in house numbers (cropped, 32 x 32 pixels).

    Args:
        root: the folder of the two files, or one of them; the cache folder by default.
        label: ``fine``; there is no other.

    Raises:
        NoInput: a file is missing. DataError: it is damaged, or not the published one.
    """
    start = root if root is not None else cache_folder("svhn")
    folder = start.parent if is_file_at(start) else start
    absent = [name for name in FILES.values() if not is_file_at(folder / name)]
    if absent:
        raise NoInput(
            f"{readable(str(folder))}: holds no {absent[0]}. Give the folder with {' and '.join(FILES.values())}, "
            f"from {PUBLIC['svhn'].get}."
        )
    items: list[Item] = []
    for split, file in FILES.items():
        pixels, digits = _read(folder / file, PUBLISHED[split])
        for row, (picture, digit) in enumerate(zip(pixels, digits, strict=True)):
            name = f"{split}/{row:05d}"
            items.append(Item(name, name, picture, digit, split=split))
    return Dataset("svhn", tuple(items)).at_level(label)


def _read(path: Path, published: int) -> tuple[UInt8[np.ndarray, "N 32 32 3"], list[str]]:
    """The pictures of a file, and their digits.

    Raises:
        NoInput: it cannot be read. DataError: it is damaged, or not the published one.
    """
    arrays = read_mat(path, ("X", "y"), ADVICE)
    digits = np.asarray(arrays["y"]).reshape(-1)
    require_count(path, "pictures", len(digits), published, ADVICE)
    require_md5(path, PUBLIC["svhn"].md5[path.name], ADVICE)
    return np.ascontiguousarray(np.asarray(arrays["X"]).transpose(3, 0, 1, 2)), [
        str(digit % ZERO) for digit in digits.tolist()
    ]
