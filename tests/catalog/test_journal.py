"""The journal keeps what was decided: whole or not at all, from any thread, and no photo unless asked."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from mixtura.catalog.database import CATALOG_FILE
from mixtura.catalog.journal import MAX_PHOTO_BYTES, PRODUCT_ID, SECONDS_A_DAY, Journal
from mixtura.errors import CannotWrite, NoInput, UsageError
from mixtura.records.decision import Decision


def decision(verdict="match", label="cup", reason=None, typicality=0.4, probability=0.9):
    return Decision("a.jpg", label, probability, typicality, verdict, reason, "Said.", 0)


def rows(n, d=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def test_a_decision_comes_back_as_it_was_noted(journal):
    given = [decision(), decision("unknown", "pot", "far_from_all", 0.01, 0.5)]
    ids = journal.log(given, rows(2), at=86_400.0 * 20_000)
    assert len(set(ids)) == 2 and all(PRODUCT_ID.fullmatch(id) for id in ids)
    found = journal.logged(days=10**5)
    assert [note.id for note in found] == ids
    for note, one in zip(found, given, strict=True):
        for name in ("verdict", "reason", "label", "probability", "typicality"):
            assert getattr(note, name) == getattr(one, name)
    assert found[0].at == "2024-10-04T00:00:00+00:00"
    assert not found[0].told and found[0].product is None and not found[0].photo


@pytest.mark.parametrize("scale", [1.0, 1e-7, 1e6, 0.0])
def test_embeddings_keep_three_digits_at_any_scale(journal, scale):
    x = scale * rows(3)
    ids = journal.log([decision()] * 3, x)
    back = journal.embedding([ids[2], ids[0]])
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, x[[2, 0]], atol=1e-3 * np.abs(x).max(), rtol=0)


def test_numbers_of_rows_must_agree(journal):
    with pytest.raises(UsageError, match="1 decisions, 2 rows"):
        journal.log([decision()], rows(2))
    with pytest.raises(UsageError, match="1 pictures"):
        journal.log([decision()] * 2, rows(2), [b"x"])
    assert journal.logged() == () and journal.log([], rows(0)) == []


def test_no_photo_is_kept_unless_asked(tmp_path, journal):
    photo = b"\xff\xd8\xff" + b"secret of the shop" * 9
    [plain] = journal.log([decision()], rows(1), [photo])
    assert journal.picture(plain) is None
    keeping = Journal.open(tmp_path, keep_photos=True)
    kept = keeping.log([decision()] * 3, rows(3), [photo, None, b"x" * (MAX_PHOTO_BYTES + 1)])
    assert [keeping.picture(id) for id in kept] == [photo, None, None]
    assert [note.photo for note in keeping.logged()] == [False, True, False, False]
    keeping.close()


def test_bytes_of_a_photo_never_reach_the_disk_unless_asked(tmp_path, journal):
    journal.log([decision()], rows(1), [b"\xff\xd8\xffsecret of the shop"])
    journal.close()
    assert all(b"secret of the shop" not in path.read_bytes() for path in tmp_path.iterdir())


def test_feedback_settles_or_confirms_an_unknown(journal):
    ids = journal.log(
        [decision("unknown", reason="far_from_all"), decision("unknown", reason="far_from_all"), decision(),
         decision("unknown", reason="bad_photo"), decision("unsure", reason="between_classes")],
        rows(5),
    )  # fmt: skip
    assert [note.id for note in journal.unknowns()] == ids[:2]
    journal.feedback(ids[0], "red-kettle")
    journal.feedback(ids[2], None)  # a match that the client says is nothing of ours
    assert [note.id for note in journal.unknowns()] == [ids[1], ids[2]]
    assert [(note.id, note.product) for note in journal.answered()] == [(ids[0], "red-kettle")]
    journal.feedback(ids[0], None)  # changed their mind
    assert [note.id for note in journal.unknowns()] == ids[:3]
    journal.resolve(ids[:2], "kettle")
    assert [note.id for note in journal.unknowns()] == [ids[2]]


def test_what_is_not_there_is_named(journal):
    [id] = journal.log([decision("unknown", reason="far_from_all")], rows(1))
    for call in (
        lambda: journal.feedback("nope", None),
        lambda: journal.embedding(["nope"]),
        lambda: journal.picture("nope"),
        lambda: journal.resolve([id, "nope"], "cup"),
    ):
        with pytest.raises(NoInput, match="'nope'"):
            call()
    assert [note.id for note in journal.unknowns()] == [id]  # settle is all or nothing
    with pytest.raises(UsageError, match="no id of a product"):
        journal.feedback(id, "../Cup")


def test_a_folder_without_a_catalog_is_refused(tmp_path):
    with pytest.raises(NoInput, match="is no catalog yet"):
        Journal.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_old_and_superfluous_decisions_go(journal):
    now = time.time()
    for age in (100, 89, 1, 0):
        journal.log([decision()] * 2, rows(2), at=now - age * SECONDS_A_DAY)
    assert journal.prune() == 2
    assert len(journal.logged(1000)) == 6
    assert journal.prune(count=3) == 3
    assert len(journal.logged(1000)) == 3
    assert journal.prune(count=3) == 0


def test_threads_write_at_once_and_nothing_is_lost(journal):
    def write(seed):
        for i in range(20):
            [id] = journal.log([decision()], rows(1, seed=seed))
            if i % 3 == 0:
                journal.feedback(id, None)
            journal.unknowns()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.logged()) == 120 and len(journal.unknowns()) == 42


def test_another_writer_is_waited_for_and_then_named(journal, tmp_path, monkeypatch):
    other = sqlite3.connect(tmp_path / CATALOG_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with journal._file.reading() as connection:
        connection.execute("PRAGMA busy_timeout = 50")
    with pytest.raises(CannotWrite, match="locked"):
        journal.log([decision()], rows(1))
    other.execute("ROLLBACK")
    other.close()
    assert len(journal.log([decision()], rows(1))) == 1


WRITER = """
import sys
import numpy as np
from pathlib import Path
from mixtura.catalog.journal import Journal
from mixtura.records.decision import Decision
journal = Journal.open(Path(sys.argv[1]))
one = Decision("a", "cup", 0.9, 0.4, "match", None, "Said.", 0)
print("ready", flush=True)
while True:
    journal.log([one] * 7, np.ones((7, 300), np.float32))
"""


def test_a_kill_in_the_middle_leaves_whole_notes(journal, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    before = len(journal.logged())
    while len(journal.logged()) < before + 70:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    found = journal.logged()
    assert len(found) >= 70 and len(found) % 7 == 0
    with journal._file.reading() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert journal.embedding([note.id for note in found]).shape == (len(found), 300)
