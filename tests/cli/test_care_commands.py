"""inspect, drift, discover and recalibrate, from the command line to a real catalog."""

import hashlib
import json
import os
import time

import numpy as np
import pytest

from mixtura.features import imports
from mixtura.features.records import Rows, to_features
from mixtura.recipe import resolve

CENTERS = 4 * np.random.default_rng(0).standard_normal((4, 12))
STRANGE = 8 * np.random.default_rng(9).standard_normal(12)


def near(mean, n, seed, spread=1.0):
    return (mean + spread * np.random.default_rng(seed).standard_normal((n, 12))).astype(np.float32)


def store(path, x, label):
    ids, none = [f"i{i}" for i in range(len(x))], [None] * len(x)
    digests = [hashlib.sha256(row.tobytes()).hexdigest() for row in x]
    rows = Rows(x, ids, [f"{id}.jpg" for id in ids], list(label), none, none, none, np.ones(len(x)), digests)
    imports.save(to_features(rows, {"name": "tiny", "size": "32 px", "weights": "w"}), path)
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    from mixtura.tasks import fit

    folder = tmp_path_factory.mktemp("made")
    x = np.concatenate([near(CENTERS[c], 60, seed=c) for c in range(4)])
    label = [f"c{c}" for c in range(4) for _ in range(60)]
    label[7] = "c3"
    source = store(folder / "store", x, label)
    fit.run(resolve({"data.kind": "features", "data.root": source, "output": folder / "shop"}))
    return folder


@pytest.fixture
def shop(fitted, tmp_path):
    import shutil

    return shutil.copytree(fitted / "shop", tmp_path / "shop")


def ask(shop, x, days_ago=0):
    from mixtura.catalog import Catalog
    from mixtura.catalog.journal import SECONDS_A_DAY, Journal

    catalog, journal = Catalog.open(shop), Journal.open(shop)
    ids = journal.log(catalog.decide([str(i) for i in range(len(x))], x), x, at=time.time() - days_ago * SECONDS_A_DAY)
    return catalog, journal, ids


def test_inspect_finds_the_wrong_label_in_a_model_and_in_a_store(mixtura, shop, fitted, tmp_path):
    for place in (shop, fitted / "store"):
        answer = mixtura("inspect", place, "--json", "--html", tmp_path / "care.html")
        record = json.loads(answer.out)
        assert answer.code == 0 and answer.err == ""
        [suspect] = record["suspects"]
        assert (suspect["id"], suspect["given"], suspect["suggested"]) == ("i7", "c3", "c0")
        assert record["html"] == str(tmp_path / "care.html") and "i7.jpg" in (tmp_path / "care.html").read_text()
    assert mixtura("inspect", shop, "-q").out == "i7.jpg\tc3\tc0\n"
    told = mixtura("inspect", shop).out
    assert "1 label looks wrong" in told and "No photo has several labels" in told


def test_drift_of_an_unused_catalog_says_so(mixtura, shop):
    answer = mixtura("drift", shop)
    assert answer.code == 0 and "The journal has no decisions from the last 30 days" in answer.out


def test_drift_raises_an_alarm_when_strangers_come(mixtura, shop, tmp_path):
    for day in range(3, 0, -1):
        x = np.concatenate([near(CENTERS[c], 25, seed=10 * day + c) for c in range(4)])
        ask(shop, np.random.default_rng(day).permutation(x), day)
    ask(shop, near(STRANGE, 40, seed=99))
    answer = mixtura("drift", shop, "--json", "--html", tmp_path / "drift.html")
    record = json.loads(answer.out)
    assert [day["count"] for day in record["days"]] == [100, 100, 100, 40]
    assert {alarm["kind"]: alarm["raised"] for alarm in record["alarms"]} == {
        "unknown": True, "typicality": False, "mix": False, "classes": False,
    }  # fmt: skip
    assert "Something has changed" in (tmp_path / "drift.html").read_text()
    lines = mixtura("drift", shop, "-q").out.splitlines()
    assert lines[0].startswith("unknown\talarm\t") and len(lines) == 4
    assert "alarm" in mixtura("drift", shop, "--days", "7").out


