"""The soak notices each kind of loss, in a database that is right but for it."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from mixtura.catalog.database import SCHEMA

sys.path.insert(0, str(Path(__file__).parent))
from ledger import Ledger

JOURNAL = "CREATE TABLE decision (id, label, verdict, model, told, product)"
ROWS = {
    1: ("enroll", "Enrolled a.", 0, None, [["product", "a", "gone", 1, 0]]),
    2: ("enroll", "Enrolled b.", 1, None, [["product", "b", "gone", 1, 0]]),
    3: ("undo", "Undone: Enrolled b.", 0, 2, [["product", "b", "gone", 0, 1]]),
    4: ("rename", "Renamed.", 0, None, [["product", "a", "name", "a", "c"]]),
}


@pytest.fixture
def database():
    """Two products were enrolled, one was taken back, the other renamed; one question was answered and confirmed."""
    db = sqlite3.connect(":memory:")
    db.executescript(f"{SCHEMA};{JOURNAL}")
    for number, (kind, said, undone, undoes, changes) in ROWS.items():
        values = (number, kind, said, json.dumps(changes), undone, undoes)
        db.execute("INSERT INTO edit VALUES (?, '', ?, ?, ?, ?, ?)", values)
    db.execute("INSERT INTO product VALUES ('a', 'c', 'provisional', '', 0), ('b', 'b', 'provisional', '', 1)")
    db.execute("INSERT INTO part VALUES (1, 'a', NULL)")
    db.execute("INSERT INTO item VALUES (1, 1, NULL, 'train', '', NULL, 'x', 1.0, '', x'', NULL)")
    db.execute("INSERT INTO decision VALUES ('d', 'a', 'match', 'm0r1', 1, 'a')")
    yield db
    db.close()


def ledger():
    made = Ledger()
    for number, (kind, said, *_) in ROWS.items():
        made.edit({"edit": {"number": number, "kind": kind, "summary": said}}, ["x"] if number == 1 else [])
    made.answer(
        0, {"decision_id": "d", "label": "a", "verdict": "match", "model": "m0r1"} | dict.fromkeys(NUMBERS, 0.5)
    )
    made.confirmed["d"] = "a"
    return made


NUMBERS = ("probability", "typicality")


def test_nothing_is_lost(database):
    made = ledger()
    made.check(database)
    made.check(database)
    assert made.faults == []


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("DELETE FROM edit WHERE number = 1", "not listed any more"),
        ("DELETE FROM edit WHERE number = 4", "not listed any more"),
        ("DELETE FROM edit", "not listed any more"),
        ("UPDATE edit SET said = 'Enrolled z.' WHERE number = 1", "edit 1 is 'Enrolled z.'"),
        ("UPDATE edit SET undone = 1 WHERE number = 4", "edits are gone"),
        ("UPDATE product SET name = 'a' WHERE id = 'a'", "name of product a"),
        ("UPDATE product SET gone = 1 WHERE id = 'a'", "gone of product a"),
        ("UPDATE item SET part = NULL", "photos of edit 1 are gone"),
        ("DELETE FROM decision", "decision d is None"),
        ("UPDATE decision SET verdict = 'unknown'", "decision d is"),
        ("UPDATE decision SET model = 'm0r2'", "decision d is"),
        ("UPDATE decision SET told = NULL", "confirmation of d"),
        ("UPDATE decision SET product = 'b'", "confirmation of d"),
    ],
)
def test_a_loss_is_a_fault(database, loss, said):
    made = ledger()
    made.models.add("m0")
    made.check(database)
    database.execute(loss)
    made.check(database)
    assert any(said in fault for fault in made.faults), made.faults


def test_a_refit_begins_the_list_anew_and_takes_no_standing_edit(database):
    made = ledger()
    made.check(database)
    made.undone.update(["Enrolled a.", "Renamed."])
    made.fits += 1
    database.execute("DELETE FROM edit")
    made.check(database)
    made.check(database)
    assert made.faults == []
    standing = ledger()
    standing.fits += 1
    standing.check(database)
    assert any("edits are gone" in fault for fault in standing.faults)


def test_an_undo_without_an_answer_explains_one_edit_once(database):
    made = ledger()
    made.undo_begins()
    database.execute("UPDATE edit SET undone = 1 WHERE number = 4")
    database.execute("UPDATE product SET name = 'a'")
    made.check(database)
    assert made.faults == []
    database.execute("UPDATE edit SET undone = 1 WHERE number = 1")
    made.check(database)
    assert len(made.faults) == 1 and "edits are gone" in made.faults[0]


def test_another_answer_of_the_same_model_is_a_fault():
    made = ledger()
    assert made.compare(0, "m0r1", ("a", 0.5, 0.50001)) and not made.faults
    made.compare(0, "m0r2", ("b", 0.5, 0.5))
    assert not made.faults
    for said in (("b", 0.5, 0.5), ("a", 0.6, 0.5), ("a", 0.5, 0.4)):
        made.compare(0, "m0r1", said)
    assert len(made.faults) == 3
