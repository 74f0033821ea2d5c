"""Photos that a catalog has learned from set no limits: the promised rate holds for new photos."""

import io
import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from mixtura.catalog import Catalog, Shot
from mixtura.catalog.journal import Journal
from mixtura.cli.app import run as command
from mixtura.datasets import demo
from mixtura.errors import FingerprintMismatch, LabelError, WrongDimension
from mixtura.features.records import Rows, to_features
from mixtura.features.store import FeatureStore
from mixtura.model.bundle import recipe_of
from mixtura.pipeline import training_set
from mixtura.recipe import resolve
from mixtura.tasks import fit, recalibrate
from mixtura.tasks.learned_photos import equal, learned
from mixtura.tasks.recalibrate import ConfirmedPhotos

D, CLASSES, EACH = 24, 4, 30


def photos(n, seed, spread=1.0, dimension=D, classes=CLASSES):
    """``n`` photos of classes in turn."""
    mean = 3 * np.random.default_rng(0).standard_normal((classes, dimension))
    label = np.arange(n) % classes
    x = mean[label] + spread * np.random.default_rng([1, seed]).standard_normal((n, dimension))
    return x.astype(np.float32), tuple(f"c{c}" for c in label)


def store(path, x, labels, dtype="float16", digests=None, name="tiny"):
    none = [None] * len(x)
    ids = [f"{seed}" for seed in range(len(x))]
    identity = {"name": name, "size": "32 px", "weights": "w"}
    rows = Rows(x, ids, ids, list(labels), none, none, none, np.ones(len(x)), digests or [""] * len(x))
    FeatureStore.create(path, identity, x.shape[1], dtype).append(to_features(rows, identity))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    x, labels = photos(CLASSES * EACH, seed=0)
    digests = [f"{i:064x}" for i in range(len(x))]
    store(folder / "store", x, labels, digests=digests)
    flags = {"data.kind": "features", "data.root": folder / "store", "output": folder / "shop", "head.family": "full"}
    fit.run(resolve(flags | {"head.shrinkage": 0.05}))
    return folder


@pytest.fixture
def shop(made, tmp_path):
    shutil.copytree(made / "shop", tmp_path / "shop")
    catalog = Catalog.open(tmp_path / "shop")
    yield catalog
    catalog.close()


def split(shop, part):
    """Photos of the fit, as they were before a store rounded them: those to test with, or the others."""
    x, labels = photos(CLASSES * EACH, seed=0)
    features = training_set.stored(recipe_of(shop.folder), shop.model.identity)
    rows = [int(id) for id, own in zip(features.id, features.split, strict=True) if (own == "test") == (part == "test")]
    return x[rows], tuple(labels[row] for row in rows)


def joined(*pairs):
    return np.concatenate([x for x, _ in pairs]), tuple(label for _, labels in pairs for label in labels)


def rejected(shop, seed, n=4000):
    return float((shop.model.answers(photos(n, seed)[0]).verdict == "unknown").mean())


def test_photos_of_the_training_folder_alone_are_refused(shop, made):
    """Limits that they had set turned half of all new photos away."""
    with pytest.raises(
        LabelError, match="96 of 96 confirmed photos were learned from and do not count, and the 0"
    ) as e:
        recalibrate.recalibrate(shop, ConfirmedPhotos(*split(shop, "train")))
    assert "Confirm at least 20 new photos" in str(e.value) and "\n" not in str(e.value)
    made = recalibrate.recalibrate(shop, recalibrate.from_folder(shop, made / "store"))  # test items were not learned
    assert (made.count, made.learned) == (24, 96)
    assert made.notes[0] == "96 of 120 confirmed photos were learned from and do not count."


def test_learned_photos_change_nothing(shop):
    new = photos(80, seed=1)
    alone = recalibrate.recalibrate(shop, ConfirmedPhotos(*new))
    mixed = recalibrate.recalibrate(shop, ConfirmedPhotos(*joined(split(shop, "train"), new)))
    assert (alone.learned, mixed.learned) == (0, 96) and mixed.count == alone.count == 80
    assert mixed.typicality.state().keys() == alone.typicality.state().keys()
    for name, value in mixed.typicality.state().items():
        np.testing.assert_array_equal(value, alone.typicality.state()[name])
    assert mixed.before == alone.before and mixed.after == alone.after
    assert mixed.temperature == alone.temperature


