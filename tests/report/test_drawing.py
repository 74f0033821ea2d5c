import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from mixtura import formats
from mixtura.report import map as atlas
from mixtura.report import svg
from mixtura.report.confusion import most_confused, similar_beside
from mixtura.report.facts import grouped
from mixtura.report.mistakes import address


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
@settings(max_examples=200, deadline=None)
def test_ticks_are_round_few_and_inside(low, span):
    high = low + span
    if high - low < 1e-9 * max(abs(low), 1):
        return
    made = svg.ticks(low, high)
    assert len(made) <= 6
    assert all(low - 1e-6 * span <= tick <= high + 1e-6 * span for tick in made)
    assert len(made) >= 1


@given(st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_percent_never_claims_all_or_nothing_falsely(share):
    assert (formats.percent(share) == "100.0%") == (share == 1)
    assert (formats.percent(share) == "0.0%") == (share == 0)


@given(st.text(max_size=60), st.integers(4, 30))
@settings(max_examples=100, deadline=None)
def test_shortened_names_fit(name, width):
    assert len(formats.shorten(name, width)) <= width
    assert len(name) > width or formats.shorten(name, width) == name


def test_text_in_a_drawing_is_escaped():
    assert "<b>" not in svg.text(0, 0, "<b>")
    assert '"x"' not in svg.drawing('say "x"', 1, 1)


def test_the_order_puts_confused_classes_together():
    table = np.diag([50] * 6)
    table[0, 5] = table[5, 0] = 20
    table[1, 3] = 15
    order = similar_beside(table).tolist()
    assert sorted(order) == list(range(6))
    assert abs(order.index(0) - order.index(5)) == 1
    assert abs(order.index(1) - order.index(3)) == 1


def test_pairs_are_sorted_and_hold_no_right_answers():
    table = np.array([[9, 3, 0], [1, 8, 5], [0, 2, 7]])
    pairs = most_confused(table, ("a", "b", "c"))
    assert [(p.true, p.predicted, p.number) for p in pairs] == [("b", "c", 5), ("a", "b", 3), ("c", "b", 2)]
    assert pairs[0].share == pytest.approx(5 / 14)
    assert most_confused(np.diag([3, 4]), ("a", "b")) == []
    assert len(most_confused(np.array([[3, 1], [0, 4]]), ("a", "b"))) == 1


def test_the_ellipse_holds_nine_tenths():
    assert pytest.approx(chi2(2).ppf(0.9) ** 0.5, abs=1e-4) == atlas.ELLIPSE_RADIUS


def test_the_map_keeps_angles_and_all_but_the_outermost():
    xy = np.random.default_rng(0).normal(size=(3000, 2)) * [8.0, 2.0]
    sheet = atlas._sheet(xy)
    placed = sheet.place(xy)
    inside = (placed >= 0).all(1) & (placed[:, 0] <= svg.DRAWING_WIDTH) & (placed[:, 1] <= sheet.height)
    assert inside.mean() > 0.98
    step = sheet.place(np.array([[0.0, 0], [1, 0], [0, 1]]))
    assert np.linalg.norm(step[1] - step[0]) == pytest.approx(np.linalg.norm(step[2] - step[0]))
    assert step[2, 1] < step[0, 1]


def test_facts_of_any_shape_become_tables():
    groups = grouped({"a": 1, "b": None, "c": {"d": {"e_f": [1, 2.5]}, "g": True}, "empty": {}})
    assert [group.name for group in groups] == ["run", "c"]
    assert [("".join(name), value) for name, value in groups[1].rows] == [("d.e_f", "1, 2.5"), ("g", "yes")]
    assert groups[0].rows[1][1] == "–"
    views = [{"name": "rotation", "options": {"degrees": [5, 10]}, "of": None}, {"name": "flip", "options": {}}]
    assert grouped({"views": views})[0].rows[0][1] == "rotation (options degrees 5, 10), flip"


def test_only_jpeg_becomes_a_picture():
    assert address(None) == ""
    assert address(b"<svg onload=alert(1)>") == ""
    assert address(b"\xff\xd8\xff\xe0").startswith("data:image/jpeg;base64,")
