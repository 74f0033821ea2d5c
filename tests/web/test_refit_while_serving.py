"""A model that is fitted again while a service answers with it."""

import io
import shutil
import sqlite3
import threading
import time
import wave

import numpy as np
import pytest

from mixtura.catalog import Catalog
from mixtura.errors import CannotWrite
from mixtura.model import bundle
from mixtura.recipe import resolve
from mixtura.tasks import fit


@pytest.fixture
def refit(shop):
    """Fit the photos of the shop again, into a folder, with options of one's own."""

    def run(folder, photos=shop.parent / "photos", **options):
        keys = {key.replace("__", "."): value for key, value in options.items()}
        common = {"data.root": str(photos), "encoder.name": "tiny", "output": str(folder), "extract.workers": 1}
        return fit.run(resolve(common | keys))

    return run


def asked(running, photo):
    """The decision on a photo; every answer names the model that made it."""
    answer = running.client.post("/v1/classify", content=photo, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text
    [decision] = answer.json()["decisions"]
    assert decision["model"] == answer.json()["model"]["model"]
    return decision


@pytest.fixture
def more_photos(shop, photo, tmp_path):
    """The photos of the shop with those of a new product."""
    root = shutil.copytree(shop.parent / "photos", tmp_path / "photos")
    (root / "plum").mkdir()
    for number in range(15):
        (root / "plum" / f"{number}.png").write_bytes(photo("plum", number))
    return root


def test_the_next_request_is_answered_by_the_new_model(serve, refit, photo, more_photos):
    running = serve()
    old = asked(running, photo("plum"))
    assert old["label"] != "plum"
    refit(running.folder, more_photos)
    new = asked(running, photo("plum"))
    assert new["label"] == "plum" and new["model"] == f"{bundle.fingerprint(running.folder)}r0" != old["model"]
    assert running.client.get("/readyz").status_code == 200
    assert running.client.get("/v1/model").json()["classes"] == 4
    items = running.client.get("/v1/products/plum/items").json()["items"]
    assert running.client.get(items[0]["thumbnail"]).status_code == 200
    said = {"decision": old["decision_id"], "product": "plum"}  # a question to the old model
    assert running.client.post("/v1/feedback", json=said).status_code == 204
    assert running.client.post("/v1/products", json={"name": "x", "decisions": [old["decision_id"]]}).status_code == 201
    with pytest.raises(CannotWrite, match="holds 1 edit"):
        refit(running.folder, more_photos)
    assert asked(running, photo("plum"))["model"] == f"{bundle.fingerprint(running.folder)}r1"


def test_a_model_of_another_encoder_brings_its_encoder(serve, refit, photo):
    running = serve()
    old = asked(running, photo("apple"))
    for encoder, size in (("pixels", None), ("tiny", None), ("tiny", 48)):
        refit(running.folder, encoder__name=encoder, **({} if size is None else {"encoder__size": size}))
        new = asked(running, photo("apple"))
        assert new["label"] == "apple" and new["model"] == f"{bundle.fingerprint(running.folder)}r0"
        assert running.client.get("/v1/model").json()["encoder"] == encoder == running.service.encoder.name
        assert running.client.get("/readyz").status_code == 200
        assert running.client.get("/v1/drift").json()["left_out"] > 0
        answer = running.client.post("/v1/products", json={"name": "x", "decisions": [old["decision_id"]]})
        if encoder == "pixels":
            assert answer.status_code == 409 and "another encoder" in answer.json()["detail"]
        elif answer.status_code == 201:
            running.client.post("/v1/undo")
    assert Catalog.open(running.folder).revision in {0, 2}


def test_questions_in_work_are_answered_whatever_comes(serve, refit, photo, more_photos):
    """Every answer fits the model that it names; none is refused."""
    running = serve()
    wrong, models, stop = [], set(), threading.Event()
    photos = [photo(label, 500) for label in ("apple", "pear", "kiwi", "plum")]

    def ask():
        while not stop.is_set():
            answer = running.classify(*photos)
            if answer.status_code != 200:
                wrong.append(answer.text)
                continue
            for decision in answer.json()["decisions"]:
                models.add((decision["model"], "plum" in [one["label"] for one in decision["candidates"]]))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    known = {}
    try:
        for options in ({}, {"photos": more_photos}, {"encoder__name": "pixels"}, {"photos": more_photos}):
            if options:
                refit(running.folder, **options)
            known[bundle.fingerprint(running.folder)] = "photos" in options
            time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not wrong
    seen = {model.partition("r")[0] for model, _ in models}
    assert seen <= set(known) and len(seen) >= 2
    assert not [model for model, plum in models if plum and not known[model.partition("r")[0]]]


def test_a_folder_that_goes_and_comes_is_not_ready_meanwhile(serve, refit, photo, tmp_path):
    running = serve()
    asked(running, photo())
    running.folder.rename(tmp_path / "away")
    for method, path in (("GET", "/readyz"), ("GET", "/v1/products"), ("POST", "/v1/classify")):
        send = {"content": photo(), "headers": {"Content-Type": "image/png"}} if method == "POST" else {}
        answer = running.client.request(method, path, **send)
        assert answer.status_code == 503 and "retry-after" in answer.headers, path
        assert str(tmp_path) not in answer.text
    assert running.client.get("/healthz").status_code == 200
    (tmp_path / "away").rename(running.folder)
    assert running.client.get("/readyz").status_code == 200 and asked(running, photo())["label"] == "apple"
    shutil.rmtree(running.folder)
    refit(running.folder)
    assert running.client.get("/readyz").status_code == 200
    id = asked(running, photo())["decision_id"]
    with sqlite3.connect(running.folder / "catalog.sqlite") as database:
        assert database.execute("SELECT id FROM decision").fetchall() == [(id,)]  # in the file that is there now
    database.close()


def test_a_refit_that_could_not_be_served_is_refused_and_the_old_model_answers_on(serve, refit, photo, tmp_path):
    running = serve()
    old = asked(running, photo())
    for head in ("prototype", "softmax", "sdgm-f"):
        with pytest.raises(CannotWrite, match="fixed set of classes"):
            refit(running.folder, head__name=head)
        new = asked(running, photo())
        assert new["model"] == old["model"] and new["probability"] == pytest.approx(old["probability"], abs=1e-6)
    for label, hertz in (("hum", 110), ("whistle", 1900)):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        for number in range(6):
            (tmp_path / "sounds" / label / f"{number}.wav").write_bytes(tone(hertz * (1 + number / 20)))
    with pytest.raises(CannotWrite, match="catalog of photos, and the new model reads sounds"):
        refit(running.folder, tmp_path / "sounds", encoder__name="logmel", data__kind="audio")
    assert running.client.get("/readyz").status_code == 200
    assert asked(running, photo())["model"] == old["model"]
    refit(running.folder, head__family="diagonal")  # what a catalog can have goes on as before
    assert asked(running, photo())["model"] == f"{bundle.fingerprint(running.folder)}r0" != old["model"]


def tone(hertz, rate=16_000):
    """Half a second of a sine, as WAV."""
    target, time = io.BytesIO(), np.arange(rate // 2) / rate
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((8000 * np.sin(2 * np.pi * hertz * time)).astype("<i2").tobytes())
    return target.getvalue()


def test_a_model_that_cannot_be_served_makes_it_not_ready(serve, refit, photo, tmp_path, caplog):
    """Somebody has copied one over the folder."""
    running = serve()
    refit(tmp_path / "fixed", head__name="prototype")
    shutil.copytree(tmp_path / "fixed", running.folder, dirs_exist_ok=True)
    send = {"content": photo(), "headers": {"Content-Type": "image/png"}}
    assert running.client.post("/v1/classify", **send).status_code == 503
    assert running.client.get("/readyz").status_code == 503
    [told] = [record for record in caplog.records if record.name == "mixtura.web" and record.levelname == "ERROR"]
    assert "fixed set of classes" in told.getMessage()  # what the answers send the operator to, once
    refit(running.folder)
    assert running.client.get("/readyz").status_code == 200
    assert asked(running, photo())["label"] == "apple"


def test_it_is_not_ready_while_no_decision_can_be_stored(serve, photo, monkeypatch):
    running = serve()
    journal, broken = running.journal, []

    def log(*given):
        broken.append(given)
        raise CannotWrite("The disk is out of order.")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "log", log)
        patch.setattr(journal, "check_writable", log)
        send = {"content": photo(), "headers": {"Content-Type": "image/png"}}
        assert running.client.post("/v1/classify", **send).status_code == 503
        assert running.client.get("/readyz").status_code == 503
    before = journal.logged()
    assert running.client.get("/readyz").status_code == 200  # asks again whether it could, so as not to stay out
    assert journal.logged() == before == ()
    asked(running, photo())
