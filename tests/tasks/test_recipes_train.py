"""The recipes that train a network from scratch run: one epoch of each, or of a smaller twin, on a few photos."""

from pathlib import Path

import pytest

from mixtura.recipe import load_recipe, resolve
from mixtura.tasks import train

RECIPES = Path(__file__).parents[2] / "recipes"
NETWORKS = ("cnn", "resnet18", "vit", "autoencoder")
SMALLER = {"timm:resnet18": "timm:test_resnet"}
SIDE, EACH = 32, 45


PATHS = sorted(path for name in NETWORKS for path in RECIPES.glob(f"{name}-*.yaml"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory, two_colors):
    return two_colors(tmp_path_factory.mktemp("recipes") / "photos", EACH)


def test_every_network_has_a_recipe():
    assert {path.stem.partition("-")[0] for path in PATHS} == set(NETWORKS)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_trains_its_network(path, photos, tmp_path):
    small = {"encoder.size": SIDE, "train.epochs": 1, "extract.workers": 0, "decision.score": "density"}
    small["encoder.name"] = SMALLER.get(load_recipe(path).encoder.name, load_recipe(path).encoder.name)
    given = {"data.kind": "folder", "data.root": photos, "output": tmp_path / "made"} | small
    made = train.run(resolve(given, path))
    assert made.training.part == "all" and made.training.replaced
    assert (made.fit.bundle_path / "encoder.safetensors").is_file()
