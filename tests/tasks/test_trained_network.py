"""One copy of a trained network in a folder; what belongs to one that is gone moves aside, or goes."""

import shutil

import pytest

import mixtura
from mixtura.catalog import Catalog
from mixtura.encoders.own import DESCRIPTION_FILE, WEIGHTS_FILE, read_files
from mixtura.errors import UsageError
from mixtura.features.store import HEADER_FILE
from mixtura.recipe import resolve
from mixtura.tasks import evaluate, train

SCRATCH = {"encoder.name": "cnn", "encoder.size": 16, "encoder.filters": 4, "train.epochs": 1, "train.batch_size": 8}
FROZEN = {"encoder.name": "tiny", "train.epochs": 2, "train.trainable": "all", "train.batch_size": 4}
FROZEN |= {"train.learning_rate": 0.02, "train.layer_decay": 1.0, "train.augment.views": []}
MORE = SCRATCH | {"train.epochs": 2}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, two_colors):
    return two_colors(tmp_path_factory.mktemp("network") / "photos", 12)


def trained(photos, output, keys, fresh=False):
    recipe = resolve({"data.root": photos, "output": output, "extract.workers": 0} | keys)
    return train.run(recipe, fresh).fit


@pytest.fixture(scope="module")
def first(photos):
    trained(photos, photos.parent / "shop", SCRATCH)
    return photos.parent / "shop"


@pytest.fixture
def shop(first, tmp_path):
    return shutil.copytree(first, tmp_path / "shop")


def networks(folder):
    """The folders that hold a trained network."""
    return {str(path.parent.relative_to(folder)) for path in folder.rglob(DESCRIPTION_FILE)}


def stores(folder):
    return {path.parent.name for path in folder.glob(f"*/{HEADER_FILE}")}


def test_a_network_that_is_used_is_in_the_model_alone(first, photos):
    assert networks(first) == {"."}
    before = read_files(first)
    trained(photos, first, SCRATCH)
    assert (networks(first), read_files(first), stores(first)) == ({"."}, before, {"features"})


def test_a_network_that_is_not_used_stays_in_its_run(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "compared", lambda *_: ("It is not better. The frozen encoder is kept.", False))
    shop = tmp_path / "shop"
    trained(photos, shop, FROZEN)
    assert networks(shop) == {"training/encoder"}
    assert mixtura.load(shop).model.encoder.name == "tiny"
    made, written = stores(shop), {path: path.stat().st_mtime_ns for path in shop.rglob("*.parquet")}
    assert len(made) == 2
    assert not [note for note in trained(photos, shop, FROZEN).notes if "removed" in note]
    trained(photos, shop, FROZEN | {"train.minutes": 1e-9})  # trains nothing, and leaves what is there
    assert {path: path.stat().st_mtime_ns for path in shop.rglob("*.parquet")} == written
    anyway = mixtura.fit(photos, tmp_path / "other", {"encoder.name": f"own:{shop / 'training' / 'encoder'}"})
    assert networks(anyway.bundle_path) == {"."}
    recipe = {"encoder.name": f"own:{shop / 'training' / 'encoder'}", "train.trainable": "all"}
    with pytest.raises(UsageError, match="part of the run"):
        trained(photos, shop, recipe, fresh=True)
    assert networks(shop) == {"training/encoder"}


def test_a_fresh_run_takes_the_place_of_the_earlier_network(shop, photos):
    before = read_files(shop)
    notes = trained(photos, shop, MORE, fresh=True).notes
    assert networks(shop) == {".", "training-1/encoder"}
    assert read_files(shop)[WEIGHTS_FILE] != before[WEIGHTS_FILE]
    assert read_files(shop / "training-1" / "encoder") == before
    assert len(stores(shop)) == 1
    assert any("not used any more were removed" in note and f"{shop / 'features'}." in note for note in notes)
    assert not (shop / "features").exists()
    assert mixtura.load(shop).predict([photos / "red" / "00.png"])[0].label in ("blue", "red")
    assert evaluate.run(shop).ids
    assert Catalog.open(shop).folder == shop


def test_a_fresh_run_that_fails_leaves_the_model_and_its_features(shop, photos):
    with pytest.raises(UsageError, match="too short"):
        trained(photos, shop, MORE | {"train.minutes": 1e-9}, fresh=True)
    assert networks(shop) == {".", "training-1/encoder"}
    assert stores(shop) == {"features"}
    assert Catalog.open(shop).folder == shop


def test_features_of_photos_that_are_gone_stay(shop, photos, tmp_path):
    fewer = shutil.copytree(photos, tmp_path / "photos")
    (fewer / "red" / "03.png").unlink()
    notes = trained(fewer, shop, MORE, fresh=True).notes
    assert len(stores(shop)) == 2
    assert not any("removed" in note for note in notes)


@pytest.mark.parametrize("verb", ["fit", "train"])
def test_a_model_without_a_network_moves_the_earlier_one_out(shop, photos, monkeypatch, verb):
    monkeypatch.setattr(train, "compared", lambda *_: ("It is not better. The frozen encoder is kept.", False))
    before = read_files(shop)
    if verb == "fit":
        notes = mixtura.fit(photos, shop, {"encoder.name": "tiny"}).notes
        place = "encoder-1"
    else:
        notes = trained(photos, shop, FROZEN, fresh=True).notes
        place = "training-1/encoder"
    assert networks(shop) - {"training/encoder"} == {place}
    assert read_files(shop / place) == before
    assert f"The trained network of the model that was here before is in {shop / place} now." in notes
    assert mixtura.load(shop).model.encoder.name == "tiny"
    assert not [note for note in mixtura.fit(photos, shop, {"encoder.name": "tiny"}).notes if "network" in note]
