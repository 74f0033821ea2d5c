"""What the service answers: the same as the other ways to ask, at once, and after every edit."""

import base64
import io
import threading

import numpy as np
import pytest
from PIL import Image
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from mixtura.catalog import Catalog
from mixtura.catalog.shots import shot_of

FIELDS = ("label", "verdict", "reason", "sentence", "subclass", "threshold", "advice", "model")


def text(photo):
    return base64.b64encode(photo).decode()


def ids(running):
    return {product["name"]: product["id"] for product in running.client.get("/v1/products").json()["products"]}


def one(running, photo, kind="image/png", **query):
    answer = running.client.post("/v1/classify", content=photo, headers={"Content-Type": kind}, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["decisions"][0]


def test_a_decision_is_the_catalogs_own(serve, photo):
    """Raw, as base64, and asked of the catalog in this process."""
    running = serve()
    known = ids(running)
    for seed in range(5):
        for label in ("apple", "pear", "kiwi", "other"):
            data = photo(label, 200 + seed)
            shot = shot_of(running.service.encoder, data, "0")
            expected = running.catalog.decide(["0"], shot.embedding[None], 3)[0].to_dict()
            raw, packed = one(running, data), running.classify(data).json()["decisions"][0]
            for told in (raw, packed):
                assert {key: told[key] for key in FIELDS} == {key: expected[key] for key in FIELDS}
                assert told["probability"] == pytest.approx(expected["probability"], abs=1e-5)
                assert told["typicality"] == pytest.approx(expected["typicality"], abs=1e-5)
                assert [c["label"] for c in told["candidates"]] == [c["label"] for c in expected["candidates"]]
                assert [c["id"] for c in told["candidates"]] == [known[c["label"]] for c in told["candidates"]]
                assert [n["id"] for n in told["neighbors"]] == [n["id"] for n in expected["neighbors"]]
                assert set(told) == {*expected, "decision_id"} - {"false_discovery_rate"}


def test_batches_change_no_answer(serve, photo):
    """Many at once, from many threads, are answered as one by one: to the rounding of another batch size."""
    photos = [photo(label, seed) for seed in range(300, 312) for label in ("apple", "pear", "kiwi", "other")]
    running = serve(batch_size=8, photo_slots=len(photos))  # a slot each: on a slow machine the others are refused
    alone = [one(running, data) for data in photos]
    together = [None] * len(photos)

    def ask(place):
        together[place] = one(running, photos[place])

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(photos))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for a, b in zip(alone, together, strict=True):
        assert {key: a[key] for key in FIELDS} == {key: b[key] for key in FIELDS}
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)
        assert a["typicality"] == pytest.approx(b["typicality"], abs=1e-4)
    batcher = running.service.photos.batcher
    assert batcher.items == 2 * len(photos) and batcher.batches < 2 * len(photos)


def test_the_number_of_neighbors_is_ones_own(serve, photo):
    running = serve()
    for count in (0, 1, 20):
        assert len(one(running, photo(), neighbors=count)["neighbors"]) == count
    for wrong in ("-1", "21", "x", "3.5", ""):
        send = {"params": {"neighbors": wrong}, "json": {"images": [text(photo())]}}
        assert running.client.post("/v1/classify", **send).status_code == 422, wrong


def test_search_finds_the_most_similar_items(serve, photo):
    """By cosine, computed naively."""
    running, data = serve(), photo("pear", 400)
    answer = running.client.post("/v1/search", params={"k": 7}, json={"images": [text(data), text(b"no photo")]}).json()
    near, broken = answer["results"]
    known, x = running.catalog.known(), shot_of(running.service.encoder, data, "").embedding
    cosine = known.embedding @ x / np.linalg.norm(known.embedding, axis=1) / np.linalg.norm(x)
    best = np.argsort(-cosine)[:7]
    assert [item["id"] for item in near] == [known.id[i] for i in best]
    assert [item["similarity"] for item in near] == pytest.approx(cosine[best].tolist(), abs=1e-5)
    assert broken["error"]["reason"] == "not_an_image"


def test_a_broken_photo_is_told_in_its_place(serve, photo):
    running = serve()
    answer = running.classify(photo("apple"), b"no photo", photo("kiwi")).json()["decisions"]
    assert [entry.get("label") for entry in answer] == ["apple", None, "kiwi"]
    assert answer[1] == {"id": "1", "error": {"reason": "not_an_image", "message": answer[1]["error"]["message"]}}
    alone = running.client.post("/v1/classify", content=b"no photo", headers={"Content-Type": "image/png"})
    assert alone.status_code == 422 and "not an image" in alone.json()["detail"]


