"""The page of a training: its numbers, its pictures, and that it stands alone."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from mixtura.records.training import Gain, NetworkTraining, TrainingEpoch
from mixtura.records.training_course import PhotoViews, Redrawn, SearchTrial, TrainingCourse, TriedPart
from mixtura.report.training import training_page

JPEG = b"\xff\xd8\xff"  # how a JPEG begins
EVIL = "<script>alert(1)</script>"


def epochs(number, name="raw"):
    def one(i):
        loss = None if i == 0 else 2 / i
        found = {name: {"loss": 1.5 / (i + 1), "accuracy": 0.5}}
        return TrainingEpoch(i, 3 * i, loss, 1e-3 / max(i, 1), {}, found, 1.0)

    return tuple(map(one, range(number)))


def course(**more):
    result = NetworkTraining("The network is used.", True, "all", 0.5, 3, (Gain("accuracy", 0.5, 0.75),))
    parts = (TriedPart("last", epochs(3), "", 0.25, 0.4, 0.5), TriedPart("all", epochs(4), "", 0.5, 0.3, 0.5))
    photos = (PhotoViews(EVIL, JPEG, (JPEG + b"1", JPEG + b"2")),)
    trials = (SearchTrial(0, {"train.batch_size": 8}, 0.7, "done"), SearchTrial(1, {}, float("nan"), "failed", EVIL))
    given = {"parts": parts, "photos": photos, "trials": trials, "metric": "validation_loss", "result": result}
    return TrainingCourse({"train": {"epochs": 3}, "seed": 0}, **given | more)


def test_it_holds_every_number_once_in_a_table():
    text = training_page(course(), "Training")
    for value in ("1.5000", "0.3750", "0.6667", "50.00%", "1.00e-03", "+25.0 points", "0.7000"):
        assert value in text
    assert text.count('<tr><th scope="row" class="num">') == 3 + 4 + 2


def test_it_is_one_file_without_scripts_and_escapes_names():
    text = training_page(course(), EVIL)
    assert "<script" not in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert EVIL.replace("<", "&lt;").replace(">", "&gt;") in text


def test_drawings_and_pictures_are_described():
    text = training_page(course(), "Training")
    drawings = re.findall(r"<svg viewBox=.*?</svg>", text, re.DOTALL)
    labels = [ET.fromstring(one).get("aria-label") for one in drawings if "role=" in one.split(">")[0]]
    assert len(labels) == 6
    assert all(label and "epoch" in label for label in labels)
    pictures = re.findall(r"<img [^>]*>", text)
    assert len(pictures) == 3
    assert all('alt="' in picture and 'alt=""' not in picture for picture in pictures)


@pytest.mark.parametrize(
    "given",
    [
        {"result": None},
        {"parts": (), "photos": (), "trials": ()},
        {"parts": (TriedPart("all"),), "result": None},
        {"parts": (TriedPart("all", epochs(1)),)},
        {"parts": (TriedPart("all", epochs(60, "average")),), "trial": 1},
        {"photos": (PhotoViews("c", JPEG, ()),)},
    ],
)
def test_it_can_be_written_at_any_time(given):
    assert "</html>" in training_page(course(**given), "Training")


@pytest.mark.parametrize(
    ("pixels", "title"),
    [({}, "mean squared error"), ({"pixels": "bce"}, "cross-entropy"), ({"pixels": "l1"}, "absolute")],
)
def test_reconstructions_stand_beside_their_photos_and_the_loss_has_its_name(pixels, title):
    redrawn = (Redrawn(EVIL, JPEG + b"1", JPEG + b"2"), Redrawn("c", JPEG + b"3", JPEG + b"4"))
    made = course(parts=(TriedPart("all", epochs(3), "", 1.0, 0.0123, None, redrawn),), photos=())
    made = replace(made, settings={"train": {"objective": "reconstruction", **pixels}})
    text = training_page(made, "Training")
    assert text.count("Its reconstruction") == 2 and text.count("<figcaption>") == 2
    assert "<script" not in text and "validation loss 0.0123" in text
    assert re.search(f"Loss, [a-z ]*{title}", text) and "Loss, nats" not in text
    assert "Reconstructions" not in training_page(course(), "Training")
