"""Each encoder has a store of its own, and finds it again."""

import numpy as np
import pytest
from PIL import Image

from mixtura.encoders.sizes import size_of
from mixtura.errors import FingerprintMismatch, UsageError
from mixtura.features.store import FeatureStore
from mixtura.model import bundle
from mixtura.pipeline import stores, training_set
from mixtura.recipe import load_stored_recipe, resolve
from mixtura.sections import EncoderSection
from mixtura.sweeps import grid
from mixtura.tasks import collection, evaluate, extract, fit
from mixtura.tasks.predict import encoder_for, known_items


def identity(name="lite0", size=224, weights="w"):
    return {"name": name, "size": f"{size} px", "weights": weights}


def put(place, identity):
    FeatureStore.create(place, identity, 2)
    return place


def test_a_free_place_is_taken_as_it_is(tmp_path):
    assert stores.place_for(tmp_path / "features", identity()) == tmp_path / "features"


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (identity(), "features-224px"),
        (identity("timm:resnet18.a1_in1k", 160), "features-timm-resnet18.a1_in1k-160px"),
        (identity("hf:../nets/vit b"), "features-hf-..-nets-vit-b-224px"),
        ({"name": "logmel"}, "features-logmel"),
        (identity("mine.nets:Net", 64), "features-mine.nets-Net-64px"),
        (identity("hf:" + "x" * 300), f"features-{'x' * 60}-224px"),
    ],
)
def test_another_encoder_goes_beside(tmp_path, other, name):
    base = put(tmp_path / "features", identity(size=128))
    assert stores.place_for(base, other) == tmp_path / name
    put(tmp_path / name, other)
    assert stores.place_for(base, other) == tmp_path / name
    assert stores.place_for(base, identity(size=128)) == base


def test_encoders_of_one_name_and_size_are_numbered(tmp_path):
    base = put(tmp_path / "features", identity(size=128))
    made = [put(stores.place_for(base, identity(weights=w)), identity(weights=w)) for w in "abc"]
    assert [place.name for place in made] == ["features-224px", "features-224px-2", "features-224px-3"]
    assert [stores.place_for(base, identity(weights=w)) for w in "abc"] == made


def test_a_store_beside_is_found_after_the_first_is_deleted(tmp_path):
    base = tmp_path / "features"
    beside = put(tmp_path / "features-224px", identity())
    assert stores.place_for(base, identity()) == beside
    assert stores.place_for(base, identity(size=96)) == base


def test_features_without_any_name_have_a_place(tmp_path):
    base = put(tmp_path / "features", identity())
    assert stores.place_for(base, {}).name.startswith("features-") and stores.place_for(base, {}) != base


