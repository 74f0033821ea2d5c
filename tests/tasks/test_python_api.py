"""Fit, load and predict as three lines of Python, and what a model shows of itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mixtura
from mixtura.catalog import Catalog
from mixtura.core.moments import labeled
from mixtura.datasets.items import Problem
from mixtura.errors import NoInput, RecipeError, UnknownName, UsageError
from mixtura.heads.linear import LinearHead
from mixtura.names import find
from mixtura.report.summary import METRIC_TEXT
from mixtura.tasks import search
from mixtura.tasks.collection import open_collection

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210)}
SETTINGS = {"encoder.name": "tiny", "encoder.size": 32}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve noisy photos of each of three colors."""
    folder, rng = tmp_path_factory.mktemp("api") / "photos", np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for number in range(12):
            noise = rng.normal(color, 25, (40, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def shop(photos):
    folder = photos.parent / "shop"
    report = mixtura.fit(str(photos), output=str(folder), settings=SETTINGS)
    assert report.bundle_path == folder and report.evaluation.classes == ("blue", "green", "red")
    return folder


def test_a_folder_of_photos_becomes_a_model_that_predicts(photos, shop):
    model = mixtura.load(str(shop))
    assert model.classes == ("blue", "green", "red")
    paths = [str(photos / name / "3.png") for name in COLORS]
    assert [decision.label for decision in model.predict(paths)] == list(COLORS)
    assert model.predict(paths) == mixtura.predict(shop, [photos / name / "3.png" for name in COLORS])
    assert len(model.predict(paths[:1], neighbors=2)[0].neighbors) == 2


def test_bytes_are_answered_like_the_file_they_are_of(photos, shop):
    path = photos / "green" / "3.png"
    by_path, by_bytes, bad = mixtura.predict(str(shop), [str(path), path.read_bytes(), b"no photo"])
    assert by_bytes.id == bad.source == "-"
    assert replace(by_bytes, id=by_path.id) == by_path
    found = search.run(open_collection(shop), [str(path), path.read_bytes()], k=3).results
    assert found[0].neighbors == found[1].neighbors and found[1].query == "-"


def test_paths_may_be_text(shop):
    assert mixtura.from_pretrained(str(shop)).classes == mixtura.evaluate(str(shop)).classes
    assert len(mixtura.FeatureStore.open(str(shop / "features")).read()) == 36
    assert mixtura.load_recipe(str(shop / "recipe.yaml")).output is not None


def test_the_kind_of_data_is_found_as_the_commands_find_it(shop, tmp_path):
    recipe = mixtura.resolve({"data.root": shop / "features", "output": tmp_path / "again"})
    assert mixtura.fit(recipe).evaluation.classes == ("blue", "green", "red")
    kept = mixtura.load_recipe(tmp_path / "again" / "recipe.yaml")
    assert kept.data.kind == "features" and kept.data.root.is_absolute()


def test_a_model_of_relative_paths_is_used_from_any_directory(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos.parent)
    mixtura.fit("photos", output=str(tmp_path / "first"), settings=SETTINGS)
    mixtura.fit(str(Path("shop") / "features"), output=str(tmp_path / "second"))
    before = mixtura.evaluate(tmp_path / "second").metrics
    monkeypatch.chdir(tmp_path)
    assert mixtura.evaluate("second").metrics == before
    assert mixtura.load_recipe("first/recipe.yaml").data.root == photos
    assert Catalog.open(Path("second")).products()


def test_a_file_that_cannot_be_read_takes_no_answer_away(photos, shop):
    bad, good = mixtura.load(shop).predict([shop / "none.png", photos / "red" / "0.png"])
    assert isinstance(bad, Problem) and good.label == "red"


def test_a_loaded_model_answers_with_later_edits_of_its_catalog(photos, shop):
    Catalog.open(shop).close()
    model = mixtura.load(shop)
    catalog = Catalog.open(shop)
    catalog.rename("red", "crimson")
    assert model.predict([photos / "red" / "0.png"])[0].label == "crimson" and "crimson" in model.classes
    catalog.undo()
    assert model.predict([photos / "red" / "0.png"])[0].label == "red"


def test_a_recipe_is_fitted_with_an_output_of_its_own(photos, tmp_path):
    keys = {"data.root": str(photos), "data.unknown": ["blue"], "output": "elsewhere"}
    report = mixtura.fit(mixtura.resolve(keys | SETTINGS), output=tmp_path / "shop")
    assert report.bundle_path == tmp_path / "shop"
    assert "aupr_unknown" in report.evaluation.metrics and set(report.evaluation.metrics) <= set(METRIC_TEXT)


def test_what_is_missing_is_said(tmp_path, photos):
    with pytest.raises(NoInput, match="nowhere"):
        mixtura.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no place for the model"):
        mixtura.fit(photos)
    with pytest.raises(RecipeError, match="should not be empty"):
        mixtura.fit(photos, output="")


def test_one_path_is_no_list_of_paths(shop):
    with pytest.raises(UsageError, match=r"predict\(\['a.jpg'\]\)"):
        mixtura.load(shop).predict("a.jpg")


@pytest.mark.parametrize("name", [":", ":a", ".a:b", "..:b", "no.such:Thing"])
def test_a_name_that_cannot_be_imported_is_said(name):
    with pytest.raises(UnknownName, match="Cannot load"):
        find({}, name)


def test_values_show_what_they_are_in_one_line(shop):
    model = mixtura.load(shop)
    assert repr(model) == f"Predictor({str(shop)!r}, {model.model!r})"
    assert repr(model.model).startswith("Model(3 classes, encoder tiny, Mixture(") and "\n" not in repr(model.model)
    x, labels = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 3
    moments = labeled(mixtura.FAMILIES["tied"], x, labels, 3)[0]
    assert repr(moments) == "Moments(tied, 3 components, 4 dimensions, weight 30)"
    mixture = mixtura.Mixture.from_moments(moments, 1e-6, component_class=torch.arange(3), n_classes=3)
    assert repr(mixture) == "Mixture(tied, 3 components of 3 classes, 4 dimensions)"
    assert repr(LinearHead(4, 3)) == "LinearHead(dimension=4, n_classes=3)"
