"""The picture of subclasses as a file: what is drawn where, in the colors of the report."""

import io
import re
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from mixtura.records.decision import SubclassMap
from mixtura.report.subclass_png import DPI, MARGIN, SIZE, _hues, png


@pytest.fixture
def view():
    """Two classes in opposite corners, one of them with two subclasses."""
    xy = np.array([[0, 0], [1, 0], [10, 10]], np.float32)
    return SubclassMap(xy, np.array([0, 0, 1]), xy, np.array([0, 0, 1]), np.array([[0.5, 4], [5, 10]], np.float32))


def test_means_have_the_colors_of_their_classes_at_their_places(view):
    picture = Image.open(io.BytesIO(png(view)))
    assert picture.size == (SIZE, SIZE) and round(picture.info["dpi"][0]) == DPI

    def at(x, y):
        scale = (SIZE - 2 * MARGIN) / 10
        return np.array(picture.getpixel((round(MARGIN + scale * x), round(MARGIN + scale * y))))

    for (x, y), parent in zip([*view.subclass, *view.mean], [0, 0, 1, 0, 1], strict=True):
        assert np.abs(at(x, y) - _hues()[parent]).max() <= 2
    assert (at(5, 5) == 255).all()


def test_equal_views_give_equal_files(view):
    assert png(view) == png(view)


def test_the_colors_are_all_those_of_the_style_sheet():
    style = files("mixtura.report").joinpath("style.css").read_text(encoding="utf-8")
    assert len(_hues()) == len(set(re.findall(r"\.hue(\d)", style))) == len(set(_hues()))


def test_one_photo_in_one_place_is_drawn():
    one = np.zeros((1, 2), np.float32)
    assert Image.open(io.BytesIO(png(SubclassMap(one, np.array([0]), one, np.array([0]), one)))).size == (SIZE, SIZE)
