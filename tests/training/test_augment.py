"""Augmentation: views follow from (seed, epoch, id) alone, and are what torchvision makes of the same parameters."""

import inspect
import math
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from scipy.ndimage import gaussian_filter

from mixtura.encoders.torchvision_repair import import_torchvision
from mixtura.errors import UnknownName, UsageError
from mixtura.training import augment
from mixtura.training.augment import GRAY, VIEWS, Augmentation, View
from mixtura.training.keyed_random import KeyedRandom


@pytest.fixture(scope="module")
def photo():
    """A smooth photo of 60 x 40 pixels whose quarters differ."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((60, 40), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def functional():
    import_torchvision()
    from torchvision.transforms.v2 import functional

    return functional


class Told(KeyedRandom):
    """Gives the numbers it was told, in [0, 1), in their order."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def uniform(self, low=0.0, high=1.0):
        return low + (high - low) * self.numbers.pop(0)


ALL = Augmentation(tuple(View(name, 0.7) for name in VIEWS), seed=3)


def same(a, b):
    return a.size == b.size and a.mode == b.mode and a.tobytes() == b.tobytes()


def test_a_view_follows_from_seed_epoch_id_and_repeat(photo):
    key = {"id": "a/1.jpg", "epoch": 4, "repeat": 0}
    first = ALL(photo, **key)
    assert same(first, Augmentation(ALL.views, seed=3)(photo, **key))
    for other in ({"id": "a/2.jpg"}, {"epoch": 5}, {"repeat": 1}):
        assert not same(first, ALL(photo, **(key | other)))
    assert not same(first, Augmentation(ALL.views, seed=4)(photo, **key))


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_change_no_bit(photo, threads):
    keys = [(f"{i}.jpg", epoch) for i in range(12) for epoch in range(3)]
    expected = [ALL(photo, *key).tobytes() for key in keys]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda key: ALL(photo, *key).tobytes(), reversed(keys)))
    assert found[::-1] == expected


def test_no_global_generator_is_moved_and_no_photo_changed(photo):
    before, states = photo.copy(), (torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate())  # noqa: NPY002
    for epoch in range(8):
        ALL(photo, "x", epoch)
    assert torch.equal(torch.get_rng_state(), states[0])
    now = np.random.get_state(legacy=False)  # noqa: NPY002
    assert now["state"]["pos"] == states[1]["state"]["pos"]
    np.testing.assert_array_equal(now["state"]["key"], states[1]["state"]["key"])
    assert random.getstate() == states[2]
    assert same(photo, before)


def test_global_seeds_change_no_view(photo):
    found = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            state = random.getstate()
            random.seed(seed)
            found.append(ALL(photo, "x", 0))
            random.setstate(state)
    assert same(*found)


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_changes_a_photo_and_keeps_it_one(photo, name):
    always, never = Augmentation((View(name, 1.0),)), Augmentation((View(name, 0.0),))
    photo = photo.resize((240, 160))  # a blur is in percent of the side
    views = [always(photo, "x", epoch) for epoch in range(6)]
    assert all(view.mode == "RGB" and min(view.size) > 0 for view in views)
    assert any(not same(view, photo) for view in views)
    assert same(never(photo, "x", 0), photo)
    tiny = always(Image.new("RGB", (1, 1), (9, 99, 200)), "x", 0)
    assert tiny.size == (1, 1)


def test_a_probability_is_a_frequency(photo):
    views = Augmentation((View("invert", 0.3),))
    count = sum(not same(views(photo, f"{i}", 0), photo) for i in range(2000))
    assert abs(count / 2000 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)


@pytest.mark.parametrize(
    ("name", "numbers", "oracle"),
    [
        ("horizontal_flip", (), lambda f, x: f.horizontal_flip(x)),
        ("vertical_flip", (), lambda f, x: f.vertical_flip(x)),
        ("rotation", (0.75,), lambda f, x: f.rotate(x, 7.5, f.InterpolationMode.BILINEAR, fill=list(GRAY))),
        ("grayscale", (), lambda f, x: f.rgb_to_grayscale(x, 3)),
        ("invert", (), lambda f, x: f.invert(x)),
        ("autocontrast", (), lambda f, x: f.autocontrast(x)),
    ],
)
def test_pixels_are_those_of_torchvision(photo, functional, name, numbers, oracle):
    """On tensors, which is another implementation: within two of 255, but for borders."""
    found = np.asarray(VIEWS[name](photo, Told(*numbers)), dtype=int)
    tensor = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
    expected = oracle(functional, tensor).permute(1, 2, 0).numpy().astype(int)
    assert (np.abs(found - expected) <= 2).mean() > 0.95


