"""What a long extraction says: what is left, the time of one, the time of all, and what --fast would save."""

import time
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest

from mixtura.datasets.items import Dataset, Item
from mixtura.encoders.tiny import Tiny
from mixtura.features.extract import Progress, extract
from mixtura.features.store import FeatureStore
from mixtura.pipeline import cost
from mixtura.pipeline.cost import CostWatch
from mixtura.sections import EncoderSection


def watched(steps, total=10_000):
    """Messages of a run; each step is (seconds, encoded, skipped)."""
    said = []
    watch = CostWatch(said.append, lambda left, each: f"{left} {each:.3f}")
    for seconds, encoded, skipped in steps:
        done = encoded + skipped
        watch(Progress(done, total, seconds, 1.0, 1.0, encoded, total - done))
    assert [progress.done for progress in said] == [encoded + skipped for _, encoded, skipped in steps]
    return [progress.message for progress in said if progress.message]


def test_a_long_run_is_told_once_and_the_first_batch_does_not_count():
    steps = [(2.0, 100, 0), (2.5, 150, 0), (3.0, 200, 0), (4.0, 300, 0), (5.0, 400, 0)]
    assert watched(steps) == ["9800 0.010"]


def test_a_batch_that_takes_long_is_measured_alone():
    assert watched([(8.0, 32, 0), (16.0, 64, 0)]) == ["9968 0.250"]


def test_a_short_run_says_nothing():
    steps = [(float(second), 1000 * second, 0) for second in range(1, 10)]
    assert watched(steps) == []
    assert watched(steps, total=100_000) != []


def test_the_time_of_skipped_items_does_not_count():
    steps = [(20.0, 0, 5000), (21.0, 100, 5000), (22.0, 200, 5000), (23.0, 300, 5000), (24.0, 400, 5000)]
    assert watched(steps) == ["4700 0.010"]


def test_what_is_left_is_what_the_store_lacks(tmp_path):
    rng = np.random.default_rng(0)
    items = tuple(Item(f"i{n}", f"{n}", rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), "a") for n in range(30))
    whole, encoder, seen = Dataset("set", items), Tiny(), []
    store = FeatureStore.create(tmp_path / "store", encoder.identity, encoder.dimension)
    extract(encoder, whole.subset(range(10, 30)), store)
    extract(encoder, whole, FeatureStore.open(store.path), batch_size=4, progress=seen.append)
    assert [progress.left for progress in seen] == [6, 2, 0, 0, 0, 0, 0, 0]
    assert [progress.encoded for progress in seen] == [4, 8, 10, 10, 10, 10, 10, 10]
    assert all(before.done < after.done for before, after in pairwise(seen)) and seen[-1].done == 30


class Slow(Tiny):
    """Takes a time in proportion to its pixels."""

    def encode(self, batch):
        time.sleep(len(batch) * (self.size / 256) ** 2 / 200)
        return super().encode(batch)


@pytest.fixture
def photos():
    rng = np.random.default_rng(0)
    items = [Item(f"i{n}", f"{n}", rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), "a") for n in range(40)]
    return Dataset("set", tuple(items))


@pytest.fixture
def slow(monkeypatch, photos):
    monkeypatch.setattr(cost.factory, "encoder_of", lambda section: Slow(section.size))
    return lambda size: cost.sentence(Slow(size), EncoderSection(name="tiny"), photos, 12_000, 0.0123)


def test_the_sentence_has_right_units_and_a_measured_gain(slow):
    said = slow(256)
    assert said.startswith(
        "12,000 photos left at 256 px, 0.012 s each: 2 min 28 s in all. --fast reads at 128 px, about "
    )
    gain = float(said.partition("about ")[2].partition(" times")[0])
    assert 1.5 < gain < 10  # a quarter of the pixels; other work on the machine blurs it


@pytest.mark.parametrize("size", [128, 64])
def test_nothing_is_promised_at_a_small_size(slow, size):
    assert slow(size) == f"12,000 photos left at {size} px, 0.012 s each: 2 min 28 s in all."


def test_a_network_of_one_size_promises_nothing(photos, monkeypatch):
    def refuse(section):
        raise cost.MixturaError("cannot take 128 px")

    monkeypatch.setattr(cost.factory, "encoder_of", refuse)
    assert cost.speedup(Slow(256), EncoderSection(), photos, 4) == 1


class Heard:
    """The protocol of an encoder of sounds, as far as a sentence needs it."""

    name, dimension, sample_rate = "heard", 1, 16_000
    identity: ClassVar = {"name": "heard"}
    versions: ClassVar = {}
    fingerprint = ""

    def prepare(self, wave): ...
    def encode(self, batch): ...


def test_sounds_have_no_size(photos):
    said = cost.sentence(Heard(), EncoderSection(), photos, 1, 75.0)
    assert said == "1 sound left, 75 s each: 1 min 15 s in all."
