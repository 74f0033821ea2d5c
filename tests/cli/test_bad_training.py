"""What ``mixtura train`` cannot use ends in a sentence and an exit code; nothing is lost and nothing half written."""

import errno
import hashlib
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from mixtura import files
from mixtura.cli.app import run
from mixtura.errors import LabelError
from mixtura.features.store import HEADER_FILE
from mixtura.sweeps import tuning
from mixtura.tasks import train as task
from mixtura.training.loaders import Loader

SIDE = 16
SMALL = ["--set", "extract.workers=0", "--set", "train.batch_size=4"]
CNN = ["--encoder", "cnn", "--size", "16"]
SCRATCH = [*CNN, "--set", "encoder.filters=4", *SMALL]
FROZEN = ["--encoder", "tiny", "--size", "32", "--trainable", "all", *SMALL]
KEPT = "The frozen encoder is kept."


def shoot(folder, each=10, classes=2):
    """Photos of one color a class, under noise."""
    rng = np.random.default_rng(0)
    for c in range(classes):
        (folder / f"c{c}").mkdir(parents=True)
        for number in range(each):
            pixels = np.array([60 + 60 * c, 80, 190 - 60 * c]) + rng.normal(0, 40, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"c{c}" / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return shoot(tmp_path_factory.mktemp("bad") / "photos")


@pytest.fixture(scope="module")
def trained(photos):
    """A folder with a network of two epochs, trained from scratch."""
    assert run(["train", str(photos), "-o", str(photos.parent / "shop"), *SCRATCH, "--epochs", "2", "-q"]) == 0
    return photos.parent / "shop"


@pytest.fixture
def shop(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "shop")


@pytest.fixture
def train(mixtura):
    def call(data, output, *words, base=SCRATCH):
        return mixtura("train", data, "-o", output, *base, *" ".join(map(str, words)).split())

    return call


def contents(folder):
    """The hash of every file, by name."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != files.LOCK_FILE]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def weights(folder):
    return (folder / "encoder.safetensors").read_bytes()


REFUSED = {
    "--trainable lst": (2, "--trainable is 'lst', but it should be 'auto'"),
    "--resume": (2, "No such option: --resume"),
    "--minutes 0": (2, "greater than 0"),
    "--minutes -1": (2, "greater than 0"),
    "--minutes nan": (2, "finite number"),
    "--search 0": (2, "greater than or equal to 1"),
    "--learning-rate 0": (2, "greater than 0"),
    "--device cuda:99": (2, "Device 'cuda:99' cannot be used"),
    "--device mps": (2, "Use 'cpu', or 'cuda' where there is one"),
    "--set train.steps=4": (2, "there is no key 'train.steps'"),
    "--set train.episodes.way=1 --set train.objective=prototypical": (2, "train.episodes.way"),
    "--set train.momentum_encoder=0.9": (2, "compares no views. Leave out train.momentum_encoder 0.9"),
    "--set train.episodes.shot=1": (2, "draws no episodes. Leave out train.episodes"),
    "--set train.objective=prototypical": (2, "which leaves 0 to train on"),
    "--unknown nothing": (65, "No item has the label 'nothing'"),
    "--set train.optimizer=nesterov --set train.momentum=0": (2, "nesterov needs a train.momentum above 0"),
    "--set train.momentum=0.5": (2, "The optimizer adamw has no momentum"),
    "--set train.schedule={name:cosine,gamma:0.5}": (2, "gamma"),
    "--set train.start=pretrained": (2, "has no weights of its own"),
    "--set train.start=scratch --weights WRONG": (2, "Give one of them"),
    "--set train.start=WRONG": (65, "does not fit the network"),
    "--set train.start=JUNK": (65, "is no weight file"),
    "--set train.start=nowhere.pt": (66, "missing or unreadable"),
    "--trainable frozen": (2, "has to be trained"),
    "--epochs 0": (2, "train.epochs is 0, so nothing was trained. Give more"),
    "--minutes 1e-9": (2, "1e-09 minutes are too short for one epoch of training. Give more"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_in_one_sentence_before_anything_is_written(train, trained, photos, tmp_path, words):
    (tmp_path / "junk").write_bytes(b"no weights")
    shutil.copyfile(trained / "model.safetensors", tmp_path / "wrong.safetensors")
    given = words.replace("WRONG", str(tmp_path / "wrong.safetensors")).replace("JUNK", str(tmp_path / "junk"))
    told, code = train(photos, tmp_path / "o", given), REFUSED[words][0]
    assert (told.code, told.err.count("\n")) == (code, 1), told.err
    assert REFUSED[words][1] in told.err
    assert len(told.err) < 500
    assert not (tmp_path / "o").exists()


def test_options_of_another_encoder_are_refused(train, photos, tmp_path):
    told = train(photos, tmp_path / "o", "--encoder lite0 --set encoder.filters=4", base=())
    assert (told.code, "Leave out encoder.filters" in told.err) == (2, True)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("classes", "each", "words"),
    [(1, 10, "two or more are needed"), (2, 2, "left to test with"), (2, 4, "left to validate a trained network with")],
)
def test_too_few_photos_are_told_before_a_network_is_trained_from_scratch(train, tmp_path, classes, each, words):
    told = train(shoot(tmp_path / "photos", each, classes), tmp_path / "o", "--epochs 1")
    assert (told.code, words in told.err) == (65, True), told.err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--minutes 1e-9", "1e-09 minutes are too short for one epoch of training."),
        ("--epochs 0", "train.epochs is 0, so nothing was trained."),
        ("--minutes 1e-9 --search 2 --set search.space={train.batch_size:{choices:[4,8]}}", "All trials failed."),
    ],
)
def test_the_frozen_encoder_is_kept_where_nothing_can_be_trained(train, mixtura, photos, tmp_path, words, why):
    if "--search" in words:
        tuning.imported_optuna()
    told = train(photos, tmp_path / "o", words, base=FROZEN)
    assert told.code == 0, told.err
    said = " ".join(told.out.split())
    assert why in said and KEPT in said
    assert mixtura("predict", tmp_path / "o", photos / "c0" / "00.png").code == 0


def test_the_frozen_encoder_is_kept_where_too_few_photos_validate(train, tmp_path):
    told = train(shoot(tmp_path / "photos", 4), tmp_path / "o", "--epochs 1", base=FROZEN)
    said = " ".join(told.out.split())
    assert told.code == 0 and "Only one photo is left to validate a trained network with" in said and KEPT in said


def test_the_frozen_encoder_is_kept_where_no_model_fits_the_trained_one(train, mixtura, photos, tmp_path, monkeypatch):
    def unfit(*_):
        raise LabelError("Too few photos.")

    monkeypatch.setattr(task, "compared", unfit)
    told = train(photos, tmp_path / "o", "--epochs 1", base=FROZEN)
    said = " ".join(told.out.split())
    assert told.code == 0 and "No model can be fitted to the trained network: Too few photos." in said and KEPT in said
    assert mixtura("predict", tmp_path / "o", photos / "c0" / "00.png").code == 0


def test_a_trained_network_starts_another_of_its_shape_for_any_classes(train, shop, tmp_path):
    other, start = shoot(tmp_path / "photos", 10, 3), f"train.start={shop / 'encoder.safetensors'}"
    wrong = train(other, tmp_path / "o", "--epochs 1 --set encoder.filters=8 --set", start, base=CNN)
    assert (wrong.code, "does not fit the network" in wrong.err) == (65, True)
    assert not (tmp_path / "o").exists()
    told = train(other, tmp_path / "o", "--epochs 1 --trainable all --set", start)
    assert told.code == 0, told.err


@pytest.mark.parametrize("words", ["--learning-rate 0.5", "--set seed=3", "--set train.schedule.name=constant"])
def test_another_recipe_is_refused_and_the_model_stays(train, shop, photos, words):
    before = contents(shop)
    told = train(photos, shop, "--epochs 2", words)
    assert (told.code, "--fresh" in told.err) == (65, True), told.err
    assert contents(shop) == before


def test_other_photos_are_refused_and_the_model_stays(train, shop, photos, tmp_path):
    before, some = contents(shop), shutil.copytree(photos, tmp_path / "photos")
    (some / "c1" / "03.png").unlink()
    told = train(some, shop, "--epochs 2")
    assert told.code == 65
    assert re.search(r"data was '16 photos, \w+' and is '15 photos", told.err), told.err
    shutil.rmtree(some)
    told = train(some, shop, "--epochs 2")
    assert (told.code, "no such folder" in told.err) == (66, True)
    assert contents(shop) == before


def commit(folder, text):
    """Write the state of a checkpoint, with its marker."""
    (folder / "state.json").write_text(text)
    (folder / "COMMIT").write_text(hashlib.sha256(text.encode()).hexdigest())


def test_checkpoints_that_are_unfinished_or_newer(train, shop, trained, photos):
    newest = max((shop / "training" / "checkpoints").iterdir(), key=lambda path: path.name)
    text = (newest / "state.json").read_text()
    commit(newest, text.replace('"layout": 1', '"layout": 9'))
    before = contents(shop)
    told = train(photos, shop, "--epochs 2")
    assert (told.code, "has layout 9, and this mixtura reads 1" in told.err) == (65, True), told.err
    assert contents(shop) == before
    commit(newest, text)
    (newest / "COMMIT").unlink()
    told = train(photos, shop, "--epochs 2")
    assert told.code == 0 and "COMMIT is missing" in told.err and "An earlier one is used" in told.err
    assert weights(shop) == weights(trained)
    for marker in shop.rglob("COMMIT"):
        marker.unlink()
    before = contents(shop)
    told = train(photos, shop, "--epochs 2")
    assert (told.code, "is whole. Start again with --fresh" in told.err) == (65, True), told.err
    assert contents(shop) == before
    assert train(photos, shop, "--epochs 2 --fresh").code == 0
    assert weights(shop) == weights(trained)


@pytest.mark.parametrize("text", ["{", "[]", '{"asked": 2, "epochs": "x"}'])
def test_a_damaged_plan_is_told(train, shop, photos, text):
    (shop / "training" / "plan.json").write_text(text)
    before = contents(shop)
    told = train(photos, shop, "--epochs 2")
    assert (told.code, "plan.json is damaged" in told.err) == (65, True), told.err
    assert contents(shop) == before


def test_a_loss_that_is_not_finite_names_step_and_batch(train, photos, tmp_path):
    told = train(photos, tmp_path / "o", "--learning-rate 1e30 --set train.optimizer=sgd --set train.clip=0")
    assert told.code == 65
    assert "The loss is not finite in step 2, batch 2 of 4 of epoch 1. The last commit is kept." in told.err, told.err
    assert [path.name for path in (tmp_path / "o" / "training" / "checkpoints").iterdir()] == ["00000000"]
    assert not (tmp_path / "o" / "config.json").exists()


@pytest.mark.parametrize("base", [SCRATCH, FROZEN], ids=["scratch", "frozen"])
def test_photos_that_cannot_be_read_are_listed_and_left_out(train, photos, tmp_path, base):
    some = shutil.copytree(photos, tmp_path / "photos")
    Image.new("RGB", (100_000, 2), (60, 80, 190)).save(some / "c0" / "wide.png")
    Image.new("RGB", (1, 1), (120, 80, 130)).save(some / "c1" / "dot.png")
    (some / "c1" / "05.png").write_bytes((some / "c1" / "05.png").read_bytes()[:90])
    told = train(some, tmp_path / "o", "--epochs 1", base=base)
    assert told.code == 0, told.err
    assert "c1/05.png: the PNG file ends before" in told.out
    assert "c0/wide.png: 100,000 x 2 pixels" in told.out
    assert "dot.png" not in told.out


@pytest.mark.parametrize("base", [SCRATCH, FROZEN], ids=["scratch", "frozen"])
def test_a_photo_that_breaks_in_the_middle_is_listed_and_the_run_goes_on(train, photos, tmp_path, monkeypatch, base):
    monkeypatch.setattr(task, "compared", lambda *_: ("It is not better.", base is SCRATCH))
    some, kept, read = shutil.copytree(photos, tmp_path / "photos"), Loader._kept, []

    def breaking(self, row):
        read.append(self.dataset.items[row].source)
        if len(read) == 6:
            broken = next(item.source for item in self.dataset.items if item.source not in read)
            (some / broken).write_bytes((some / broken).read_bytes()[:90])
            read.append(broken)
        return kept(self, row)

    monkeypatch.setattr(Loader, "_kept", breaking)
    told = train(some, tmp_path / "o", "--epochs 2", base=base)
    assert told.code == 0, told.err
    assert f"{read[6]}: the PNG file ends before" in told.out
    assert (tmp_path / "o" / "training" / "metrics.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_batch_of_one_photo_and_one_of_all(train, photos, tmp_path, size):
    assert train(photos, tmp_path / "o", "--epochs 1", base=[*SCRATCH[:-1], f"train.batch_size={size}"]).code == 0


def test_one_run_a_folder(train, shop, photos):
    before = contents(shop)
    for held in (shop, shop / "training"):
        with files.only_writer(held):
            told = train(photos, shop, "--epochs 2 --fresh")
        assert (told.code, f"pid {os.getpid()}" in told.err) == (73, True), told.err
        assert contents(shop) == before


def test_a_place_that_cannot_be_written_or_holds_the_photos(train, photos):
    before = contents(photos)
    assert train(photos, photos / "c0" / "00.png", "--epochs 1").code == 73
    assert train(photos, photos, "--epochs 1").code == 2
    assert contents(photos) == before


@pytest.mark.parametrize(
    ("name", "number", "goes_on"),
    [
        ("state.safetensors", 0, ""),
        ("COMMIT", 1, "after step 0 of 8"),
        ("state.json", 2, "after step 4 of 8"),
        ("encoder.safetensors", 0, "after step 8 of 8"),
        (HEADER_FILE, 0, "after step 8 of 8"),
        ("config.json", 0, "after step 8 of 8"),
    ],
)
def test_a_full_disk_keeps_what_was_committed(train, trained, photos, tmp_path, monkeypatch, name, number, goes_on):
    write, met = files._write_through, []

    def fill(path, data):
        if path.name == name or (name == HEADER_FILE and path.parent.name == "features"):
            met.append(path)
            if len(met) > number:
                path.write_bytes(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_through", fill)
        told = train(photos, tmp_path / "o", "--epochs 2")
    assert (told.code, "what was saved before is intact" in told.err) == (74, True), told.err
    assert not (tmp_path / "o" / "config.json").exists()
    assert not [path for path in (tmp_path / "o").rglob(".*") if path.name != files.LOCK_FILE]
    again = train(photos, tmp_path / "o", "--epochs 2")
    assert again.code == 0 and goes_on in again.err and bool(goes_on) == ("goes on" in again.err), again.err
    assert weights(tmp_path / "o") == weights(trained)