def test_colors_change_by_the_stated_factors_in_a_random_order(photo, functional):
    told = Told(0.75, 0.25, 0.5, 1.0 - 1e-9, *(0.99, 0.5, 0.0, 0.0))  # four amounts; then hue, contrast, ...
    found = VIEWS["color_jitter"](photo, told, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    expected = functional.adjust_hue(photo, 0.1)
    expected = functional.adjust_contrast(expected, 0.8)
    expected = functional.adjust_brightness(expected, 1.2)
    expected = functional.adjust_saturation(expected, 1.0)
    assert ImageChops.difference(found, expected).getextrema() == ((0, 0),) * 3
    assert not told.numbers
    assert same(VIEWS["color_jitter"](photo, Told(), brightness=0, contrast=0, saturation=0, hue=0), photo)


def test_a_crop_has_the_stated_area_and_ratio(photo):
    """Its ratio is relative to the photo's, so a full crop is the photo."""
    crop = VIEWS["random_resized_crop"]
    found = crop(photo, Told(0.5, 0.5, 0.5, 0.25), scale=(0.2, 0.3), ratio=(0.5, 2.0))
    assert same(found, photo.crop((15, 5, 45, 25)))  # half of each side; 31 and 21 places
    assert same(crop(photo, KeyedRandom("x"), scale=(1, 1), ratio=(1, 1)), photo)
    stuck_out = Told(*[0.999, 0.999] * 10)  # wider than the photo, ten times
    assert same(crop(photo, stuck_out, scale=(0.5, 1.0)), photo)
    areas = []
    for i in range(500):
        view = crop(photo, KeyedRandom(i), scale=(0.35, 0.7), ratio=(0.8, 1.25))
        areas.append(view.width * view.height / 2400)
        assert 0.75 < view.width / view.height / 1.5 < 1.35  # rounded to pixels
    assert 0.32 < min(areas) < 0.37 and 0.68 < max(areas) < 0.73
    assert abs(np.mean(areas) - 0.525) < 4 * 0.35 / math.sqrt(12 * 500) + 0.01


def test_an_erased_part_is_gray_and_the_rest_stays(photo):
    for i in range(20):
        found = np.asarray(VIEWS["erase"](photo, KeyedRandom(i), scale=(0.1, 0.3)))
        gray = (found == GRAY).all(2)
        assert 0.08 < gray.mean() < 0.33
        np.testing.assert_array_equal(found[~gray], np.asarray(photo)[~gray])
    assert same(VIEWS["erase"](photo, Told(*[0.999, 0.999] * 10), scale=(0.5, 1.0)), photo)  # each sticks out


def test_a_blur_is_gaussian_of_the_stated_width(photo):
    """Against SciPy's; Pillow's is a sum of boxes, within one of 255 in the mean."""
    found = np.asarray(VIEWS["blur"](photo, Told(0.5), sigma=(5, 15)), float)  # 4 pixels
    whole = np.asarray(photo, float)
    errors = [np.abs(found - gaussian_filter(whole, (s, s, 0), mode="nearest")).mean() for s in (3, 4, 5)]
    assert errors[1] < 1 and errors[1] < min(errors[0], errors[2]) / 2
    assert same(VIEWS["blur"](photo, Told(0.5), sigma=(0, 0)), photo)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("invert", 1.5), "probability of the view 'invert' is 1.5"),
        (("invert", 0.5, {"strength": 1}), "no option 'strength'. It takes none"),
        (("rotation", 0.5, {"degree": 10}), "degrees"),
        (("rotation", 0.5, {"degrees": "10"}), "degrees is '10'. Give a number from 0 to 180"),
        (("rotation", 0.5, {"degrees": math.nan}), "degrees is nan"),
        (("random_resized_crop", 0.5, {"scale": 0.5}), "scale is 0.5. Give two numbers"),
        (("random_resized_crop", 0.5, {"scale": [0, 1]}), "scale is 0"),
        (("random_resized_crop", 0.5, {"ratio": [2, 1]}), "smaller number first"),
        (("color_jitter", 0.5, {"hue": 0.6}), "hue is 0.6"),
        (("color_jitter", 0.5, {"brightness": -0.1}), "of at least 0"),
        (("blur", 0.5, {"sigma": [1, True]}), "sigma is True"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(UsageError, match=said):
        View(*options)


def test_an_unknown_view_lists_the_nearest():
    with pytest.raises(UnknownName, match="horizontal_flip"):
        View("horizontal-flip")


def test_every_view_says_what_it_does():
    for view in VIEWS.values():
        assert inspect.getdoc(view).startswith(("Return", "A "))
        assert [*inspect.signature(view).parameters][:2] == ["photo", "random"]


def test_torchvision_is_imported_once_and_not_by_the_module():
    """Its repair changes tables of modules, which no decoding thread may do."""
    augment._functional.cache_clear()
    View("grayscale")
    assert augment._functional.cache_info().currsize == 1
    found = []
    thread = threading.Thread(target=lambda: found.append(augment._functional()))
    thread.start()
    thread.join()
    assert found and augment._functional.cache_info().misses == 1
