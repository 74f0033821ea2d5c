"""The feature store keeps what it was given, and says so when it cannot."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtura import files
from mixtura.errors import CannotWrite, FingerprintMismatch, NoInput, NonFinite, OutOfSpace, StoreError, WrongDimension
from mixtura.features.store import FeatureStore


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_everything_comes_back(store, make_rows):
    odd = ["ä b", "日本", "line\nbreak", "a" * 300]
    first = make_rows(odd, label=["x", None, "é", "x"], group=["g", None, None, "g"], weight=np.array([0, 1, 0.5, 3]))
    second = make_rows("cd", seed=1)
    store.append(first)
    store.append(second)
    found = FeatureStore.open(store.path).read()
    assert found.id == [*odd, "c", "d"]
    assert found.label == [*first.label, *second.label]
    assert (found.group, found.superlabel[0], found.split[0]) == (["g", None, None, "g", None, None], None, "train")
    np.testing.assert_array_equal(found.embedding, np.concatenate([first.embedding, second.embedding]))
    np.testing.assert_array_equal(found.weight, [0, 1, 0.5, 3, 1, 1])
    assert found.identity == store.identity
    assert found.versions == {"torch": "1"}
    assert found.embedding.flags.c_contiguous


def test_float16_rounds_and_refuses_what_it_cannot_hold(tmp_path, make_rows):
    store = FeatureStore.create(tmp_path / "half", {"name": "n"}, 4, "float16")
    rows = make_rows("ab")
    store.append(rows)
    np.testing.assert_array_equal(store.read().embedding, rows.embedding.astype(np.float16).astype(np.float32))
    rows.embedding[1] = 1e5
    with pytest.raises(NonFinite, match="beyond 65504, the limit of float16, the first 'b'"):
        store.append(rows)
    assert len(store.part_paths()) == 1


def test_an_empty_store_is_readable(store):
    found = store.read()
    assert found.embedding.shape == (0, 4)
    assert (found.id, found.classes, store.digests()) == ([], (), {})


def test_no_rows_no_part(store, make_rows):
    assert store.append(make_rows([])) is None
    assert store.part_paths() == []


def test_a_later_row_overrides_an_earlier_one_in_its_place(store, make_rows):
    store.append(make_rows("abc"))
    changed = make_rows("bd", seed=1, label=["new", "x"])
    store.append(changed)
    found = store.read()
    assert found.id == ["a", "b", "c", "d"]
    assert found.label == ["x", "new", "x", "x"]
    np.testing.assert_array_equal(found.embedding[1], changed.embedding[0])
    assert store.digests()["b"] == changed.sha256[0]


def test_facts_are_the_rows_without_embedding(store, make_rows):
    store.append(make_rows("ab"))
    assert store.facts().embedding.shape == (2, 0)
    assert store.facts().sha256 == store.read().sha256


def test_parts_are_plain_parquet_with_the_identity(store, make_rows):
    path = store.append(make_rows("ab"))
    table = pq.read_table(path)
    assert table.schema.field("embedding").type == pa.list_(pa.field("element", pa.float32(), nullable=False), 4)
    assert json.loads(table.schema.metadata[b"identity"]) == store.identity


@pytest.mark.parametrize("wrong", ["dimension", "nan"])
def test_bad_rows_leave_the_store_as_it_was(store, make_rows, wrong):
    store.append(make_rows("ab"))
    before = content(store.path)
    rows = make_rows("cd", dimension=5) if wrong == "dimension" else make_rows("cd")
    rows.embedding[0, 0] = np.nan if wrong == "nan" else 0
    with pytest.raises(WrongDimension if wrong == "dimension" else NonFinite):
        store.append(rows)
    assert content(store.path) == before


def test_another_encoder_is_refused_by_name(store):
    with pytest.raises(FingerprintMismatch, match=r"'means' .*not of 'other' .*name is 'means' here and 'other' there"):
        store.check({"name": "other", "weights": "none"})
    with pytest.raises(FingerprintMismatch):
        FeatureStore.open_or_create(store.path, {"name": "other"}, 4)
    assert FeatureStore.open_or_create(store.path, store.identity, 4).fingerprint == store.fingerprint


def test_a_store_is_never_made_over_another(store):
    with pytest.raises(CannotWrite, match="already holds features"):
        FeatureStore.create(store.path, store.identity, 4)


@pytest.mark.parametrize("arguments", [(4, "int8"), (0, "float32")])
def test_senseless_layouts(tmp_path, arguments):
    with pytest.raises(StoreError, match="cannot be made"):
        FeatureStore.create(tmp_path / "s", {"name": "n"}, *arguments)


def test_no_store_there(tmp_path):
    with pytest.raises(NoInput, match="is no feature store"):
        FeatureStore.open(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(NoInput, match="is no feature store"):
        FeatureStore.open(tmp_path / "file")
    with pytest.raises(CannotWrite, match="Cannot write"):
        FeatureStore.create(tmp_path / "file", {"name": "n"}, 4)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"layout": 1}', '{"layout": 2, "identity": {}}', "\udcff"])
def test_a_damaged_header(store, text):
    (store.path / "store.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StoreError, match=r"store\.json"):
        FeatureStore.open(store.path)


def test_a_newer_layout(store):
    header = json.loads((store.path / "store.json").read_text())
    (store.path / "store.json").write_text(json.dumps(header | {"layout": 2}))
    with pytest.raises(StoreError, match="another layout than 1"):
        FeatureStore.open(store.path)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "grow"])
def test_a_damaged_part_names_its_file(store, make_rows, damage):
    store.append(make_rows("ab"))
    path = store.append(make_rows("cd"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(
        {"flip": bytes(data), "cut": bytes(data[:-9]), "empty": b"", "grow": path.read_bytes() + b"\0"}[damage]
    )
    with pytest.raises(StoreError, match=f"{path.name} is damaged"):
        store.read()
    path.unlink()
    assert store.read().id == ["a", "b"]


def test_every_single_flipped_byte_is_found(store, make_rows):
    path = store.append(make_rows("a"))
    data = path.read_bytes()
    for place in range(0, len(data), 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        with pytest.raises(StoreError):
            store.read()


def test_foreign_files(store, make_rows):
    store.append(make_rows("ab"))
    (store.path / "notes.txt").write_text("mine")
    assert len(store.read()) == 2
    pq.write_table(pa.table({"x": [1]}), store.path / "other.parquet")
    with pytest.raises(StoreError, match=r"other\.parquet is no part of this store"):
        store.read()


def test_a_part_of_another_layout_with_a_right_name(store):
    import hashlib

    pq.write_table(pa.table({"x": [1]}), store.path / "t")
    data = (store.path / "t").read_bytes()
    (store.path / f"part-000000-{hashlib.sha256(data).hexdigest()[:16]}.parquet").write_bytes(data)
    for read in (store.read, store.facts):
        with pytest.raises(StoreError, match="is no part of a feature store"):
            read()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_leaves_the_parts_before(store, make_rows, monkeypatch, code):
    store.append(make_rows("ab"))
    before = content(store.path)

    def half(path, data):
        path.write_bytes(data[: len(data) // 2])
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_through", half)
        with pytest.raises(OutOfSpace, match=f"{os.strerror(code)}. Free space"):
            store.append(make_rows("cd"))
    assert content(store.path) == before
    store.append(make_rows("cd"))
    assert store.read().id == ["a", "b", "c", "d"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_read_only_folder(store, make_rows, monkeypatch, code):
    store.append(make_rows("ab"))

    def refuse(path, data):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "_write_through", refuse)
    with pytest.raises(CannotWrite, match=f"{os.strerror(code)}. Choose a folder"):
        store.append(make_rows("cd"))
    assert store.read().id == ["a", "b"]


def test_a_folder_that_is_gone(store, make_rows):
    (store.path / "store.json").unlink()
    store.path.rmdir()
    with pytest.raises(CannotWrite, match="No such file or directory"):
        store.append(make_rows("ab"))


def test_a_second_writer_is_told_who_holds_the_store(store, make_rows):
    other = FeatureStore.open(store.path)
    with store.lock(), store.lock():
        store.append(make_rows("ab"))
        with pytest.raises(CannotWrite, match=rf"being written by another process \(pid {os.getpid()}\)"):
            other.append(make_rows("cd"))
        assert other.read().id == ["a", "b"]
    other.append(make_rows("cd"))
    store.append(make_rows("ef"))
    assert [int(path.name[5:11]) for path in store.part_paths()] == [0, 1, 2]


def test_another_process_holds_the_lock_until_it_is_killed(store, make_rows):
    code = (
        "import sys, time; from pathlib import Path; from mixtura.features.store import FeatureStore\n"
        "with FeatureStore.open(Path(sys.argv[1])).lock():\n    print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(store.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(CannotWrite, match=rf"pid {child.pid}\b"):
            store.append(make_rows("ab"))
    finally:
        child.kill()
        child.communicate()
    store.append(make_rows("ab"))
    assert len(store.read()) == 2


def test_leftovers_of_a_killed_writer_are_collected(store, make_rows):
    leftover = store.path / f"{files.TEMPORARY_PREFIX}1-dead"
    leftover.write_bytes(b"half a part")
    store.append(make_rows("ab"))
    assert not leftover.exists()


def test_write_replaces_whole(tmp_path: Path):
    path = tmp_path / "f"
    files.write(path, b"one")
    files.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
