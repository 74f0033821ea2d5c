"""What tests of several folders look into."""

import sqlite3

import pytest
import torch

torch.set_num_threads(1)  # a forked child hangs in OpenMP where its parent has been in it with more threads


def whole(path):
    """Each edit of a catalog is all there or not at all, if each enrolled three items; the number of edits."""
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    edits = db.execute("SELECT number, kind, undone, changes FROM edit ORDER BY number").fetchall()
    assert [edit[0] for edit in edits] == list(range(1, len(edits) + 1))
    enrolled = sum(kind == "enroll" for _, kind, _, _ in edits)
    assert db.execute("SELECT count(*) FROM item WHERE base IS NULL AND split = 'train'").fetchone()[0] == 3 * enrolled
    loose = db.execute("SELECT count(*) FROM item WHERE part IS NULL").fetchone()[0]
    assert loose == 3 * sum(kind == "enroll" and undone for _, kind, undone, _ in edits)
    gone = db.execute("SELECT count(*) FROM product WHERE gone = 1").fetchone()[0]
    ended = sum(kind in ("merge", "remove_product") and not undone for _, kind, undone, _ in edits)
    assert gone == ended + sum(kind == "enroll" and undone for _, kind, undone, _ in edits)
    db.close()
    return len(edits)


@pytest.fixture
def assert_whole():
    """Look into a catalog after a kill."""
    return whole
