"""The kinds of a product over REST: looked for, accepted, listed, renamed and taken back."""

from mixtura.tasks import product_kinds


def product(running, name):
    return {one["name"]: one["id"] for one in running.client.get("/v1/products").json()["products"]}[name]


def test_kinds_are_accepted_listed_renamed_and_taken_back(serve):
    running = serve()
    apple = product(running, "apple")
    change = lambda body: running.client.patch(f"/v1/products/{apple}", json=body)  # noqa: E731
    [whole] = running.client.get(f"/v1/products/{apple}/kinds").json()["kinds"]
    assert whole["name"] == "apple" and whole["typical"] and whole["stability"] is None
    items = whole["items"]
    told = change({"kinds": [{"name": "red", "items": items[:6]}, {"name": "", "items": items[6:]}]}).json()
    assert told["edit"]["kind"] == "kinds" and told["kinds"][0]["before"] == {"apple": len(items)}
    assert told["kinds"][0]["after"] == {"red": 6, "apple": len(items) - 6}
    kinds = running.client.get(f"/v1/products/{apple}/kinds").json()["kinds"]
    assert {kind["name"]: len(kind["items"]) for kind in kinds} == told["kinds"][0]["after"]
    picture = running.client.get(kinds[0]["typical"][0])
    assert picture.headers["content-type"] == "image/jpeg"
    assert change({"rename_kinds": [{"kind": "red", "name": "ripe"}]}).status_code == 200
    assert change({"rename_kinds": [{"kind": "green", "name": "x"}]}).status_code == 404
    assert change({"rename_kinds": [{"kind": "ripe", "name": "pear"}]}).status_code == 409
    assert change({"kinds": [{"name": "x", "items": [10**6]}]}).status_code == 404
    assert change({"kinds": []}).status_code == 422
    for _ in range(2):
        assert running.client.post("/v1/undo").status_code == 200
    assert running.client.get(f"/v1/products/{apple}/kinds").json()["kinds"] == [whole]


def test_photos_are_enrolled_as_a_kind_of_a_product(serve, photo):
    running = serve()
    asked = running.classify(*(photo("striped", seed) for seed in (1, 2, 3))).json()["decisions"]
    body = {"name": "apple", "kind": "striped", "decisions": [one["decision_id"] for one in asked]}
    told = running.client.post("/v1/products", json=body).json()
    assert told["product"]["name"] == "apple" and told["kinds"][0]["after"]["striped"] == 3
    assert running.client.post("/v1/products", json=body | {"name": "nobody"}).status_code == 404
    running.client.post("/v1/undo")
    kinds = running.client.get(f"/v1/products/{product(running, 'apple')}/kinds").json()["kinds"]
    assert [kind["name"] for kind in kinds] == ["apple"]


def test_what_is_found_is_what_the_task_finds(serve, monkeypatch):
    """Fifteen photos of one color are too few to judge a split; a product of too many photos is not searched."""
    running = serve()
    apple = product(running, "apple")
    found = running.client.get(f"/v1/products/{apple}/kinds/found").json()
    assert found["kinds"] == [] and "too few to judge" in found["why"] and found["p_value"] is None
    made = product_kinds.find(running.catalog, running.catalog.product("pear"))
    assert made.kinds == () and "too few" in made.why
    monkeypatch.setattr(product_kinds, "MAX_ITEMS", 3)
    answer = running.client.get(f"/v1/products/{product(running, 'kiwi')}/kinds/found")
    assert answer.status_code == 409 and "mixtura subclasses" in answer.json()["detail"]
    assert running.client.get("/v1/products/nobody/kinds/found").status_code == 404
