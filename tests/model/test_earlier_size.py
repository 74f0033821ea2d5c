"""Models, recipes and stores of a time when lite0 read photos at 128 px and nothing recorded it but the identity."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from mixtura.catalog import Catalog
from mixtura.catalog.shots import shots
from mixtura.encoders.sizes import size_of
from mixtura.features.store import FeatureStore
from mixtura.model import bundle
from mixtura.recipe import load_recipe, load_stored_recipe, resolve
from mixtura.tasks import collection, evaluate, fit
from mixtura.tasks.predict import encoder_for, known_items, load

QUICK = {"head.family": "spherical", "head.shrinkage": 0.1, "head.feature_scale": "none"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("photos")
    for label, color in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (root / label).mkdir()
        for number in range(6):
            pixels = (np.array(color) + rng.normal(0, 30, (24, 24, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).resize((64, 64)).save(root / label / f"{number}.png")
    return root


def forget_size(shop):
    """Take the size out of a model and its recipe, as if an earlier mixtura had written them."""
    config, recipe = shop / bundle.CONFIG_FILE, shop / bundle.RECIPE_FILE
    plain = json.loads(config.read_text())
    plain["encoder"]["size"] = None
    config.write_text(json.dumps(plain))
    said = yaml.safe_load(recipe.read_text())
    assert said["encoder"].pop("size") == 128
    recipe.write_text(yaml.safe_dump(said))


@pytest.fixture(scope="module")
def earlier(photos, tmp_path_factory):
    """A model without a recorded size, and its evaluation before that was taken out."""
    shop = tmp_path_factory.mktemp("made") / "shop"
    made = fit.run(resolve({"data.root": photos, "output": shop, "encoder.size": 128} | QUICK))
    forget_size(shop)
    return shop, made.evaluation.metrics


def test_it_reads_photos_at_its_own_size(earlier, photos):
    shop, metrics = earlier
    model = bundle.from_pretrained(shop)
    assert model.encoder.size == 128
    assert encoder_for(model).identity == model.identity
    assert load(shop).predict([photos / "red" / "0.png"])[0].label == "red"
    assert evaluate.run(shop).metrics == metrics
    assert known_items(shop, model).identity == model.identity
    assert collection.open_collection(shop).build_encoder().identity == model.identity
    taken, problems = shots(encoder_for(model), [photos / "blue" / "0.png"])
    assert len(taken) == 1 and not problems


def test_its_recipe_means_the_same_size(earlier, tmp_path):
    recipe = earlier[0] / bundle.RECIPE_FILE
    assert load_stored_recipe(recipe).encoder.size == resolve({}, recipe).encoder.size == 128
    assert bundle.recipe_of(earlier[0]).encoder.size == 128
    copy = tmp_path / "mine.yaml"
    copy.write_text(recipe.read_text())
    assert load_recipe(copy).encoder.size is None  # a user's own recipe means what it says today


def test_another_encoder_keeps_its_own(tmp_path):
    (tmp_path / "recipe.yaml").write_text("encoder: {name: tiny, device: auto}\n")
    assert load_stored_recipe(tmp_path / "recipe.yaml").encoder.size is None


def test_a_recipe_of_features_leaves_the_encoder_to_them(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: {kind: features, root: x}\nencoder: {name: lite0, device: auto}\n")
    assert load_stored_recipe(tmp_path / "recipe.yaml").encoder.model_fields_set == {"device", "taps"}


def test_a_refit_keeps_its_features_and_renews_its_catalog(earlier, photos):
    shop, metrics = earlier
    Catalog.open(shop).close()
    features = {path.name: path.read_bytes() for path in (shop / "features").glob("*.parquet")}
    for name in features:
        (shop / "features" / name).unlink()
    (shop / "features" / "store.json").unlink()
    assert evaluate.run(shop).metrics == metrics  # read again, at the size of then
    assert {path.name: path.read_bytes() for path in (shop / "features").glob("*.parquet")} == features
    fit.run(resolve({"data.root": photos, "output": shop} | QUICK))
    assert {path.name: path.read_bytes() for path in (shop / "features").glob("*.parquet")} == features
    assert size_of(FeatureStore.open(shop / "features-224px").identity) == 224
    catalog = Catalog.open(shop)
    assert catalog.model.encoder.size == bundle.recipe_of(shop).encoder.size == 224
    assert catalog.known().identity == catalog.model.identity
    catalog.close()
