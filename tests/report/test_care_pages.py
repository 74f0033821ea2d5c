"""The pages of inspections and of drift: one balanced file each, all names escaped, nothing asked of a network."""

import math
from html.parser import HTMLParser

import pytest

from mixtura.records.decision import Interval, Neighbor
from mixtura.records.inspection import Inspection, NearDuplicates, Outlier, Suspect
from mixtura.records.journal import Alarm, ClassShare, Day, Drift
from mixtura.report.care import MAX_ROWS, care_page, write_care
from mixtura.report.drift import drift_page, write_drift

EVIL = "<script>alert('no')</script>"
JPEG = b"\xff\xd8\xff\xe0made up"


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.references = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("href", "src") and value]
        if tag not in {"meta", "link", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text):
    reader = Balanced()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert "script" not in reader.tags and EVIL not in text
    assert all(one.startswith(("#", "data:")) for one in reader.references)
    return reader


def twins(*labels):
    items = tuple(Neighbor(f"t{i}", label, f"{i}.jpg", 0.99) for i, label in enumerate(labels))
    return NearDuplicates(items, 0.98, 0.99, tuple(sorted(set(labels))), ("test", "train"))


def care(suspects=3, **more):
    found = tuple(Suspect(f"s{i}", f"{EVIL}{i}.jpg", EVIL, "cup", 0.01, 0.95) for i in range(suspects))
    values = {"suspects": found, "clashes": (), "copies": (), "outliers": ()}
    base = {"place": "shop", "items": 200, "classes": 4, "judged": 198, "accuracy": 0.91, "family": "tied"}
    return Inspection(**base, **(values | more), limit=0.97, why="It is so.")


def test_an_inspection_shows_every_kind_with_photos():
    page = care_page(
        care(
            clashes=(twins("cup", "pot", "cup", "cup", "cup"),),
            copies=(twins("cup", "cup"),),
            outliers=(Outlier("o", "o.jpg", "pot", 0.004, -9.5),),
        ),
        lambda id: JPEG,
    )
    reader = parsed(page)
    assert page.count("<h2") == 5
    assert reader.tags.count("img") == 3 + 4 + 2 + 1  # of a group the first and three beside it
    assert "9.5 spreads below the median; 0.4% of photos" in page
    assert "some are in the test split, some in training" in page
    assert "Of 200 photos in 4 classes, 198 were judged" in page


def test_what_is_not_found_takes_no_room_and_is_said():
    page = care_page(care(suspects=0), lambda id: None)
    parsed(page)
    assert page.count("<h2") == 1 and "Nothing stands out." in page


def test_without_photos_there_is_a_table_and_no_blank_square():
    page = care_page(care(), lambda id: None)
    reader = parsed(page)
    assert 'class="blank"' not in page and reader.tags.count("tr") == 4 + 1 + 3


def test_a_long_list_is_cut_and_says_so():
    asked = []
    page = care_page(care(suspects=MAX_ROWS + 7), lambda id: asked.append(id))
    parsed(page)
    assert len(asked) == MAX_ROWS and "7 more of them are not shown;" in page and "<details>" in page


def days(count):
    one = Interval(0.1, 0.02, 0.3, 20)
    return tuple(Day(f"2026-11-{i + 1:02d}", 20 + i, 1, one, one, 0.47, {EVIL: 12}) for i in range(count))


def drift(count, alarms, mix=()):
    total = sum(day.count for day in days(count))
    return Drift(30, days(count), total, min(total, 200), 90, 0.05, 0.01, alarms, mix)


RAISED = Alarm("unknown", 0.2, 1e-9, 8e-5, True, f"41 of 200 are unknown {EVIL}.")
QUIET = Alarm("typicality", 0.04, 0.6, 8e-5, False, "All is well.")
UNTESTED = Alarm("mix", math.nan, math.nan, 8e-5, False, "Not tested: 3 photos.")


@pytest.mark.parametrize("count", [1, 2, 28])
def test_drift_draws_any_number_of_days(count):
    mix = tuple(ClassShare(f"{EVIL}{i}", 0.5, math.nan, 0.1) for i in range(17))
    page = drift_page(drift(count, (RAISED, QUIET, UNTESTED), mix), EVIL)
    reader = parsed(page)
    assert reader.tags.count("svg") == 3 and "2 more classes" in page
    assert reader.tags.count("circle") == 2 * count and "nan" not in page.lower()
    assert "Something has changed: share of unknown photos." in page
    assert page.count('class="strong bad"') == 1


def test_drift_says_when_nothing_has_changed_and_when_nothing_was_asked():
    assert "The tests detect no change." in drift_page(drift(3, (QUIET,)), "shop")
    empty = drift_page(drift(0, (UNTESTED,)), "shop")
    parsed(empty)
    assert "no decisions from the last 30 days" in empty and "<svg" not in empty
    assert "are too few to tell" in drift_page(drift(1, (UNTESTED,)), "shop")


def test_pages_are_written_where_asked(tmp_path):
    first = write_care(care(), tmp_path / "new" / "care.html", lambda id: None)
    second = write_drift(drift(2, (QUIET,)), tmp_path / "drift.html", title="shop")
    assert first.read_text().startswith("<!doctype html>") and "Drift of shop" in second.read_text()