def test_the_promised_rate_holds_for_new_photos(shop):
    """Two-sided: eight times 96 learned and 100 new photos, each limit on 4,000 fresh ones.

    A limit from 100 photos has the rate ``expected`` with the standard error ``error``; means of eight are held to
    three of their standard errors on either side, and each to four of its own. Were learned photos to count, the mean
    would be 0.11.
    """
    rates, made = [], None
    for seed in range(8):
        confirmed = ConfirmedPhotos(*joined(split(shop, "train"), photos(100, seed=10 + seed)))
        made = recalibrate.recalibrate(shop, confirmed)
        recalibrate.write(shop, made, force=True)
        rates.append(rejected(shop, seed=100 + seed))
        shop.undo()
    assert made is not None and made.expected.value == pytest.approx(0.0495, abs=0.001)
    assert abs(np.mean(rates) - made.expected.value) < 3 * made.error / np.sqrt(8) + 0.005
    assert np.abs(np.array(rates) - made.expected.value).max() < 4 * made.error


def test_items_to_test_with_were_not_learned(shop):
    test, new = split(shop, "test"), photos(20, seed=1)
    made = recalibrate.recalibrate(shop, ConfirmedPhotos(*joined(test, new)))
    assert (made.learned, made.count) == (0, 44)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store_without_hashes_is_told_by_its_features(shop, tmp_path, dtype):
    x, labels = joined(split(shop, "train"), photos(30, seed=1))
    found = recalibrate.from_folder(shop, store(tmp_path / "checked", x, labels, dtype))
    made = recalibrate.recalibrate(shop, found)
    assert (made.learned, made.count) == (96, 30)


def test_a_store_is_told_by_its_hashes(shop, tmp_path):
    """The same files, of which other features were stored."""
    x, labels = photos(60, seed=1)
    digests = [f"{i if i < 25 else i + 1000:064x}" for i in range(60)]
    own = {item.sha256 for product in shop.products() for item in shop.items(product.id) if item.split != "test"}
    expected = len(own & set(digests))
    made = recalibrate.recalibrate(
        shop, recalibrate.from_folder(shop, store(tmp_path / "checked", x, labels, digests=digests))
    )
    assert made.learned == expected and 15 <= expected <= 25


def test_photos_that_were_enrolled_from_the_journal_do_not_count(shop):
    journal = Journal.open(shop.folder)
    x, labels = photos(60, seed=1)
    ids = journal.log(shop.decide([str(i) for i in range(60)], x), x)
    for id, label in zip(ids, labels, strict=True):
        journal.feedback(id, label)
    assert recalibrate.recalibrate(shop, recalibrate.from_journal(journal, shop)).learned == 0
    shop.enroll("c0", [Shot(row, f"{i + 5000:064x}", f"{i}.jpg") for i, row in enumerate(x[:24:4])])
    made = recalibrate.recalibrate(shop, recalibrate.from_journal(journal, shop))
    assert (made.learned, made.count) == (6, 54)
    shop.undo()
    assert recalibrate.recalibrate(shop, recalibrate.from_journal(journal, shop)).learned == 0
    journal.close()


def test_features_of_another_encoder_or_width_are_refused(shop, tmp_path):
    with pytest.raises(FingerprintMismatch):
        recalibrate.from_folder(shop, store(tmp_path / "a", *photos(30, seed=1), name="other"))
    with pytest.raises(WrongDimension, match="5 dimensions"):
        recalibrate.recalibrate(shop, ConfirmedPhotos(*photos(30, seed=1, dimension=5)))


def test_rounding_is_told_from_difference():
    x = 10 * np.random.default_rng(0).standard_normal((50, 12)).astype(np.float32)
    narrow = x.astype(np.float16).astype(np.float32)
    assert equal(x, x).all() and equal(x, narrow).all() and equal(narrow, x).all()
    assert equal(x, x * np.float32(1 + 1e-6)).all()
    assert not equal(x, x * 1.01).any() and not equal(x, np.roll(x, 1, axis=0)).any()
    apart = 1000 + np.random.default_rng(1).standard_normal((2, 50, 3)).astype(np.float32) / 2
    assert not equal(apart[0], apart[1]).all()  # a large mean of all does not make unlike rows equal
    assert equal(1e6 * x, 1e6 * x).all() and equal(0 * x, 0 * x).all()


