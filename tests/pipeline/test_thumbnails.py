"""Thumbnails: small JPEGs by id, and never an error."""

import io
import shutil
import sqlite3

import numpy as np
import pytest
from PIL import Image

from mixtura.features.store import FeatureStore
from mixtura.pipeline.pictures import MAX_SIDE, Pictures
from mixtura.pipeline.thumbnails import RECIPE, thumbnails
from mixtura.recipe import dump, resolve
from mixtura.sections import DataSection
from mixtura.tasks import extract


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


def color_of(picture):
    return Image.open(io.BytesIO(picture)).getpixel((5, 5))


def extracted(model, photos, **more):
    keys = {"data.root": photos, "encoder.name": "pixels", "output": model} | more
    (model / RECIPE).write_text(dump(resolve(keys)))
    return extract.run(resolve(keys))


def test_pictures_outlive_the_photos_and_move_with_the_model(model, photos, tmp_path):
    extracted(model, photos)
    before = thumbnails(model)("red/1.png")
    shutil.rmtree(photos)
    shutil.move(model, tmp_path / "elsewhere")
    assert thumbnails(tmp_path / "elsewhere")("red/1.png") == before
    assert max(np.abs(np.subtract(color_of(before), (200, 10, 10)))) < 30
    assert thumbnails(tmp_path / "elsewhere")("green/1.png") is None


def test_a_changed_photo_has_a_new_picture(model, photos):
    extracted(model, photos)
    Image.new("RGB", (50, 50), (10, 200, 10)).save(photos / "red" / "1.png")
    extracted(model, photos)
    (photos / "red" / "1.png").unlink()
    assert color_of(thumbnails(model)("red/1.png"))[1] > 150


def test_a_model_of_a_store_shows_the_pictures_of_the_store(model, photos, tmp_path):
    extracted(model, photos, **{"extract.store": tmp_path / "store"})
    recipe = {"data.kind": "features", "data.root": tmp_path / "store"}
    (model / RECIPE).write_text(dump(resolve(recipe)))
    shutil.rmtree(photos)
    assert thumbnails(model)("blue/1.png") is not None


def test_a_full_disk_costs_the_pictures_only(model, photos, monkeypatch):
    def fail(*args, **options):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("mixtura.pipeline.pictures.sqlite3.connect", fail)
    assert extracted(model, photos).done == 2
    monkeypatch.undo()
    assert not (model / "features" / "pictures.sqlite").exists() and thumbnails(model)("red/1.png") is not None


def test_a_damaged_file_of_pictures_is_passed_over(model, photos):
    extracted(model, photos)
    (model / "features" / "pictures.sqlite").write_bytes(b"no database at all" * 100)
    assert thumbnails(model)("red/1.png") is not None
    assert len(FeatureStore.open(model / "features").read()) == 2


def test_many_pictures_are_written_as_they_come(tmp_path):
    pictures = Pictures(tmp_path)
    for number in range(300):
        pictures.add(str(number), b"jpeg")
    assert (tmp_path / "pictures.sqlite").exists()  # before the end
    ids = {str(number) for number in range(299)}
    pictures.flush(lambda: ids)
    pictures.flush(lambda: ids)
    (tmp_path / RECIPE).write_text(dump(resolve({"data.kind": "features", "data.root": tmp_path})))
    found = thumbnails(tmp_path)
    assert [found(str(number)) for number in (0, 298, 299)] == [b"jpeg", b"jpeg", None]
