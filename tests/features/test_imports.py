"""Features made elsewhere come in whole, and nothing in them is executed."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mixtura.errors import DataError, LabelError, NoInput, NonFinite, StoreError, WrongDimension
from mixtura.features.imports import from_dgmmc, from_npy, from_npz, from_parquet, save
from mixtura.features.store import FeatureStore

X = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
Y = np.array([1, 0, 1, 2, 0])
TEXT = ["1", "0", "1", "2", "0"]


class Hostile:
    def __reduce__(self):
        return (print, ("executed",))


def test_npy(tmp_path):
    np.save(tmp_path / "x.npy", X.astype(np.float64))
    np.save(tmp_path / "y.npy", Y)
    found = from_npy(tmp_path / "x.npy", tmp_path / "y.npy", encoder="clip", split="train")
    np.testing.assert_array_equal(found.embedding, X)
    assert found.label == TEXT
    assert found.id == [f"x.npy#{i}" for i in range(5)]
    assert found.split == ["train"] * 5
    assert found.identity["name"] == "imported:clip"
    assert from_npy(tmp_path / "x.npy", encoder="clip").label == [None] * 5


def test_same_encoder_same_fingerprint(tmp_path):
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", X + 1)
    a, b, c = (from_npy(tmp_path / n, encoder=e) for n, e in (("a.npy", "clip"), ("b.npy", "clip"), ("a.npy", "dino")))
    assert a.fingerprint == b.fingerprint != c.fingerprint
    assert a.sha256 != b.sha256


def test_npz_with_more_columns(tmp_path):
    np.savez(
        tmp_path / "p.npz", feats=X, y=np.array(["é"] * 5), id=np.arange(5), split=["test"] * 5, weight=np.arange(5)
    )
    found = from_npz(tmp_path / "p.npz", encoder="clip", embedding="feats", label="y")
    assert (found.id[3], found.label[0], found.split[1]) == ("3", "é", "test")
    np.testing.assert_array_equal(found.weight, np.arange(5.0))
    with pytest.raises(DataError, match=r"no array 'embedding'. It has: feats"):
        from_npz(tmp_path / "p.npz", encoder="clip")


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 3), pa.large_list(pa.float16())])
def test_parquet_of_any_list(tmp_path, kind):
    rows = X.astype(np.float16) if pa.types.is_float16(kind.value_type) else X
    table = pa.table({"v": pa.array(list(rows), kind), "label": TEXT, "superlabel": [None, "s", "s", "t", "t"]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    found = from_parquet(tmp_path / "t.parquet", encoder="clip", embedding="v")
    np.testing.assert_array_equal(found.embedding, rows.astype(np.float32))
    assert (found.label, found.superlabel[:2]) == (TEXT, [None, "s"])


def test_parquet_that_does_not_fit(tmp_path):
    def write(**columns):
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")

    def read(**options):
        return from_parquet(tmp_path / "t.parquet", encoder="clip", **({"label": None} | options))

    write(embedding=[[1.0, 2.0], [1.0]])
    with pytest.raises(DataError, match="different lengths"):
        read()
    write(embedding=[[1.0, None], [1.0, 2.0]])
    with pytest.raises(DataError, match="gaps"):
        read()
    write(embedding=[1.0, 2.0])
    with pytest.raises(DataError, match="holds double, not lists"):
        read()
    write(embedding=[[1.0]], id=pa.array([None], pa.string()))
    with pytest.raises(StoreError, match="1 rows without 'id'"):
        read()
    with pytest.raises(DataError, match="no column 'label'"):
        read(label="label")
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is no Parquet file"):
        read()


NAN = float("nan")


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (np.array([1.0, NAN, 2.0, NAN, 1.0]), ["1.0", None, "2.0", None, "1.0"]),
        (np.array(["a", NAN, "b", "", " "]), ["a", None, "b", None, None]),
        (np.array([b"a", b"", b"b", b"a", b"nan"]), ["a", None, "b", "a", None]),
        (np.array(["None", "null", "nans", "NA", "a "]), ["None", "null", "nans", "NA", "a"]),
    ],
)
def test_missing_labels_of_arrays_are_no_class(tmp_path, given, labels):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", given)
    np.savez(tmp_path / "p.npz", embedding=X, label=given, superlabel=given, group=given)
    assert from_npy(tmp_path / "x.npy", tmp_path / "y.npy", encoder="clip").label == labels
    found = from_npz(tmp_path / "p.npz", encoder="clip")
    assert found.label == found.superlabel == found.group == labels
    assert None not in found.classes and "" not in found.classes


@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, "a", "", "nan", "b"]),
        pa.array([NAN, 1.0, None, NAN, 2.0]),
        pa.array([None, "a", None, "", "b"]).dictionary_encode(),
    ],
)
def test_missing_labels_of_tables_are_no_class(tmp_path, column):
    pq.write_table(pa.table({"embedding": pa.array(X.tolist()), "label": column}), tmp_path / "t.parquet")
    found = from_parquet(tmp_path / "t.parquet", encoder="clip")
    assert [label is None for label in found.label] == [True, False, True, True, False]


def test_a_missing_id_is_told(tmp_path):
    np.savez(tmp_path / "p.npz", embedding=X, id=np.array(["a", "", "b", "c", "d"]))
    with pytest.raises(StoreError, match="1 rows without 'id'"):
        from_npz(tmp_path / "p.npz", encoder="clip", label=None)


def test_arrays_that_do_not_fit(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y[:4])
    with pytest.raises(LabelError, match="5 rows and 4 entries of 'label'"):
        from_npy(tmp_path / "x.npy", tmp_path / "y.npy", encoder="clip")
    for bad in (X[0], X.astype(str), X[:, :0], X.astype(complex)):
        np.save(tmp_path / "b.npy", bad)
        with pytest.raises(DataError, match="not N x D numbers"):
            from_npy(tmp_path / "b.npy", encoder="clip")
    np.save(tmp_path / "n.npy", np.where(X > 0, np.nan, X))
    with pytest.raises(NonFinite):
        from_npy(tmp_path / "n.npy", encoder="clip")


def test_missing_damaged_and_pickled_files(tmp_path, capsys):
    np.save(tmp_path / "o.npy", np.array([[Hostile()]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", embedding=np.array([[Hostile()]], dtype=object))
    (tmp_path / "junk.npy").write_bytes(b"\x93NUMPY\x01\x00junk")
    (tmp_path / "bomb.npy").write_bytes(_header("(1000000000, 1000)"))
    for name in ("o.npy", "junk.npy", "bomb.npy"):
        with pytest.raises(DataError, match="is no plain NumPy file"):
            from_npy(tmp_path / name, encoder="clip")
    with pytest.raises(DataError, match="cannot be read"):
        from_npz(tmp_path / "o.npz", encoder="clip", label=None)
    with pytest.raises(NoInput, match="does not exist"):
        from_npy(tmp_path / "none.npy", encoder="clip")
    with pytest.raises(NoInput, match="does not exist"):
        from_parquet(tmp_path / "none", encoder="clip")
    assert "executed" not in capsys.readouterr().out


def _header(shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.fixture
def dgmmc(tmp_path):
    """The layout of DGMMC: one file an item, as tensor or as NumPy array."""
    folder = tmp_path / "Features" / "ESC" / "CLIP" / "Train"
    folder.mkdir(parents=True)
    for row in range(5):
        vector = X[row] if row % 2 else torch.from_numpy(X[row : row + 1])
        torch.save(vector, folder / f"{row}.pt")
    (tmp_path / "labels.txt").write_text("\n".join(TEXT) + "\n")
    return folder


def test_dgmmc_by_number(dgmmc, tmp_path):
    found = from_dgmmc(dgmmc, tmp_path / "labels.txt", encoder="clip", split="train")
    np.testing.assert_array_equal(found.embedding, X)
    assert (found.label, found.id[2]) == (TEXT, "Train/2")


def test_a_row_without_a_vector_is_one_sentence(tmp_path):
    rows = pa.array([[1.0, 2.0], [3.0, 4.0], None], pa.list_(pa.float32()))
    pq.write_table(pa.table({"embedding": rows, "label": ["a", "b", "a"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="or have gaps"):
        from_parquet(tmp_path / "t.parquet", encoder="clip")


def test_dgmmc_by_file_name(dgmmc, tmp_path):
    (tmp_path / "list.csv").write_text("Filename,Label\n3,dog\n../../0,rain\n")
    found = from_dgmmc(dgmmc, tmp_path / "list.csv", encoder="clip")
    np.testing.assert_array_equal(found.embedding, X[[3, 0]])
    assert found.label == ["dog", "rain"]


def test_dgmmc_refusals(dgmmc, tmp_path, capsys):
    (tmp_path / "one.txt").write_text("cat\n")
    for content in (Hostile(), {"a": 1}, np.array([Hostile()], dtype=object), torch.ones(3, dtype=torch.int64), "text"):
        torch.save(content, dgmmc / "0.pt")
        with pytest.raises(DataError, match=r"0\.pt"):
            from_dgmmc(dgmmc, tmp_path / "one.txt", encoder="clip")
    for tensor in (torch.ones(3, 3).to_sparse(), torch.empty(3, device="meta")):
        torch.save(tensor, dgmmc / "0.pt")
        with pytest.raises(DataError, match=r"0\.pt"):
            from_dgmmc(dgmmc, tmp_path / "one.txt", encoder="clip")
    (dgmmc / "0.pt").write_bytes(b"junk")
    with pytest.raises(DataError, match="is refused"):
        from_dgmmc(dgmmc, tmp_path / "one.txt", encoder="clip")
    assert "executed" not in capsys.readouterr().out


def test_dgmmc_gaps(dgmmc, tmp_path):
    torch.save(torch.ones(4), dgmmc / "4.pt")
    with pytest.raises(WrongDimension, match=r"0.pt holds 3 numbers and \S+/4.pt holds 4"):
        from_dgmmc(dgmmc, tmp_path / "labels.txt", encoder="clip")
    (dgmmc / "4.pt").unlink()
    with pytest.raises(NoInput, match=r"4\.pt does not exist, but the label list names it"):
        from_dgmmc(dgmmc, tmp_path / "labels.txt", encoder="clip")
    with pytest.raises(NoInput, match="is no folder"):
        from_dgmmc(tmp_path / "none", tmp_path / "labels.txt", encoder="clip")
    with pytest.raises(NoInput, match="Cannot read the labels"):
        from_dgmmc(dgmmc, tmp_path / "none.txt", encoder="clip")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(LabelError, match="has no labels"):
        from_dgmmc(dgmmc, tmp_path / "empty.txt", encoder="clip")


def test_imported_features_are_stored(tmp_path):
    np.save(tmp_path / "x.npy", X)
    features = from_npy(tmp_path / "x.npy", encoder="clip")
    save(features, tmp_path / "store")
    found = FeatureStore.open(tmp_path / "store").read()
    np.testing.assert_array_equal(found.embedding, X)
    assert found.fingerprint == features.fingerprint