@pytest.mark.parametrize(
    ("told", "size"),
    [("224 px", 224), ("96 x 96 px", 96), ("96 x 64 px", None), ("", None), ("96", None), ("x 96 px", None)],
)
def test_the_size_of_an_identity(told, size):
    assert size_of({"name": "timm:x", "size": told}) == size
    assert size_of({"name": "lite0", "size": told}) == (size or 128)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for label, color in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = (np.array(color) + rng.normal(0, 30, (40, 40, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def recipe(photos, **flags):
    given = {"data.root": photos, "encoder.name": "tiny", "output": photos.parent / "shop"}
    return resolve(given | {key.replace("__", "."): value for key, value in flags.items()})


def test_a_refit_at_another_size_keeps_the_features_of_the_first(photos):
    shop, said = photos.parent / "shop", []
    fit.run(recipe(photos), said.append)
    assert not any(progress.message for progress in said)
    before = sorted((path.name, path.read_bytes()) for path in (shop / "features").iterdir() if path.is_file())
    made = fit.run(recipe(photos, encoder__size=48), said.append)
    after = sorted((path.name, path.read_bytes()) for path in (shop / "features").iterdir() if path.is_file())
    assert after == before
    assert [progress.message for progress in said if progress.message] == [
        f"{shop}/features holds features of tiny at 32 px and is kept; the new ones go to {shop}/features-tiny-48px."
    ]
    assert size_of(FeatureStore.open(shop / "features-tiny-48px").identity) == 48
    model = bundle.from_pretrained(shop)
    assert model.encoder.size == bundle.recipe_of(shop).encoder.size == 48
    assert evaluate.run(shop).metrics == made.evaluation.metrics
    assert known_items(shop, model).identity == model.identity == encoder_for(model).identity
    assert collection.open_collection(shop).features.identity == model.identity
    told = len(said)
    fit.run(recipe(photos, encoder__size=48), said.append)  # nothing is computed again, and nothing is said
    assert all(progress.encoded == 0 and not progress.message for progress in said[told:])


def test_a_model_whose_features_are_gone_reads_its_photos_at_its_size(photos):
    shop = photos.parent / "shop"
    fit.run(recipe(photos))
    made = fit.run(recipe(photos, encoder__size=48))
    for path in (shop / "features-tiny-48px").iterdir():
        path.unlink()
    assert evaluate.run(shop).metrics == made.evaluation.metrics
    assert len(FeatureStore.open(shop / "features").read()) == 16


def test_other_data_is_read_again_for_a_model_of_another_size(photos):
    shop = photos.parent / "shop"
    other = recipe(photos).data
    for size in (32, 48):
        fit.run(recipe(photos, encoder__size=size))
        evaluate.run(shop, other)
    found = {path.name: size_of(FeatureStore.open(path).identity) for path in shop.glob("features-other*")}
    assert found == {"features-other": 32, "features-other-tiny-48px": 48}


def test_a_store_that_is_named_must_fit(photos):
    named = photos.parent / "named"
    extract.run(recipe(photos, extract__store=named))
    with pytest.raises(FingerprintMismatch, match="size is '32 px' here and '48 px' there"):
        fit.run(recipe(photos, extract__store=named, encoder__size=48))


def test_the_size_is_written_out(photos):
    fit.run(recipe(photos))
    shop = photos.parent / "shop"
    assert "size: 32" in (shop / "recipe.yaml").read_text()
    assert load_stored_recipe(shop / "recipe.yaml").encoder.size == bundle.from_pretrained(shop).encoder.size == 32
    fit.run(resolve({"data.kind": "features", "data.root": shop / "features", "output": photos.parent / "second"}))
    again = load_stored_recipe(photos.parent / "second" / "recipe.yaml")
    assert (again.encoder.name, again.encoder.size) == ("tiny", 32)
    fit.run(resolve({}, photos.parent / "second" / "recipe.yaml"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"encoder.size": 48}, r"size is 32 there and 48 here. Leave out --size or --fast"),
        ({"encoder.name": "lite0"}, r"name is 'tiny' there and 'lite0' here. Leave out --encoder"),
        ({"encoder.weights": "{weights}"}, r"weights is '\w+' here and '\w+' there. Leave out --weights"),
    ],
)
def test_an_encoder_that_does_not_fit_a_store_is_told(photos, given, said):
    from safetensors.torch import save_file

    from mixtura.encoders.tiny import Tiny

    store, weights = photos.parent / "store", photos.parent / "w.safetensors"
    extract.run(recipe(photos, extract__store=store))
    save_file(Tiny(seed=7).network().state_dict(), weights)
    keys = {key: str(value).format(weights=weights) for key, value in given.items()}
    asked = resolve(keys | {"data.kind": "features", "data.root": store, "output": photos.parent / "shop"})
    with pytest.raises(UsageError, match=said):
        fit.run(asked)
    with pytest.raises(UsageError, match=said):
        fit.fit(asked)
    assert not (photos.parent / "shop" / "config.json").exists()


def test_an_encoder_that_fits_a_store_is_taken(photos):
    store = photos.parent / "store"
    extract.run(recipe(photos, extract__store=store))
    given = {"encoder.name": "tiny", "encoder.size": 32, "encoder.device": "cpu"}
    features = {"data.kind": "features", "data.root": store, "output": photos.parent}
    gathered = training_set.gather(resolve(features | given))
    assert gathered.encoder == EncoderSection(name="tiny", size=32, taps="none", device="cpu")
    assert training_set.gather(resolve(features)).encoder.size == 32


def test_a_sweep_writes_the_size_out(photos):
    grid.run(recipe(photos, sweep__heads=["spherical"], sweep__solvers=["closed"], sweep__n_seeds=1))
    assert load_stored_recipe(photos.parent / "shop" / "recipe.yaml").encoder.size == 32
