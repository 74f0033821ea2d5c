"""Taps from the recipe to a decision: in stores, models and catalogs, and where an earlier one has none."""

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

import mixtura
from mixtura.catalog import Catalog
from mixtura.cli.app import run
from mixtura.encoders.tiny import Tiny
from mixtura.errors import BundleError, FingerprintMismatch, RecipeError, UsageError
from mixtura.features.store import FeatureStore
from mixtura.identity import blocks_of
from mixtura.model import bundle
from mixtura.onnx import runner
from mixtura.pipeline import factory
from mixtura.recipe import load_recipe, resolve
from mixtura.sections import EncoderSection
from mixtura.tasks import evaluate, export

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210)}
LAST_OF_TINY = 32
ALL_OF_TINY = LAST_OF_TINY + 2 * (8 + 16)
LITE0 = ("--encoder", "lite0", "--size", "32")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight noisy photos of each of three colors, and beside them one of a fourth."""
    folder, rng = tmp_path_factory.mktemp("taps") / "photos", np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for number in range(8):
            noise = rng.normal(color, 25, (40, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / name / f"{number}.png")
    Image.fromarray(rng.normal((240, 130, 160), 25, (40, 40, 3)).clip(0, 255).astype(np.uint8)).save(
        folder.parent / "rose.png"
    )
    return folder


@pytest.fixture(scope="module")
def shop(photos):
    """A model of tiny with both of its layers tapped."""
    folder = photos.parent / "shop"
    mixtura.fit(str(photos), folder, {"encoder.name": "tiny", "encoder.taps": "last-2"})
    return folder


@pytest.fixture(scope="module")
def plain(photos):
    """A model of tiny, its files as a version without taps has written them."""
    folder = photos.parent / "plain"
    mixtura.fit(str(photos), folder, {"encoder.name": "tiny"})
    config = json.loads((folder / "config.json").read_text())
    assert config["encoder"].pop("taps") == "none"
    (folder / "config.json").write_text(json.dumps(config))
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert recipe["encoder"].pop("taps") == "none"
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def said(capsys, *words):
    """The exit code of a command, and what it prints, in one line."""
    code = run([str(word) for word in words])
    captured = capsys.readouterr()
    return code, " ".join((captured.out + captured.err).split())


def test_a_model_keeps_the_names_of_its_layers_and_predicts_with_them(shop, photos):
    model = bundle.from_pretrained(shop)
    assert (model.dimension, model.encoder.taps) == (ALL_OF_TINY, "bend,mix")
    assert json.loads((shop / "config.json").read_text())["encoder"]["taps"] == "bend,mix"
    paths = [photos / name / "3.png" for name in COLORS]
    assert [decision.label for decision in mixtura.load(shop).predict(paths)] == list(COLORS)


def test_a_catalog_enrolls_with_the_taps_of_its_model(shop, photos, tmp_path, capsys):
    folder = shutil.copytree(shop, tmp_path / "shop")
    code, text = said(capsys, "enroll", folder, "rose", photos.parent / "rose.png")
    assert code == 0, text
    assert Catalog.open(folder).known().embedding.shape[1] == ALL_OF_TINY


def test_an_export_answers_with_the_taps_of_its_model(shop, photos, tmp_path):
    export.run(shop, tmp_path / "onnx")
    paths = sorted(photos.glob("*/*.png"))
    found, wanted = runner.Runner(tmp_path / "onnx").photos(paths), mixtura.load(shop).predict(paths)
    assert [answer["label"] for answer in found] == [decision.label for decision in wanted]
    for part in ("probability", "typicality"):
        expected = [getattr(decision, part) for decision in wanted]
        np.testing.assert_allclose([answer[part] for answer in found], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("in_catalog", [False, True])
def test_a_model_from_before_taps_has_none(plain, photos, tmp_path, capsys, in_catalog):
    folder = shutil.copytree(plain, tmp_path / "shop")
    if in_catalog:
        assert said(capsys, "enroll", folder, "rose", photos.parent / "rose.png")[0] == 0
    predictor = mixtura.load(folder)
    assert predictor.model.encoder.taps == "none" == bundle.recipe_of(folder).encoder.taps
    paths = [photos / name / "3.png" for name in ("green", "blue")]
    assert [decision.label for decision in predictor.predict(paths)] == ["green", "blue"]


def test_an_identity_with_damaged_taps_is_said(shop, tmp_path):
    folder = shutil.copytree(shop, tmp_path / "shop")
    config = json.loads((folder / "config.json").read_text())
    config["identity"]["taps"] = "last 32, bend 8"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=r"The taps of encoder 'tiny' are damaged: 'bend 8'"):
        bundle.from_pretrained(folder)


def test_a_store_without_taps_is_used_as_it_is_unless_taps_are_asked_for(photos, tmp_path, capsys):
    """As after an upgrade, or an extraction that an upgrade has interrupted."""
    store, shop = tmp_path / "shop" / "features", tmp_path / "shop"
    part = tmp_path / "photos"
    for name in COLORS:
        shutil.copytree(photos / name, part / name, ignore=lambda _, files: [f for f in files if f > "5"])
    assert said(capsys, "extract", part, "-o", store, *LITE0, "--taps", "none")[0] == 0
    code, text = said(capsys, "extract", photos, "-o", store, *LITE0, "--taps", "last-2")
    assert code == 65 and "taps is '' here and 'last 1280, blocks.5 mean 192" in text
    code, text = said(capsys, "extract", photos, "-o", store, *LITE0)
    assert code == 0 and "holds features without taps and is used as it is" in text
    code, text = said(capsys, "fit", photos, "-o", shop, *LITE0, "--set", f"extract.store={store}")
    assert code == 0 and text.count("holds features without taps and is used as it is") == 1
    model = bundle.from_pretrained(shop)
    assert (model.dimension, model.encoder.taps, "taps" in model.identity) == (1280, "none", False)
    assert mixtura.load(shop).predict([photos / "red" / "0.png"])[0].label == "red"
    shutil.rmtree(store)  # evaluation extracts again, without taps
    assert evaluate.run(shop).metrics["top1"] > 0.5


def test_a_store_of_another_encoder_is_refused_as_ever(photos, tmp_path, capsys):
    store = tmp_path / "features"
    assert said(capsys, "extract", photos, "-o", store, "--encoder", "tiny")[0] == 0
    code, text = said(capsys, "extract", photos, "-o", store, *LITE0)
    assert code == 65 and "name is 'tiny' here and 'lite0' there" in text
    assert said(capsys, "extract", photos, "-o", store, "--encoder", "tiny", "--size", "48")[0] == 65


def test_a_store_with_taps_is_not_taken_for_one_without(photos, tmp_path, capsys):
    store = tmp_path / "features"
    assert said(capsys, "extract", photos, "-o", store, "--encoder", "tiny", "--taps", "last-1")[0] == 0
    for taps in ("none", "auto", "last-2"):
        code, text = said(capsys, "extract", photos, "-o", store, "--encoder", "tiny", "--taps", taps)
        assert code == 65 and "taps is 'last 32, mix mean 16, mix std 16' here" in text


def test_a_model_of_a_store_has_the_taps_of_the_store(shop, photos, tmp_path, capsys):
    store = shop / "features"
    code, text = said(capsys, "fit", store, "-o", tmp_path / "other")
    assert code == 0, text
    assert mixtura.load(tmp_path / "other").predict([photos / "red" / "0.png"])[0].label == "red"
    code, text = said(capsys, "fit", store, "-o", tmp_path / "third", "--taps", "last-1")
    assert code == 2 and "These features of 'tiny' have the taps 'bend,mix', and encoder.taps is 'last-1'." in text
    for same in ("last-2", "mix,bend"):
        code, text = said(capsys, "fit", store, "-o", tmp_path / same, "--taps", same)
        assert code == 0, text
    identity = FeatureStore.open(store).identity
    assert blocks_of(identity)[-1].stop == FeatureStore.open(store).dimension == ALL_OF_TINY
    assert factory.encoder_of(factory.section_of(identity, EncoderSection())).identity == identity


def test_without_taps_a_model_of_a_store_reads_the_last_layer(shop, photos, tmp_path, capsys):
    code, text = said(capsys, "fit", shop / "features", "-o", tmp_path / "last", "--taps", "none")
    assert code == 0, text
    code, text = said(capsys, "fit", "-r", tmp_path / "last" / "recipe.yaml", "-o", tmp_path / "again")
    assert code == 0, text
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "last" / "model.safetensors"
    ).read_bytes()
    model = mixtura.load(tmp_path / "last")
    assert [layer.partition(",")[0] for layer in model.model.facts["layers"]] == ["last"]
    assert model.predict([photos / "red" / "0.png"])[0].label == "red"


def test_a_sweep_reads_the_last_layer_and_fit_makes_its_model_again(shop, tmp_path, capsys):
    flags = ("--heads", "tied", "--solver", "closed", "--explained-variance", "0.9", "--n-seeds", "1")
    code, text = said(capsys, "sweep", shop / "features", "-o", tmp_path / "sweep", *flags, "--save", tmp_path / "best")
    assert code == 0, text
    assert bundle.recipe_of(tmp_path / "best").projection[0].parts == ((0, LAST_OF_TINY, 1.0, False),)
    code, text = said(capsys, "fit", "-r", tmp_path / "best" / "recipe.yaml", "-o", tmp_path / "again")
    assert code == 0, text
    one, other = (bundle.from_pretrained(tmp_path / name).mixture.mean for name in ("best", "again"))
    assert one.equal(other)


@pytest.mark.parametrize(
    ("encoder", "taps", "words"),
    [
        ("tiny", "last-0", "encoder.taps 'last-0' does not fit: tiny has 2 stages. Give last-1 to last-2."),
        ("tiny", "last-99", "encoder.taps 'last-99' does not fit: tiny has 2 stages. Give last-1 to last-2."),
        ("tiny", "mixx", "tiny has no layer 'mixx' to tap. Did you mean 'mix'? Its stages: bend, mix."),
        ("tiny", "none,mix", "encoder.taps 'none,mix' holds 'none' between the commas."),
        ("pixels", "last-1", "Encoder 'pixels' has no option 'taps'. Leave out encoder.taps."),
        ("logmel", "last-1", "Encoder 'logmel' has no option 'taps'. Leave out encoder.taps."),
    ],
)
def test_taps_that_do_not_fit_end_with_exit_code_2(photos, tmp_path, capsys, encoder, taps, words):
    code, text = said(capsys, "fit", photos, "-o", tmp_path / "m", "--encoder", encoder, "--taps", taps)
    assert code == 2 and words in text


@pytest.mark.parametrize("taps", ["auto", "none"])
def test_encoders_without_layers_know_no_taps(taps):
    for name in ("pixels", "logmel", "tiny"):
        assert "taps" not in factory.encoder_of(EncoderSection(name=name, taps=taps)).identity


def test_an_encoder_from_outside_needs_no_parameter_for_taps(monkeypatch):
    class Old(Tiny):
        """As encoders were written before there were taps."""

        def __init__(self, size=None, weights=None, device="cpu"):
            super().__init__(size, weights, device)

    monkeypatch.setattr("mixtura.encoders.tiny.Tiny", Old)
    for taps in ("auto", "none"):
        assert factory.encoder_of(EncoderSection(name="tiny", taps=taps)).dimension == 32
    with pytest.raises(UsageError, match="has no option 'taps'"):
        factory.encoder_of(EncoderSection(name="tiny", taps="last-1"))


def test_a_recipe_may_list_the_names(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("encoder: {name: tiny, taps: [bend, mix]}")
    assert load_recipe(path).encoder.taps == "bend,mix"
    assert resolve({"encoder.taps": "last-1"}, path).encoder.taps == "last-1"
    for wrong in ("[bend, 3]", "3", "~", "{bend: 1}"):
        path.write_text(f"encoder: {{taps: {wrong}}}")
        with pytest.raises(RecipeError, match=r"encoder\.taps"):
            load_recipe(path)


def test_the_error_of_python_names_both_stores(shop, photos):
    settings = {"encoder.name": "tiny", "encoder.taps": "last-1", "extract.store": shop / "features"}
    with pytest.raises(FingerprintMismatch, match="Use the same encoder, or extract into a new folder"):
        mixtura.fit(str(photos), shop, settings)
