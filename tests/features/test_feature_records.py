"""Rows and features: what they accept, and what they give back."""

import numpy as np
import pytest

from mixtura.errors import NonFinite, StoreError, WrongDimension
from mixtura.features.records import to_features
from mixtura.identity import differences, fingerprint


def test_columns_of_different_length_name_the_column(make_rows):
    with pytest.raises(StoreError, match="Column 'label' has 1 rows and the embedding 3"):
        make_rows("abc", label=["x"])


def test_repeated_ids_name_the_id(make_rows):
    with pytest.raises(StoreError, match="Id 'b' occurs twice"):
        make_rows("abcb")


def test_selection_by_mask_indices_split_and_ids_agree(make_rows):
    rows = make_rows("abcd", split=["train", "test", None, "test"], label=["x", None, "y", "x"])
    mask = np.array([False, True, False, True])
    for chosen in (rows.select(mask), rows.select(np.array([1, 3])), rows.select([1, 3]), rows.select_split("test")):
        assert chosen.id == ["b", "d"]
        np.testing.assert_array_equal(chosen.embedding, rows.embedding[[1, 3]])
    assert rows.select_ids(["d", "a"]).id == ["d", "a"]
    assert len(rows.select([])) == 0
    with pytest.raises(StoreError, match=r"2 items have no features, the first \['e', 'f'\]"):
        rows.select_ids(["a", "e", "f"])


def test_features_stay_features_when_selected(make_rows):
    features = to_features(make_rows("abc"), {"name": "n"}, {"torch": "1"})
    assert features.select([0]).fingerprint == features.fingerprint == fingerprint({"name": "n"})
    assert features.select([0]).versions == {"torch": "1"}


def test_classes_and_their_places(make_rows):
    rows = make_rows("abcd", label=["y", None, "x", "y"], superlabel=["s", "s", None, "r"])
    assert rows.classes == ("x", "y")
    assert rows.superclasses == ("r", "s")
    np.testing.assert_array_equal(rows.label_index(("y", "z")), [0, -1, -1, 0])


def test_a_given_split_overrides_and_the_rest_stays(make_rows):
    assert make_rows("abc").with_split({"a": "test", "c": None, "z": "val"}).split == ["test", "train", None]


def test_non_finite_names_the_count_and_the_first_five(make_rows):
    rows = make_rows("abcdefgh")
    rows.embedding[1:7, 2] = [np.nan, np.inf, -np.inf, np.nan, np.nan, np.nan]
    with pytest.raises(NonFinite, match=r"6 of 8 rows hold NaN or infinity: b, c, d, e, f, \.\.\."):
        rows.validate()
    with pytest.raises(NonFinite, match="1 of 2 rows hold NaN or infinity: b\\."):
        make_rows("ab", weight=np.array([1.0, np.nan])).validate()


def test_wrong_dimension_names_both(make_rows):
    with pytest.raises(WrongDimension, match="have 4 dimensions, not 7"):
        make_rows("ab").validate(7)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_features_are_contiguous_float32(make_rows, dtype):
    rows = make_rows("abc", embedding=np.arange(24, dtype=dtype).reshape(3, 8)[:, ::2])
    features = to_features(rows, {"name": "n"})
    assert features.embedding.dtype == np.float32
    assert features.embedding.flags.c_contiguous
    np.testing.assert_array_equal(features.embedding, np.arange(24).reshape(3, 8)[:, ::2])


def test_the_fingerprint_ignores_order_only():
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})
    assert len({fingerprint(i) for i in ({"a": "1"}, {"a": "2"}, {"b": "1"}, {}, {"a": "1", "b": ""})}) == 5
    assert differences({"a": "1"}, {"b": "1"}) == "a is '1' here and '' there; b is '' here and '1' there"
