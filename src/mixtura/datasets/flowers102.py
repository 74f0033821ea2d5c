"""Read Oxford Flowers 102 from the official files.

::

    root/jpg/image_00001.jpg          8,189 photos (102flowers.tgz)
    root/imagelabels.mat              labels: the class of each photo, 1 to 102
    root/setid.mat                    trnid, valid, tstid: the numbers of the photos of the official split

The official parts are 1,020, 1,020 and 6,149 photos: there are more to test than to train on.

Source: Nilsback and Zisserman, Automated flower classification over a large number of classes (ICVGIP 2008).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mixtura.datasets import PUBLIC
from mixtura.datasets.items import Dataset, Item
from mixtura.datasets.paths import readable
from mixtura.datasets.published import read_mat, require_count, require_md5
from mixtura.errors import DataError, NoInput
from mixtura.files import cache_folder, is_file_at, is_folder_at

LABEL_FILE, SPLIT_FILE, IMAGE_FOLDER = "imagelabels.mat", "setid.mat", "jpg"
SPLIT_ARRAYS = {"train": "trnid", "val": "valid", "test": "tstid"}
PUBLISHED = {"train": 1020, "val": 1020, "test": 6149}
"""Photos of each part."""

CLASSES = (
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold",
    "tiger lily", "moon orchid", "bird of paradise", "monkshood", "globe thistle", "snapdragon", "colt's foot",
    "king protea", "spear thistle", "yellow iris", "globe-flower", "purple coneflower", "peruvian lily",
    "balloon flower", "giant white arum lily", "fire lily", "pincushion flower", "fritillary", "red ginger",
    "grape hyacinth", "corn poppy", "prince of wales feathers", "stemless gentian", "artichoke", "sweet william",
    "carnation", "garden phlox", "love in the mist", "mexican aster", "alpine sea holly", "ruby-lipped cattleya",
    "cape flower", "great masterwort", "siam tulip", "lenten rose", "barbeton daisy", "daffodil", "sword lily",
    "poinsettia", "bolero deep blue", "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion",
    "petunia", "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura", "geranium",
    "orange dahlia", "pink-yellow dahlia?", "cautleya spicata", "japanese anemone", "black-eyed susan",
    "silverbush", "californian poppy", "osteospermum", "spring crocus", "bearded iris", "windflower", "tree poppy",
    "gazania", "azalea", "water lily", "rose", "thorn apple", "morning glory", "passion flower", "lotus",
    "toad lily", "anthurium", "frangipani", "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow",
    "magnolia", "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm", "ball moss", "foxglove",
    "bougainvillea", "camellia", "mallow", "mexican petunia", "bromelia", "blanket flower", "trumpet creeper",
    "blackberry lily",
)  # fmt: skip
"""The published names, in the order of the labels 1 to 102."""


def load(root: Path | None = None, *, label: str = "fine") -> Dataset:
    """Flowers 102: 8,189 photos of 102 flowers, 1,020 to train, 1,020 to validate and 6,149 to test (official split).

    Args:
        root: the folder of the official files, or one of these; the cache folder by default.
        label: ``fine``; there is no other.

    Raises:
        NoInput: a file is missing. DataError: it is damaged, or not the published one.
    """
    start = root if root is not None else cache_folder("flowers102")
    folder = start.parent if is_file_at(start) else start
    absent = [name for name in (LABEL_FILE, SPLIT_FILE) if not is_file_at(folder / name)]
    if absent or not is_folder_at(folder / IMAGE_FOLDER):
        raise NoInput(
            f"{readable(str(folder))}: holds no {absent[0] if absent else f'folder {IMAGE_FOLDER}'}. Give the folder "
            f"with {LABEL_FILE}, {SPLIT_FILE} and {IMAGE_FOLDER}/ of 102flowers.tgz, from {PUBLIC['flowers102'].get}."
        )
    counts = {"labels": ("labels", sum(PUBLISHED.values()))}
    labels = _numbers(folder / LABEL_FILE, counts)["labels"]
    counts = {name: (f"photos in {name}", PUBLISHED[split]) for split, name in SPLIT_ARRAYS.items()}
    arrays = _numbers(folder / SPLIT_FILE, counts)
    parts = {number: split for split, name in SPLIT_ARRAYS.items() for number in arrays[name]}
    return Dataset("flowers102", tuple(_items(folder, labels, parts))).at_level(label)


def _items(folder: Path, labels: list[int], parts: dict[int, str]) -> list[Item]:
    names = {number: f"{IMAGE_FOLDER}/image_{number:05d}.jpg" for number in parts}
    absent = sorted(name for name in names.values() if not is_file_at(folder / name))
    if absent:
        raise DataError(
            f"{readable(str(folder))}: the number of photos is {len(names) - len(absent):,}, and {len(names):,} were "
            f"published; {absent[0]} is missing. {_again('102flowers.tgz')}"
        )
    return [
        Item(name, name, folder / name, CLASSES[labels[number - 1] - 1], split=parts[number])
        for number, name in sorted(names.items())
    ]


def _numbers(path: Path, counts: Mapping[str, tuple[str, int]]) -> dict[str, list[int]]:
    """The numbers in some arrays of a published file; ``counts`` names the things in each array, and how many."""
    advice = _again(path.name)
    arrays = {name: np.asarray(array).reshape(-1) for name, array in read_mat(path, tuple(counts), advice).items()}
    for name, (things, published) in counts.items():
        require_count(path, things, len(arrays[name]), published, advice)
    require_md5(path, PUBLIC["flowers102"].md5[path.name], advice)
    return {name: array.tolist() for name, array in arrays.items()}


def _again(name: str) -> str:
    return f"Download {name} again from {PUBLIC['flowers102'].get}."