def test_enroll_use_and_undo(serve, photo):
    """The journey of a shop owner: unknown, enrolled, known, undone, unknown."""
    running = serve()
    asked = one(running, photo("plum", 1))
    assert asked["verdict"] == "unknown"
    body = {"name": "plum", "images": [text(photo("plum", seed)) for seed in (2, 3, 4)]}
    answer = running.client.post("/v1/products", json=body)
    assert answer.status_code == 201, answer.text
    effect = answer.json()
    assert effect["product"]["name"] == "plum" and effect["product"]["status"] == "provisional"
    assert effect["product"]["items"] == 3 and effect["edit"]["kind"] == "enroll"
    known = one(running, photo("plum", 1))
    assert known["label"] == "plum" and known["verdict"] == "match"
    assert known["model"] != asked["model"]
    id = effect["product"]["id"]
    items = running.client.get(f"/v1/products/{id}/items").json()["items"]
    assert len(items) == 3
    shown = running.client.get(items[0]["thumbnail"])
    assert shown.headers["content-type"] == "image/jpeg" and Image.open(io.BytesIO(shown.content)).format == "JPEG"
    undone = running.client.post("/v1/undo").json()
    assert undone["edit"]["kind"] == "undo"
    assert one(running, photo("plum", 1))["verdict"] == "unknown"
    assert [edit["undone"] for edit in running.client.get("/v1/history").json()["edits"]] == [False, True]


def test_enroll_what_was_asked_about(serve, photo):
    running = serve()
    asked = [one(running, photo("plum", seed))["decision_id"] for seed in (2, 3, 4)]
    groups = running.client.get("/v1/unknowns").json()
    assert groups["unsettled"] == 3
    answer = running.client.post("/v1/products", json={"name": "plum", "decisions": asked})
    assert answer.status_code == 201 and answer.json()["product"]["items"] == 3
    assert one(running, photo("plum", 1))["label"] == "plum"
    assert running.client.get("/v1/unknowns").json()["unsettled"] == 0
    again = running.client.post("/v1/products", json={"name": "plum", "decisions": asked})
    assert again.status_code == 409  # they are in the catalog already
    nobody = running.client.post("/v1/products", json={"name": "plum", "decisions": ["0" * 32]})
    assert nobody.status_code == 404


def test_one_bad_photo_enrolls_none(serve, photo):
    running = serve()
    body = {"name": "plum", "images": [text(photo("plum", 1)), text(b"no photo")]}
    answer = running.client.post("/v1/products", json=body)
    assert answer.status_code == 422 and "photo 2" in answer.json()["detail"]
    assert "plum" not in ids(running) and running.client.get("/v1/history").json() == {"edits": []}


def test_every_edit(serve, photo):
    running = serve()
    change = lambda id, body: running.client.patch(f"/v1/products/{id}", json=body)  # noqa: E731
    assert change(ids(running)["apple"], {"name": "red apple"}).json()["product"]["name"] == "red apple"
    apple = ids(running)["red apple"]
    running.client.post("/v1/products", json={"name": "plum", "images": [text(photo("plum", s)) for s in (1, 2, 3)]})
    plum = ids(running)["plum"]
    assert change(plum, {"confirmed": True}).json()["product"]["status"] == "confirmed"
    assert change(plum, {"confirmed": True}).status_code == 409
    items = [item["id"] for item in running.client.get(f"/v1/products/{plum}/items").json()["items"]]
    assert change(plum, {"split": {"items": items[:1], "name": "yellow plum"}}).status_code == 200
    yellow = ids(running)["yellow plum"]
    assert change(yellow, {"merge_into": plum}).status_code == 200
    assert "yellow plum" not in ids(running)
    assert running.client.delete(f"/v1/items/{items[0]}").status_code == 200
    assert running.client.delete(f"/v1/products/{plum}").status_code == 200
    assert set(ids(running)) == {"red apple", "pear", "kiwi"}
    assert change(plum, {"name": "x"}).status_code == 404
    assert change(apple, {"name": "pear"}).status_code == 409
    assert change(apple, {"merge_into": apple}).status_code == 409
    assert change(apple, {"merge_into": "nobody"}).status_code == 404
    assert change(apple, {"name": "x", "confirmed": True}).status_code == 422
    assert "one line of text without blanks at its ends" in change(apple, {"name": " x"}).json()["detail"]
    assert change(apple, {}).status_code == 422
    assert change("red apple", {"name": "x"}).status_code == 422  # a name is no id
    kinds = [edit["kind"] for edit in running.client.get("/v1/history").json()["edits"]]
    assert kinds == ["remove_product", "remove_item", "merge", "split", "confirm", "enroll", "rename"]


def test_edits_of_another_process_count_from_the_next_request_on(serve, photo):
    running = serve()
    assert one(running, photo("plum", 1))["verdict"] == "unknown"
    other = Catalog.open(running.folder)
    other.enroll("plum", [shot_of(running.service.encoder, photo("plum", seed), str(seed)) for seed in (2, 3, 4)])
    assert one(running, photo("plum", 1))["label"] == "plum"
    other.rename(other.product("plum").id, "prune")
    assert "prune" in ids(running)
    assert running.client.get("/v1/model").json()["revision"] == other.revision
    other.undo()
    assert "plum" in ids(running)


