"""A data set and an encoder in memory, with everything that can go wrong on request."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from mixtura.errors import BadImage
from mixtura.features.records import Rows
from mixtura.features.store import FeatureStore
from mixtura.identity import fingerprint


@dataclass(frozen=True)
class Item:
    id: str
    source: str
    label: str | None
    superlabel: str | None = None
    group: str | None = None
    split: str | None = None
    weight: float = 1.0


class Photos:
    """``count`` random photos; ``broken`` maps an index to the error that reading it raises."""

    def __init__(self, count, seed=0, broken=None):
        self.pixels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        self.items = tuple(Item(f"i{i}", f"{i}.png", "ab"[i % 2]) for i in range(count))
        self.broken = broken or {}
        self.read = []

    def change(self, index, **facts):
        self.items = tuple(replace(item, **facts) if i == index else item for i, item in enumerate(self.items))

    def digest(self, index):
        return hashlib.sha256(self.pixels[index].tobytes()).hexdigest()

    def image(self, index, *, draft=None):
        assert draft == 16
        self.read.append(index)
        if index in self.broken:
            raise self.broken[index]
        return Image.fromarray(self.pixels[index])


class Means:
    """An encoder whose vector is the mean of each channel and one more number; counts what it encodes."""

    name = "means"
    draft = 16
    dimension = 4
    identity = {"name": "means", "weights": "none"}  # noqa: RUF012
    fingerprint = fingerprint(identity)
    versions = {"torch": "1"}  # noqa: RUF012

    def __init__(self, poison=None):
        self.encoded = 0
        self.poison = poison

    def prepare(self, image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def encode(self, batch):
        self.encoded += len(batch)
        mean = batch.float().mean((2, 3))
        found = torch.cat([mean, torch.full((len(batch), 1), float(len(batch)))], dim=1)
        return found if self.poison is None else found.fill_(self.poison)


@pytest.fixture
def photos():
    return Photos


@pytest.fixture
def means():
    return Means


@pytest.fixture
def bad_image():
    return BadImage("3.png is cut off. Copy the file again.", reason="truncated")


@pytest.fixture
def store(tmp_path):
    return FeatureStore.create(tmp_path / "store", Means.identity, Means.dimension, "float32", {"torch": "1"})


@pytest.fixture
def make_rows():
    def make(ids, dimension=4, seed=0, **changes):
        count = len(ids)
        columns = {
            "embedding": np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32),
            "id": list(ids),
            "source": [f"{name}.jpg" for name in ids],
            "label": ["x"] * count,
            "superlabel": [None] * count,
            "group": [None] * count,
            "split": ["train"] * count,
            "weight": np.ones(count),
            "sha256": [f"{seed:064x}"] * count,
        }
        return Rows(**(columns | changes))

    return make
