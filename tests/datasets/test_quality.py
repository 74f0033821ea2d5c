"""Plain flaws of photos: each is found, and good photos have none."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mixtura.datasets.quality import flaw


def photo(size=300, seed=0):
    """Shapes with edges, and noise as sensors make it."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size, size, 3), 150.0)
    for _ in range(12):
        y, x = rng.integers(0, size, 2)
        pixels[y : y + size // 4, x : x + size // 3] = rng.integers(30, 230, 3)
    return Image.fromarray((pixels + rng.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8))


FLAWED = {
    "tiny": lambda image: image.resize((15, 40)),
    "blank": lambda image: Image.new("RGB", (300, 300), (90, 120, 90)),
    "dark": lambda image: image.point(lambda level: level // 16),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(12)),
}


@pytest.mark.parametrize("kind", sorted(FLAWED))
def test_each_flaw_is_found_and_told_with_its_number(kind):
    found = flaw(FLAWED[kind](photo()))
    assert found is not None and found.kind == kind
    assert found.value < found.limit
    assert found.sentence.endswith(".") and any(letter.isdigit() for letter in found.sentence)


def test_an_overexposed_photo_is_found():
    pixels = np.full((300, 300, 3), 255, np.uint8)
    pixels[:20, :40] = 100
    found = flaw(Image.fromarray(pixels))
    assert found is not None and found.kind == "bright" and found.value > found.limit


@pytest.mark.parametrize("seed", range(5))
def test_a_good_photo_has_none(seed):
    assert flaw(photo(seed=seed)) is None
    assert flaw(photo(seed=seed).resize((1200, 900))) is None