def test_feedback(serve, photo):
    running = serve()

    def tell(decision, product):
        return running.client.post("/v1/feedback", json={"decision": decision, "product": product})

    asked = one(running, photo("apple"))["decision_id"]
    answer = tell(asked, ids(running)["apple"])
    assert answer.status_code == 204 and answer.content == b""
    assert [(note.id, note.product) for note in running.journal.answered()] == [(asked, ids(running)["apple"])]
    assert tell(asked, None).status_code == 204
    assert running.client.get("/v1/unknowns").json()["unsettled"] == 1
    assert tell("0" * 32, None).status_code == 404
    assert tell(asked, "nobody").status_code == 404
    assert running.client.post("/v1/feedback", json={"decision": asked}).status_code == 422


def test_drift_counts_what_was_asked(serve, photo):
    running = serve()
    assert running.client.get("/v1/drift").json()["count"] == 0
    for seed in range(3):
        one(running, photo("apple", 500 + seed))
    drift = running.client.get("/v1/drift").json()
    assert drift["count"] == 3 and sum(day["count"] for day in drift["days"]) == 3


def test_photos_are_kept_only_if_asked(serve, photo):
    for keep in (False, True):
        running = serve(keep_photos=keep)
        asked = one(running, photo("plum", 1))["decision_id"]
        answer = running.client.get(f"/v1/decisions/{asked}/picture")
        assert answer.status_code == (200 if keep else 404)
        assert running.client.get("/v1/model").json()["keep_photos"] is keep
        assert list(running.folder.rglob("*.jpg")) == list(running.folder.rglob("*.png")) == []


def test_the_page_asks_nobody_else(serve):
    """No script or style within, nothing from outside, and every file it names is there."""
    running = serve()
    for path in ("/", "/docs"):
        answer = running.client.get(path)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        page = answer.text
        assert "shop" in page and "http://" not in page and "https://" not in page and "style=" not in page
        assert "'unsafe-inline'" not in answer.headers["content-security-policy"]
        for named in [part.split('"')[0] for part in page.split('="')[1:] if part.startswith("/static/")]:
            assert running.client.get(named).status_code == 200, named


def test_counters(serve, photo):
    running = serve()
    running.classify(photo("apple"), photo("other"), b"no photo")
    text = running.client.get("/metrics").text
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    values = {name: float(value) for name, value in pairs}
    assert values['mixtura_requests_total{method="POST",route="/v1/classify",status="200"}'] == 1
    assert sum(value for name, value in values.items() if name.startswith("mixtura_decisions_total")) == 3
    assert values["mixtura_batched_photos"] == 2 and values["mixtura_batches"] >= 1
    assert values["mixtura_photos_in_work"] == 0 and values["mixtura_photos_waiting"] == 0
    assert values['mixtura_request_seconds_count{route="/v1/classify"}'] == 1
    assert values['mixtura_request_seconds_bucket{le="30.0",route="/v1/classify"}'] == 1
    assert values["mixtura_catalog_revision"] == 0 and values["mixtura_ready"] == 1


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
    ],
)
def test_a_scraper_gets_the_format_that_it_accepts(serve, accept, kind):
    """What the parser of the Prometheus client reads; two services of one process count apart."""
    first, second = serve(), serve()
    first.client.get("/v1/model")
    parse = prometheus if kind.startswith("text") else openmetrics
    for running, count in ((first, 1), (second, 0)):
        answer = running.client.get("/metrics", headers={"Accept": accept})
        assert answer.headers["content-type"].startswith(kind)
        samples = [sample for metric in parse(answer.text) for sample in metric.samples]
        models = [s for s in samples if s.name == "mixtura_requests_total" and s.labels["route"] == "/v1/model"]
        assert sum(sample.value for sample in models) == count


def test_routes_of_unknown_addresses_are_one(serve):
    """Else a client could fill the memory with counters."""
    running = serve()
    for number in range(30):
        running.client.get(f"/nothing/{number}")
        running.client.request(f"METHOD{number}", "/v1/products")
    text = running.client.get("/metrics").text
    assert 'method="GET",route="other",status="404"} 30.0' in text and "METHOD" not in text
    assert text.count("mixtura_requests_total{") < 6


def test_the_loop_is_free_while_an_edit_waits(serve, photo):
    """Another process holds the catalog's file; who only looks is answered."""
    running = serve()
    held = running.catalog._lock
    done = []
    with held:
        thread = threading.Thread(target=lambda: done.append(running.client.post("/v1/undo").status_code))
        thread.start()
        for _ in range(5):
            assert running.client.get("/healthz").status_code == 200
        assert not done
    thread.join(20)
    assert done == [409]
