"""Sounds the whole way: folder, features, model, answers; and encoders that do not fit the data."""

import numpy as np
import pytest
import soundfile
from PIL import Image

from mixtura.errors import UsageError
from mixtura.features.store import FeatureStore
from mixtura.pipeline import factory
from mixtura.pipeline.data_source import data_keys
from mixtura.recipe import resolve
from mixtura.tasks import extract as extraction
from mixtura.tasks import fit, predict

RATE = 16_000


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
    """Hums and hisses of 0.3 to 0.9 s, in folders by their name."""
    root = tmp_path_factory.mktemp("noises") / "noises"
    rng = np.random.default_rng(0)
    for label, hertz in (("hum", 120.0), ("hiss", 4000.0)):
        (root / label).mkdir(parents=True)
        for number in range(12):
            time = np.arange(rng.integers(3, 9) * RATE // 10) / RATE
            wave = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.8, 1.2) * time) + 0.02 * rng.standard_normal(
                len(time)
            )
            soundfile.write(root / label / f"{number}.wav", wave / 3, RATE)
    (root / "hum" / "broken.wav").write_text("no sound")
    return root


def recipe_for(data, output, **flags):
    return resolve(data_keys(str(data)) | {"output": output, "encoder.name": "logmel", "extract.workers": 1} | flags)


@pytest.fixture(scope="module")
def heard(noises, tmp_path_factory):
    """A model of them."""
    folder = tmp_path_factory.mktemp("model") / "model"
    return fit.run(recipe_for(noises, folder, **{"head.family": "diagonal"})), folder


def test_a_folder_of_sounds_becomes_a_model(heard):
    made, folder = heard
    assert made.evaluation.classes == ("hiss", "hum")
    assert [problem.reason for problem in made.problems] == ["not_a_sound"]
    identity = FeatureStore.open(folder / "features").identity
    assert (identity["name"], identity["clips"]) == ("logmel", "none")


def test_sounds_get_answers(heard, noises, tmp_path):
    _, folder = heard
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    paths = [noises / "hiss" / "1.wav", tmp_path / "a.png", noises / "hum" / "2.wav"]
    hiss, photo, hum = predict.run(folder, paths)
    assert (hiss.label, hum.label) == ("hiss", "hum")
    assert photo.reason == "not_a_sound"


def test_a_store_of_sounds_remembers_how_they_were_cut(noises, tmp_path):
    given = {"encoder.clips.seconds": 0.2, "encoder.clips.hop": 0.1, "encoder.normalize": True}
    recipe = recipe_for(noises, None, **given, **{"extract.store": tmp_path / "store"})
    assert extraction.run(recipe).done == 24
    identity = FeatureStore.open(tmp_path / "store").identity
    assert (identity["clips"], identity["normalization"]) == ("mean of clips of 0.2 s every 0.1 s", "unit length")
    section = factory.section_of(identity, resolve({}).encoder)
    assert factory.encoder_of(section).identity == identity


def test_sounds_for_an_encoder_of_photos(noises, tmp_path):
    with pytest.raises(UsageError, match=r"noises holds sounds, and the encoder 'tiny' takes photos.*--encoder logmel"):
        extraction.run(recipe_for(noises, tmp_path, **{"encoder.name": "tiny"}))
    assert not (tmp_path / "features").exists()


def test_photos_for_an_encoder_of_sounds(tmp_path):
    with pytest.raises(UsageError, match=r"holds photos, and the encoder 'logmel' takes sounds.*--encoder lite0"):
        extraction.run(recipe_for("digits", tmp_path))


def test_clips_for_an_encoder_of_photos():
    with pytest.raises(UsageError, match=r"'tiny' has no option 'clips'. Leave out encoder.clips"):
        factory.encoder_of(resolve({"encoder.name": "tiny", "encoder.clips.how": "mean"}).encoder)


def test_what_a_folder_holds_is_seen(noises, tmp_path):
    assert data_keys(str(noises))["data.kind"] == "audio"
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").touch()
    assert data_keys(str(tmp_path))["data.kind"] == "esc50"
    (tmp_path / "photos" / "pin").mkdir(parents=True)
    assert data_keys(str(tmp_path / "photos"))["data.kind"] == "folder"
    (tmp_path / "photos" / "pin" / "1.JPG").touch()
    assert data_keys(str(tmp_path / "photos"))["data.kind"] == "folder"
