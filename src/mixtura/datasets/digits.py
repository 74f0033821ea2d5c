"""Digits: 1,797 handwritten digits of 8 x 8 pixels, part of scikit-learn (BSD)."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from mixtura.datasets.items import Dataset, Item


def load(root: Path | None = None) -> Dataset:
    """Digits: 1,797 handwritten digits of 10 classes, 17 gray levels scaled to 0 to 255; ``root`` is not used."""
    flat, target = load_digits(return_X_y=True)
    pixels = (np.asarray(flat).reshape(-1, 8, 8) * 16).clip(0, 255).astype(np.uint8)
    names = (f"digits/{i:04d}" for i in range(len(pixels)))
    rows = zip(names, pixels, np.asarray(target).tolist(), strict=True)
    return Dataset("digits", tuple(Item(name, name, image, str(label)) for name, image, label in rows))