def test_discover_lists_groups_and_enrolls_one(mixtura, shop, tmp_path):
    assert "The journal has 0 unknown photos." in mixtura("discover", shop).out
    ask(shop, near(STRANGE, 6, seed=1))
    [group] = json.loads(mixtura("discover", shop, "--json", "--html", tmp_path / "groups.html").out)
    assert group["size"] == 6 and group["id"] in (tmp_path / "groups.html").read_text()
    told = mixtura("discover", shop).out
    assert group["id"] in told and f"--accept {group['id']}" in told
    answer = mixtura("discover", shop, "--accept", group["id"], "--name", "red kettle")
    assert answer.code == 0 and "red kettle" in answer.out
    assert json.loads(mixtura("discover", shop, "--json").out) == []


def test_drift_and_discover_say_how_many_bad_photos_they_leave_out(mixtura, shop):
    from dataclasses import replace

    catalog, journal, _ = ask(shop, near(CENTERS[0], 2, seed=1))
    x = near(STRANGE, 3, seed=5)
    blurred = [replace(one, verdict="unknown", reason="bad_photo") for one in catalog.decide(["a", "b", "c"], x)]
    for words in (["drift"], ["discover"]):
        assert "bad_photo" not in mixtura(*words, shop).out
    journal.log(blurred, x)
    for words in (["drift"], ["discover"]):
        assert "3 photos were blurred, dark or blank (reason bad_photo)" in mixtura(*words, shop).out


@pytest.mark.parametrize("served", [True, False])
def test_drift_and_discover_read_a_folder_that_may_not_be_written(mixtura, shop, monkeypatch, served):
    if served:
        catalog, journal, _ = ask(shop, near(STRANGE, 6, seed=1))
        catalog.close()
        journal.close()
    else:
        assert mixtura("products", shop).code == 0
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    for words in (["drift"], ["discover"]):
        answer = mixtura(*words, shop)
        assert answer.code == 0, answer.err


def test_discover_needs_both_group_and_name(mixtura, shop):
    answer = mixtura("discover", shop, "--accept", "g-1")
    assert answer.code == 2 and "Give --accept and --name together" in answer.err
    answer = mixtura("discover", shop, "--accept", "g-1", "--name", "kettle")
    assert answer.code == 66 and "no group 'g-1'" in answer.err


def test_recalibrate_shows_first_and_writes_when_told(mixtura, shop, tmp_path):
    x = np.concatenate([near(CENTERS[c], 15, seed=50 + c, spread=1.3) for c in range(4)])
    checked = store(tmp_path / "checked", x, [f"c{c}" for c in range(4) for _ in range(15)])
    record = json.loads(mixtura("recalibrate", shop, "--confirmed", checked, "--json").out)
    assert record["written"] is False and record["count"] == 60
    assert record["after"]["false_reject"]["value"] < record["before"]["false_reject"]["value"]
    told = mixtura("recalibrate", shop, "--confirmed", checked)
    assert "Nothing was changed. Add --write to keep the new limits." in told.out and told.err == ""
    assert "standard error" in told.out and json.loads(mixtura("history", shop, "--json").out) == []
    told = mixtura("recalibrate", shop, "--confirmed", checked, "--write")
    assert "Calibrated anew on 60 items." in told.out and "mixtura undo" in told.out
    now = json.loads(mixtura("recalibrate", shop, "--confirmed", checked, "--json").out)
    assert now["before"]["false_reject"]["value"] <= 0.05
    assert mixtura("undo", shop).code == 0


def test_recalibrate_from_answers_of_clients(mixtura, shop):
    answer = mixtura("recalibrate", shop)
    assert answer.code == 65 and "0 confirmed photos are too few" in answer.err
    catalog, journal, ids = ask(shop, np.concatenate([near(CENTERS[c], 8, seed=70 + c) for c in range(4)]))
    for i, id in enumerate(ids):
        journal.feedback(id, catalog.product(f"c{i // 8}").id)
    answer = mixtura("recalibrate", shop)
    assert answer.code == 0 and "32 confirmed photos" in answer.out and "give a rough limit" in answer.out


def test_a_folder_that_is_no_catalog_is_named(mixtura, tmp_path):
    for words in (["drift"], ["discover"], ["recalibrate"], ["inspect"]):
        answer = mixtura(*words, tmp_path)
        assert answer.code == 66 and str(tmp_path) in answer.err and answer.out == ""
