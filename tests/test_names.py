import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtura.names import same_name_key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("Apple", "APPLE"),
        ("Straße", "STRASSE"),
        ("red  apple", " red\u00a0apple\t"),
        ("red\u3000apple", "red apple"),
        ("pe\u00adar", "pear"),
        ("\ufeffpear", "pear"),
        ("می\u200cخواهم", "میخواهم"),
        ("\u2764\ufe0f", "\u2764"),
        ("\u202eplum\u202c", "plum"),
        ("\u212bngstr\u00f6m", "a\u030angstro\u0308m"),
    ],
)
def test_spellings_that_look_alike_are_one_name(one, other):
    assert same_name_key(one) == same_name_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("pear", "pears"),
        ("resume", "résumé"),
        ("red apple", "redapple"),
        ("m2", "m²"),  # not compatibility form
        ("\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "\U0001f3f4"),  # the flag of England
    ],
)
def test_names_that_look_different_are_two(one, other):
    assert same_name_key(one) != same_name_key(other)


def test_no_format_character_but_a_visible_one_tells_names_apart():
    formats = [code for code in range(0x10000) if unicodedata.category(chr(code)) == "Cf"]
    told = {code for code in formats if same_name_key(f"a{chr(code)}b") != "ab"}
    assert told == {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2}  # signs around the numbers that follow


@given(st.text())
def test_the_key_of_a_key_is_itself_whatever_the_form(text):
    key = same_name_key(text)
    assert same_name_key(key) == key
    assert same_name_key(unicodedata.normalize("NFD", text)) == key
