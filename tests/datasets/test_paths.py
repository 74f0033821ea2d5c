import os

from hypothesis import given
from hypothesis import strategies as st

from mixtura.datasets.paths import from_id, readable, to_id, to_label


@given(st.binary(max_size=255).filter(lambda name: b"\0" not in name))
def test_ids_of_any_file_name_are_text_and_come_back_exactly(name):
    path = os.fsdecode(name)
    identifier = to_id(path)
    identifier.encode("utf-8")
    assert "\n" not in identifier
    assert os.fsencode(from_id(identifier)) == name


@given(st.text(), st.text())
def test_labels_are_equal_when_they_look_equal(a, b):
    assert to_label(a) == to_label(to_label(a))
    assert to_label("e\u0301" + a) == to_label("\u00e9" + a)


def test_scripts_and_emoji_stay_as_they_are():
    for name in ("鞋子/红 色.jpg", "👩‍🔬.png", "مفتاح.jpg"):
        assert to_id(name) == readable(name) == name
