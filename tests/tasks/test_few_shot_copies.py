"""Episodes that learn from augmented copies of their support photos."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mixtura.cli.app import run
from mixtura.datasets.episodes import Design
from mixtura.errors import NoInput, UsageError
from mixtura.features.store import FeatureStore
from mixtura.interfaces import Encoder
from mixtura.pipeline import factory
from mixtura.sections import DataSection, EncoderSection
from mixtura.tasks.few_shot_copies import _drawing, copy_of, with_copies
from mixtura.tasks.fewshot import drawn, of_features

CLASSES, EACH, SIDE = 4, 6, 16


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Small photos of four classes, and their features."""
    root, rng = tmp_path_factory.mktemp("copies"), np.random.default_rng(0)
    for c in range(CLASSES):
        (root / "photos" / f"c{c}").mkdir(parents=True)
        pattern = rng.integers(0, 200, (SIDE, SIDE, 3))
        for number in range(EACH):
            noisy = (pattern + rng.integers(0, 55, pattern.shape)).astype(np.uint8)
            Image.fromarray(noisy).save(root / "photos" / f"c{c}" / f"{number}.png")
    words = ["extract", str(root / "photos"), "-o", str(root / "store"), "--encoder", "pixels", "--size", "8"]
    assert run(words) == 0
    return root


@pytest.fixture
def material(place):
    made = of_features(FeatureStore.open(place / "store").read(), "0", 0)
    return replace(made, photos=DataSection(root=place / "photos"))


def test_the_support_is_the_copies_of_the_photos_as_the_encoder_sees_them(material, place):
    listed = drawn(material, "nway", Design(3, 2, 2, 4, 5))
    located = listed.located(material.novel.id, material.novel.label)
    read, episodes = with_copies(material, located, 3)
    encoder = factory.encoder_of(EncoderSection(name="pixels", size=8))
    assert isinstance(encoder, Encoder)
    for before, after in zip(located.episodes, episodes.episodes, strict=True):
        np.testing.assert_array_equal(after.query, before.query)
        assert after.support.shape == (3, 6)
        for row, copies in zip(before.support.ravel(), after.support.reshape(-1, 3), strict=True):
            assert {read.novel.label[one] for one in copies} == {material.novel.label[row]}
            id = material.novel.id[row]
            photo = Image.open(place / "photos" / id).convert("RGB")
            cut = [copy_of(photo, _drawing(5, number, id)) for number in range(3)]
            expected = encoder.encode(torch.stack([encoder.prepare(one) for one in cut]))
            np.testing.assert_allclose(read.novel.embedding[copies], expected, atol=1e-3)  # float16 in the store
    np.testing.assert_array_equal(read.novel.embedding[: len(material.novel)], material.novel.embedding)


def test_a_copy_of_a_small_photo_is_another_photo_of_its_size():
    photo = Image.fromarray(np.arange(32 * 24 * 3, dtype=np.uint32).astype(np.uint8).reshape(24, 32, 3))
    cut = [np.asarray(copy_of(photo, np.random.default_rng(seed))) for seed in range(40)]
    assert {one.shape for one in cut} == {(24, 32, 3)}
    different = {one.tobytes() for one in cut} - {np.asarray(photo).tobytes()}
    assert len(different) > 20  # two mirrors alone would give two


def test_features_and_lost_photos_are_refused(material, tmp_path):
    located = drawn(material, "nway", Design(3, 1, 2, 2, 0)).located(material.novel.id, material.novel.label)
    with pytest.raises(UsageError, match=r"--copies needs the photos, and these are features"):
        with_copies(replace(material, photos=None), located, 2)
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    with pytest.raises(NoInput, match=r"is gone, and --copies needs it"):
        with_copies(replace(material, photos=DataSection(root=tmp_path)), located, 2)


def test_the_command_takes_copies_of_photos_and_gives_the_same_again(place, tmp_path, capsys):
    sizes = ["--way", "3", "--query", "3", "--episodes", "10", "--base", "0", "--classifier", "nearest,knn", "--json"]
    photos = ["fewshot", str(place / "photos"), "--encoder", "pixels", "--size", "8", *sizes]
    found = []
    for folder, copies in (("a", 4), ("b", 4), ("c", 0)):
        assert run([*photos, "-o", str(tmp_path / folder), "--copies", str(copies)]) == 0
        found.append(json.loads(capsys.readouterr().out))
        assert (
            found[-1]["facts"]["copies"] == copies and found[-1]["shot"] == 1 and found[-1]["items"] == CLASSES * EACH
        )
    assert [one["mean"] for one in found[0]["results"]] == [one["mean"] for one in found[1]["results"]]
    assert run(["fewshot", str(place / "store"), *sizes, "--copies", "2"]) == 2
    assert "--copies needs the photos" in capsys.readouterr().err
