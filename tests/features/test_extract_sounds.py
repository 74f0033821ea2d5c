"""Extraction of sounds: of any length, in any batch, with what cannot be read listed."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mixtura.errors import BadSound
from mixtura.features.extract import extract
from mixtura.features.inputs import encoded, stacked
from mixtura.features.store import FeatureStore
from mixtura.identity import fingerprint


@dataclass(frozen=True)
class Item:
    id: str
    source: str
    label: str | None = "a"
    superlabel: str | None = None
    group: str | None = None
    split: str | None = None
    weight: float = 1.0


class Sounds:
    """Random sounds of the given lengths, in samples."""

    def __init__(self, lengths, broken=()):
        rng = np.random.default_rng(0)
        self.waves = [rng.standard_normal(length).astype(np.float32) for length in lengths]
        self.items = tuple(Item(f"i{i}", f"{i}.wav") for i in range(len(lengths)))
        self.broken = broken

    def digest(self, index):
        return hashlib.sha256(self.waves[index].tobytes()).hexdigest()

    def sound(self, index, rate):
        assert rate == 100
        if index in self.broken:
            raise BadSound(f"{index}.wav is cut off. Copy it again.", "truncated")
        return self.waves[index]


class Sums:
    """An encoder whose vector is the sum, the length, and how many were encoded together."""

    name = "sums"
    sample_rate = 100
    dimension = 3
    identity = {"name": "sums"}  # noqa: RUF012
    fingerprint = fingerprint(identity)
    versions = {"torch": "1"}  # noqa: RUF012

    def prepare(self, wave):
        return torch.from_numpy(wave)[None]

    def encode(self, batch):
        count, _, length = batch.shape
        rest = torch.tensor([float(length), float(count)]).expand(count, 2)
        return torch.cat([batch.sum((1, 2))[:, None], rest], dim=1)


@pytest.fixture
def sums_store(tmp_path):
    return FeatureStore.create(tmp_path / "store", Sums.identity, Sums.dimension, "float32", {"torch": "1"})


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_sounds_of_all_lengths_keep_their_order(sums_store, batch_size):
    data = Sounds([5, 9, 5, 7, 9, 5, 5])
    report = extract(Sums(), data, sums_store, batch_size=batch_size)
    assert (report.done, report.problems) == (7, ())
    found = sums_store.read()
    assert found.id == [item.id for item in data.items]
    np.testing.assert_allclose(found.embedding[:, 0], [wave.sum() for wave in data.waves], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.embedding[:, 1], [5, 9, 5, 7, 9, 5, 5])
    if batch_size == 64:
        np.testing.assert_array_equal(found.embedding[:, 2], [4, 2, 4, 1, 2, 4, 4])  # equal lengths went together


def test_sounds_that_cannot_be_read_are_listed(sums_store):
    report = extract(Sums(), Sounds([5, 6, 7], broken={1}), sums_store)
    assert report.done == 2
    assert [(problem.id, problem.reason) for problem in report.problems] == [("i1", "truncated")]
    assert sums_store.read().id == ["i0", "i2"]


def test_sounds_are_not_computed_twice(sums_store):
    data = Sounds([5, 6])
    extract(Sums(), data, sums_store)
    assert extract(Sums(), data, sums_store).skipped == 2


def test_stacked_batches_hold_every_place_once():
    batches = stacked([torch.full((1, length), float(i)) for i, length in enumerate([3, 2, 3, 1, 2])])
    assert [places for places, _ in batches] == [[0, 2], [1, 4], [3]]
    assert encoded(Sums(), batches)[:, 0].tolist() == [0.0, 2.0, 6.0, 3.0, 8.0]
    assert stacked([]) == []
