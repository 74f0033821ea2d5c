"""Makes the demo's photos: a fixed, balanced draw from Fashion-MNIST's own training and test parts.

    python benchmarks/make_demo_data.py /usr/share/datasets/fashion-mnist

The folder is the one of the Debian package ``dataset-fashion-mnist``. The result is the same file, byte for byte,
on every machine with the same zlib; it is checked in at src/mixtura/datasets/demo_fashion.
"""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from mixtura.datasets.idx import FASHION_MNIST, load_fashion_mnist
from mixtura.datasets.items import Dataset

SEED = 20
PER_ARTICLE = {"train": 130, "test": 70}
TARGET = Path(__file__).parents[1] / "src/mixtura/datasets/demo_fashion/demo_fashion.npz"


def draw(dataset: Dataset, rng: np.random.Generator) -> list[int]:
    """Indices, shuffled, of the wanted number of items of each article and part."""
    chosen: list[int] = []
    for split, count in PER_ARTICLE.items():
        for label in FASHION_MNIST.classes:
            rows = [i for i, item in enumerate(dataset.items) if (item.split, item.label) == (split, label)]
            chosen += rng.choice(rows, count, replace=False).tolist()
    return rng.permutation(chosen).tolist()


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz with fixed dates, so that the same arrays give the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED, 9)


def main() -> None:
    dataset = load_fashion_mnist(Path(sys.argv[1]))
    items = [dataset.items[i] for i in draw(dataset, np.random.default_rng(SEED))]
    arrays = {
        "image": np.stack([item.payload for item in items]),
        "y": np.array([FASHION_MNIST.classes.index(item.label) for item in items], np.uint8),
        "classes": np.array(FASHION_MNIST.classes),
        "split": np.array([item.split for item in items]),
    }
    write(TARGET, arrays)
    print(f"{TARGET}: {len(items)} photos, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
