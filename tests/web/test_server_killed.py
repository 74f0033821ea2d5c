"""The server killed at any moment while people edit and ask: the catalog opens, and what was answered is there."""

import os
import random
import shutil
import signal
import threading
import time
from contextlib import suppress

import httpx
import pytest
import torch
import uvicorn

from mixtura.catalog import Catalog
from mixtura.web import server
from mixtura.web.app import create_app
from mixtura.web.settings import Settings

ROUNDS = 50
TOKEN = "token-of-the-tests-of-a-kill"


def serve_for_ever(folder, listener):
    """What ``mixtura serve`` does, in a process of its own."""
    torch.set_num_threads(1)
    settings = Settings(token=TOKEN, write_rate=1e6, write_burst=10**6, read_rate=1e6, read_burst=10**6)
    uvicorn.Server(server.config(create_app(*server.open_folder(folder, False), settings))).run(sockets=[listener])


class Client(threading.Thread):
    """Asks until the server is gone; remembers the last edit that was answered, and the products that must be there."""

    def __init__(self, port, pictures, seed):
        super().__init__()
        self.port, self.pictures, self.draw = port, pictures, random.Random(seed)
        self.edits, self.enrolled, self.answered = 0, set(), 0

    def run(self):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=60, trust_env=False)
        with client, suppress(httpx.TransportError):
            while True:
                self.work(client)
                self.answered += 1


class Editor(Client):
    """Enrolls three photos at a time, then merges, removes, undoes, or leaves the product as it is."""

    def work(self, client):
        name = f"n{self.draw.randrange(10**9)}"
        id = self.done(client.post("/v1/products", json={"name": name, "images": self.pictures()}))
        action = self.draw.randrange(4)
        if action == 0:
            self.done(client.post("/v1/undo"))
        elif action == 1:
            self.done(client.patch(f"/v1/products/{id}", json={"merge_into": "apple"}))
        elif action == 2:
            self.done(client.delete(f"/v1/products/{id}"))
        else:
            self.enrolled.add(id)

    def done(self, answer):
        assert answer.is_success, answer.text
        self.edits = answer.json()["edit"]["number"]
        return (answer.json()["product"] or {}).get("id")


class Asker(Client):
    """Asks about three photos at a time."""

    def work(self, client):
        asked = client.post("/v1/classify", json={"images": self.pictures()})
        assert asked.is_success, asked.text


@pytest.mark.slow
def test_fifty_kills_of_the_server_leave_no_edit_half_done(shop, tmp_path, pictures, assert_whole):
    folder = shutil.copytree(shop, tmp_path / "shop")
    Catalog.open(folder).close()
    draw, count, enrolled, answered = random.Random(0), 0, set(), 0
    for seed in range(ROUNDS):
        listener = server.bind("127.0.0.1", 0)
        listener.listen(64)
        child = os.fork()
        if child == 0:
            try:
                serve_for_ever(folder, listener)
            finally:
                os._exit(1)
        port = listener.getsockname()[1]
        listener.close()
        editor, asker = clients = Editor(port, pictures, seed), Asker(port, pictures, -seed)
        for client in clients:
            client.start()
        deadline = time.monotonic() + 60
        while editor.edits <= count and time.monotonic() < deadline:  # so that the kill falls among the next edits
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.3))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        for client in clients:
            client.join(60)
        found = assert_whole(folder / "catalog.sqlite")
        assert found >= editor.edits > count  # what was answered is there
        count, answered, enrolled = found, answered + asker.answered, enrolled | editor.enrolled
    catalog = Catalog.open(folder)
    assert answered > 0 and enrolled and enrolled <= {product.id for product in catalog.products()}
    assert catalog.revision == count >= ROUNDS
    for _ in range(3):
        catalog.undo()
    assert all(product.items > 0 for product in catalog.products())