@pytest.mark.parametrize("dimension", [3, 12, 64])
@pytest.mark.parametrize("offset", [0.0, 10.0])
@pytest.mark.parametrize("each", [120, 5])
def test_new_photos_are_seldom_taken_for_copies(features, dimension, offset, each):
    """Also where one product in five scatters a hundredth as much as the others: at most 2 % of 600."""
    classes = 600 // each
    mean = 3 * np.random.default_rng(0).standard_normal((classes, dimension)) + offset
    spread = np.where(np.arange(classes) % 5 == 0, 0.01, 1.0)

    def draw(n, seed):
        c = np.arange(n) % classes
        noise = np.random.default_rng([2, seed]).standard_normal((n, dimension))
        return (mean[c] + spread[c, None] * noise).astype(np.float32), [f"c{i}" for i in c]

    known = features(*draw(600, 0), sha256=[""] * 600)
    found = learned(known, draw(600, 1)[0])
    assert found.mean() <= 0.02
    assert learned(known, known.embedding).all()


def test_nothing_is_learned_from_nothing(features):
    none = features(np.zeros((0, 4)), [], sha256=[])
    assert learned(none, np.ones((3, 4), np.float32), ("", "", "")).tolist() == [False] * 3
    few = features(np.eye(4), list("abcd"), sha256=["x", "", "", ""])
    found = learned(few, np.array([[9, 1, 0, 0], [0, 1, 0, 0], [9, 0, 9, 0]], np.float32), ("x", "", ""))
    assert found.tolist() == [True, True, False]


@pytest.fixture(scope="module")
def photo_shop(tmp_path_factory):
    """A shop of photos with an encoder that needs no weights, and photos that it has not seen."""
    folder = tmp_path_factory.mktemp("photos")
    dataset = demo.load()
    images = {
        c: [dataset.image(i) for i, item in enumerate(dataset.items) if item.label == c] for c in dataset.classes[:4]
    }
    for c, own in images.items():
        (folder / "photos" / c).mkdir(parents=True)
        for i, image in enumerate(own[:40]):
            (folder / "photos" / c / f"{i}.png").write_bytes(picture(image))
    fit.run(resolve({"data.root": folder / "photos", "output": folder / "shop", "encoder.name": "tiny"}))
    return folder, images


def picture(image, format="PNG", side=64, **options):
    target = io.BytesIO()
    image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC).save(target, format, **options)
    return target.getvalue()


def test_copies_in_a_folder_do_not_count(photo_shop, tmp_path, mixtura):
    """The shop's own files under other names, and saved again in another size or format; new photos do."""
    folder, images = photo_shop
    shop, copies = tmp_path / "shop", 0
    shutil.copytree(folder / "shop", shop)
    learned = {item.source for product in Catalog.open(shop).products() for item in Catalog.open(shop).items(product.id)
               if item.split != "test"}  # fmt: skip
    for c, own in images.items():
        (tmp_path / "checked" / c).mkdir(parents=True)
        for i in range(12):
            made = picture(own[i]), picture(own[i], side=96), picture(own[i], "JPEG", quality=70)
            (tmp_path / "checked" / c / f"copy-{i}.png").write_bytes(made[i % 3])
            copies += any(source.endswith(f"{c}/{i}.png") for source in learned)
        for i in range(40, 55):
            (tmp_path / "checked" / c / f"new-{i}.png").write_bytes(picture(own[i]))
    answer = mixtura("recalibrate", shop, "--confirmed", tmp_path / "checked", "--json")
    record = json.loads(answer.out)
    assert answer.code == 0 and record["count"] + record["learned"] == 4 * (12 + 15)
    assert copies > 30 and abs(record["learned"] - copies) <= 0.05 * copies
    told = mixtura("recalibrate", shop, "--confirmed", tmp_path / "checked")
    assert f"{record['learned']} of 108 confirmed photos were learned from and do not count." in told.out
    whole = json.loads(mixtura("recalibrate", shop, "--confirmed", folder / "photos", "--json").out)
    assert 20 <= whole["count"] <= 32  # the photos that the fit tested with
    few = tmp_path / "few"
    for c in images:
        shutil.copytree(folder / "photos" / c, few / c, ignore=lambda at, names: sorted(names)[:-6])
    refused = mixtura("recalibrate", folder / "shop", "--confirmed", few)
    assert refused.code == 65 and "were learned from and do not count" in refused.err


@pytest.fixture
def mixtura(capsys):
    def call(*arguments):
        code = command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@dataclass
class Answer:
    code: int
    out: str
    err: str
