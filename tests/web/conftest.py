"""A real model of made-up photos behind a real server in a thread of this process."""

import base64
import io
import itertools
import shutil
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from mixtura.catalog import Catalog
from mixtura.catalog.journal import Journal
from mixtura.recipe import resolve
from mixtura.tasks import fit
from mixtura.tasks.predict import encoder_for
from mixtura.web import server
from mixtura.web.app import create_app
from mixtura.web.settings import Settings

COLORS = {"apple": (200, 30, 30), "pear": (40, 180, 60), "kiwi": (60, 60, 200), "plum": (190, 40, 190)}
TOKEN = "a-token-that-nobody-guesses"


def picture(label, seed, size=96):
    """A noisy photo in the color of its class; labels that are not in the catalog are gray stripes."""
    rng = np.random.default_rng([seed, sum(label.encode())])
    color = np.array(COLORS.get(label, (128, 128, 128))) + rng.normal(0, 12, 3)
    pixels = color + rng.normal(0, 25, (size, size, 3))
    if label not in COLORS:
        pixels += 100 * np.sin(np.arange(size) / 2)[:, None, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image, kind="PNG", **options):
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


@dataclass
class Running:
    """A server that runs."""

    address: str
    folder: Path
    catalog: Catalog
    journal: Journal
    client: httpx.Client
    service: object

    @property
    def port(self):
        return int(self.address.rpartition(":")[2])

    def classify(self, *photos, **query):
        """Several photos at once."""
        return self.client.post("/v1/classify", params=query, json={"images": [text(photo) for photo in photos]})

    def open(self):
        """A socket to it."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        made.settimeout(20)
        return made

    def raw(self, data):
        """What it answers to these bytes, until it closes or the answer is whole."""
        with self.open() as made:
            made.sendall(data)
            return self.answer(made)

    @staticmethod
    def answer(made):
        """Head and body of one answer, as text."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = made.recv(65536)
            if not piece:
                return data.decode("latin-1")
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        while lengths and len(body) < int(lengths[0].split(b":")[1]):
            body += made.recv(65536)
        return (head + b"\r\n\r\n" + body).decode("latin-1")


def text(photo):
    """A photo as base64."""
    return base64.b64encode(photo).decode()


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A model of three classes; servers work on copies."""
    root = tmp_path_factory.mktemp("shop")
    for label in ("apple", "pear", "kiwi"):
        (root / "photos" / label).mkdir(parents=True)
        for number in range(15):
            (root / "photos" / label / f"{number}.png").write_bytes(encoded(picture(label, number)))
    options = {"data.root": str(root / "photos"), "encoder.name": "tiny", "output": str(root / "shop")}
    fit.run(resolve(options | {"extract.workers": 1}))
    return root / "shop"


@pytest.fixture
def serve(shop, tmp_path):
    """Start servers with settings of one's own; all end with the test."""
    ends = []

    def start(folder=None, encoder=None, token=TOKEN, **settings):
        if folder is None:
            folder = tmp_path / f"shop{len(ends)}"
            shutil.copytree(shop, folder)
        limits = {"read_rate": 1e6, "read_burst": 10**6, "write_rate": 1e6, "write_burst": 10**6} | settings
        made = Settings(token=token, title="shop", **limits)
        catalog = Catalog.open(folder)
        journal = Journal.open(folder, made.keep_photos)
        app = create_app(catalog, journal, encoder or encoder_for(catalog.model), made)
        listener = server.bind("127.0.0.1", 0)
        listener.listen(64)
        running = uvicorn.Server(server.config(app))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = httpx.Client(
            base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60, trust_env=False
        )

        def end():
            client.close()
            running.should_exit = True
            thread.join(30)

        ends.append(end)
        assert client.get("/healthz").status_code == 200
        return Running(address, folder, catalog, journal, client, app.state.service)

    yield start
    for end in ends:
        end()


@pytest.fixture
def photo():
    """The bytes of a photo of a class."""
    return lambda label="apple", seed=100, kind="PNG", **options: encoded(picture(label, seed), kind, **options)


@pytest.fixture
def pictures():
    """Three photos that nobody has seen, as base64; any thread may ask for more."""
    seeds = itertools.count(1000)
    return lambda: [text(encoded(picture("plum", next(seeds), 32))) for _ in range(3)]
