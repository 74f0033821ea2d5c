"""The recipes that train a network from scratch run: one epoch of each, or of a smaller twin, on a few photos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixtura.recipe import load_recipe, resolve
from mixtura.tasks import train

RECIPES = Path(__file__).parents[2] / "recipes"
NETWORKS = ("cnn", "resnet18", "vit", "autoencoder")
SMALLER = {"timm:resnet18": "timm:test_resnet"}
SIDE, CLASSES, EACH = 32, 3, 30


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Noise of another brightness for each class."""
    folder, rng = tmp_path_factory.mktemp("recipes") / "photos", np.random.default_rng(0)
    for c in range(CLASSES):
        (folder / f"c{c}").mkdir(parents=True)
        for number in range(EACH):
            pixels = rng.integers(60 * c, 60 * c + 100, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"c{c}" / f"{number:03}.png")
    return folder


@pytest.mark.parametrize(
    "path", sorted(path for name in NETWORKS for path in RECIPES.glob(f"{name}-*.yaml")), ids=lambda path: path.stem
)
def test_a_recipe_trains_its_network(path, photos, tmp_path):
    small = {"encoder.size": SIDE, "train.epochs": 1, "extract.workers": 0, "decision.score": "density"}
    small["encoder.name"] = SMALLER.get(load_recipe(path).encoder.name, load_recipe(path).encoder.name)
    given = {"data.kind": "folder", "data.root": photos, "output": tmp_path / "made"} | small
    made = train.run(resolve(given, path))
    assert made.training.part == "all" and made.training.replaced
    assert (made.fit.bundle_path / "encoder.safetensors").is_file()
