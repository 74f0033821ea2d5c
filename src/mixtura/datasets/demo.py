"""The photos of ``mixtura demo``: 2,000 of Fashion-MNIST, shipped with the package (MIT, see LICENSE beside them)."""

from importlib.resources import as_file, files
from pathlib import Path

from mixtura.datasets import npz
from mixtura.datasets.items import Dataset


def load(root: Path | None = None) -> Dataset:
    """Fashion-MNIST sample: 130 training and 70 test photos of each of the 10 articles; ``root`` is not used."""
    packed = files("mixtura.datasets") / "demo_fashion" / "demo_fashion.npz"
    with as_file(packed) as path:
        return npz.load(root or path)
