import base64
import errno
import html
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest

from mixtura.errors import CannotWrite, DataError, OutOfSpace
from mixtura.names import find
from mixtura.records.decision import SubclassMap
from mixtura.report import SECTIONS
from mixtura.report.page import page, write_report
from mixtura.report.parts import PageContext

VOID = {"meta", "link", "img", "wbr"}
CASES = {
    "ten": {},
    "two": {"classes": 2, "per_class": 12, "foreign": 0},
    "thirty": {"classes": 30, "per_class": 10},
    "hundred": {"classes": 100, "per_class": 5},
    "many": {"classes": 230, "per_class": 2, "foreign": 20},
}


class Reader(HTMLParser):
    """Holds the page to be balanced, and collects what it refers to."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.references, self.ids, self.images = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.references += [values[name] for name in ("href", "src", "action", "data") if values.get(name) is not None]
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module", params=CASES)
def written(request, evaluation_of, photo):
    evaluation = evaluation_of(**CASES[request.param])
    return evaluation, page(evaluation, "A shop", photo)


def test_every_tag_is_closed_and_every_id_is_used_once(written):
    reader = read(written[1])
    assert len(set(reader.ids)) == len(reader.ids)


def test_nothing_leaves_the_page(written):
    text = written[1]
    reader = read(text)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    for reference in reader.references:
        assert reference.startswith(("#", "data:"))
        assert reference[1:] in reader.ids or not reference.startswith("#")
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "iframe", "object", "form"} & set(reader.tags)
    assert not re.search(r"<[^>]* on[a-z]+=", text)


def test_drawings_are_well_formed_and_speak(written):
    drawings = re.findall(r"<svg.*?</svg>", written[1], flags=re.S)
    assert len(drawings) >= 4
    for drawing in drawings:
        root = ET.fromstring(drawing)
        assert root.get("role") == "img"
        assert len(root.get("aria-label")) > 10
        assert "nan" not in drawing.lower().replace("nano", "")
        assert "inf" not in root.get("viewBox")


def test_pictures_have_words_and_are_whole(evaluation_of, photo):
    reader = read(page(evaluation_of(), "A shop", photo))
    assert len(reader.images) > 20
    for image in reader.images:
        assert image["alt"]
        assert base64.b64decode(image["src"].split(",")[1]).startswith(b"\xff\xd8\xff")


def test_every_class_is_named_and_every_measure_written(written):
    evaluation, text = written
    plain = html.unescape(text)
    for name in evaluation.classes:
        assert name in plain
    assert f"{100 * evaluation.metrics['top1']:.1f}%" in text
    assert f"{100 * evaluation.metrics['false_reject']:.1f}%" in text


def test_names_are_escaped_wherever_they_stand(evaluation_of, photo):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"
    whole = evaluation_of(classes=10)
    names = (evil, *whole.classes[1:])
    mistakes = tuple(
        replace(
            one,
            true_label=evil,
            source=evil,
            decision=replace(
                one.decision,
                label=evil,
                sentence=evil,
                neighbors=tuple(replace(n, label=evil, source=evil) for n in one.decision.neighbors),
            ),
        )
        for one in whole.mistakes
    )
    recall = dict(zip(names, whole.recall.values(), strict=True))
    metrics = {**whole.metrics, evil: 0.5}
    evaluation = replace(
        whole, classes=names, mistakes=mistakes, recall=recall, metrics=metrics, facts={evil: evil, "x": {evil: [evil]}}
    )
    reader = read(page(evaluation, evil, photo))
    assert "script" not in reader.tags
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in reader.images)
    compact = replace(
        evaluation_of(classes=100, per_class=5), classes=(evil, *evaluation_of(classes=100, per_class=5).classes[1:])
    )
    assert "script" not in read(page(compact, "A shop", photo)).tags


def test_an_evaluation_with_next_to_nothing_still_makes_a_page(evaluation_of):
    whole = evaluation_of()
    bare = replace(whole, metrics={}, intervals={}, recall={}, mistakes=(), map=None, facts={})
    reader = read(page(bare, "A shop", lambda _: None))
    assert {"summary", "confusion", "probability", "unknown"} <= set(reader.ids)
    assert not {"classes", "map", "subclasses", "mistakes", "facts"} & set(reader.ids)


def test_one_photo_and_only_foreign_photos_make_pages(evaluation_of, photo):
    whole = evaluation_of()

    def cut(index):
        arrays = {
            n: getattr(whole, n)[index] for n in ("true", "predicted", "probability", "typicality", "score", "verdict")
        }
        names = {n: tuple(np.array(getattr(whole, n))[index]) for n in ("ids", "sources")}
        return replace(whole, **arrays, **names, map=None)

    one = page(cut(np.array([0])), "A shop", photo)
    assert "1 catalog photo" in one
    foreign = read(page(cut(whole.true < 0), "A shop", photo))
    assert "confusion" not in foreign.ids


def test_infinite_scores_are_drawn(evaluation_of, photo):
    whole = evaluation_of()
    score = whole.score.copy()
    score[::7] = -np.inf
    assert "nan" not in re.findall(r"<svg.*?</svg>", page(replace(whole, score=score), "A", photo), flags=re.S)[2]
    read(page(replace(whole, score=np.full_like(score, -np.inf)), "A", photo))


def test_what_does_not_fit_together_is_refused(evaluation_of, photo):
    whole = evaluation_of()
    wrong = {
        r"Evaluation\.probability has shape \(1300, 10\)": {"probability": np.zeros((1300, 10))},
        r"Evaluation\.true runs from -2 to": {"true": whole.true - 1},
        r"Evaluation\.predicted runs from 1 to 10": {"predicted": whole.predicted + 1},
        r"Evaluation\.verdict holds 'maybe'": {"verdict": np.full(1300, "maybe")},
        "has 0 items": {"ids": ()},
    }
    for message, change in wrong.items():
        with pytest.raises(DataError, match=message):
            page(replace(whole, **change), "A", photo)


def test_the_file_is_replaced_whole_or_not_at_all(tmp_path, evaluation_of, photo, monkeypatch):
    path = tmp_path / "new" / "folder" / "report.html"
    evaluation = evaluation_of()
    assert write_report(evaluation, path, title="First", thumbnails=photo) == path
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", fail_with(errno.ENOSPC))
    with pytest.raises(OutOfSpace, match="Free some space"):
        write_report(evaluation, path, title="Second", thumbnails=photo)
    monkeypatch.setattr("os.fsync", fail_with(errno.EROFS))
    with pytest.raises(CannotWrite, match="Choose another place"):
        write_report(evaluation, path, title="Second", thumbnails=photo)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def fail_with(number):
    def fail(_):
        raise OSError(number, "no")

    return fail


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path, evaluation_of, photo):
    (tmp_path / "taken").write_text("")
    with pytest.raises(CannotWrite):
        write_report(evaluation_of(), tmp_path / "taken" / "report.html", title="A", thumbnails=photo)


def test_the_same_evaluation_gives_the_same_bytes(evaluation_of, photo):
    assert page(evaluation_of(), "A", photo) == page(evaluation_of(), "A", photo)


def test_long_names_cannot_widen_a_row():
    style = files("mixtura.report").joinpath("style.css").read_text()
    assert re.search(r"\.name \{[^}]*overflow-wrap: anywhere", style)
    assert re.search(r"\.classes, \.pairs \{[^}]*table-layout: fixed", style)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_is_found_and_made(name, evaluation_of, photo):
    whole = evaluation_of()
    known, parent = whole.map.label >= 0, np.arange(len(whole.classes))
    view = SubclassMap(whole.map.xy[known], whole.map.label[known], whole.map.mean, parent, whole.map.mean)
    section = find(SECTIONS, name)(PageContext(replace(whole, subclass_map=view), photo))
    assert section.title
    assert section.lead
    assert section.body
