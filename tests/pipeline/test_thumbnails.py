"""Thumbnails: small JPEGs by id, and never an error."""

import io

import pytest
from PIL import Image

from mixtura.pipeline.thumbnails import MAX_SIDE, RECIPE, thumbnails
from mixtura.recipe import dump, resolve
from mixtura.sections import DataSection


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for label, color in (("red", (200, 10, 10)), ("blue", (10, 10, 200))):
        (root / label).mkdir(parents=True)
        Image.new("RGB", (400, 200), color).save(root / label / "1.png")
    return root


@pytest.fixture
def model(tmp_path, photos):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / RECIPE).write_text(dump(resolve({"data.root": photos})))
    return folder


def test_an_id_gives_a_small_jpeg_of_its_photo(model):
    image = Image.open(io.BytesIO(thumbnails(model)("red/1.png")))
    assert image.format == "JPEG"
    assert image.size == (MAX_SIDE, MAX_SIDE // 2)
    red, green, blue = image.getpixel((10, 10))
    assert red > 150
    assert max(green, blue) < 60


def test_what_is_gone_has_no_picture(model, photos, tmp_path):
    find = thumbnails(model)
    assert find("green/1.png") is None
    (photos / "red" / "1.png").write_bytes(b"no image")
    assert find("red/1.png") is None
    assert find("blue/1.png") is not None
    assert thumbnails(tmp_path / "none")("red/1.png") is None


def test_other_data_comes_first(model, tmp_path):
    other = tmp_path / "other" / "red"
    other.mkdir(parents=True)
    Image.new("RGB", (50, 50), (10, 200, 10)).save(other / "1.png")
    Image.new("RGB", (50, 50), (10, 200, 10)).save(other / "2.png")
    find = thumbnails(model, DataSection(kind="folder", root=tmp_path / "other"))
    assert Image.open(io.BytesIO(find("red/1.png"))).getpixel((5, 5))[1] > 150
    assert find("blue/1.png") is not None


def test_features_have_no_pictures(tmp_path):
    assert thumbnails(tmp_path, DataSection(kind="features", root=tmp_path))("a") is None
