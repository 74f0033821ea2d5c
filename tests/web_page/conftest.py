"""A small shop behind a real server, and a real browser in front of it: run by ``make page``, which names the files.

``make test`` passes them by, so that a machine without Chromium passes it too.
"""

import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mixtura

collect_ignore_glob = ["test_*.py"]

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
AXE = Path(os.environ.get("AXE", ROOT / "build" / "axe-core" / "axe.min.js"))
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TOKEN = "token-of-the-tests-of-the-page"
KINDS = {"apple": (200, 30, 30), "pear": (150, 200, 60), "plum": (90, 30, 120), "mug": (20, 120, 250)}
SIDE = 96


def disk(rng, kind):
    """A disk of the kind's color on a light ground, with noise; mugs are striped."""
    y, x = np.mgrid[:SIDE, :SIDE]
    inside = (y - rng.integers(42, 54)) ** 2 + (x - rng.integers(42, 54)) ** 2 < rng.integers(24, 34) ** 2
    picture = np.where(inside[..., None], np.array(KINDS[kind]), 235) + rng.normal(0, 12, (SIDE, SIDE, 3))
    if kind == "mug":
        picture[:, ::8] = 0
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Photos of three products to learn, in ``shop/``, and of four kinds to ask about."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for kind in KINDS:
        for number in range(4):
            disk(rng, kind).save(folder / f"{kind}{number}.jpg", quality=95)
        for number in range(40 * (kind != "mug")):
            path = folder / "shop" / kind / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            disk(rng, kind).save(path, quality=95)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no photo")
    return folder


@pytest.fixture(scope="session")
def learned(photos, tmp_path_factory):
    """A model folder."""
    folder = tmp_path_factory.mktemp("model") / "shop"
    settings = {"data.root": str(photos / "shop"), "encoder.name": "tiny", "output": str(folder)}
    mixtura.fit(mixtura.resolve(settings))
    return folder


@dataclass
class Shop:
    """A server that runs, with the catalog and the journal behind it."""

    address: str
    catalog: object
    journal: object
    token: str = TOKEN

    @property
    def entry(self):
        """The address that ``mixtura serve`` prints."""
        return f"{self.address}/#token={self.token}"

    def names(self):
        return [product.name for product in self.catalog.products()]


@pytest.fixture
def settings():
    """The settings of the server; a test may have its own."""
    return {}


@pytest.fixture
def shop(learned, settings, tmp_path):
    import uvicorn

    from mixtura.web.app import create_app
    from mixtura.web.server import bind, config, open_folder
    from mixtura.web.settings import Settings

    folder = tmp_path / "shop"
    shutil.copytree(learned, folder)
    catalog, journal, encoder = open_folder(folder, settings.get("keep_photos", False))
    listener = bind("127.0.0.1", 0)
    listener.listen(64)
    app = create_app(catalog, journal, encoder, Settings(token=TOKEN, title="Corner shop", **settings))
    server = uvicorn.Server(config(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield Shop(f"http://127.0.0.1:{listener.getsockname()[1]}", catalog, journal)
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """Tabs of a browser that looks at one shop; what goes wrong in them is collected.

    ``refusals`` are the statuses that a test provokes: the browser reports each on its console.
    """

    def __init__(self, browser, address):
        self.browser, self.address = browser, address
        self.refusals, self.faults, self.contexts = set(), [], []

    def open(self, where="/", width=1280, scheme="light", **options):
        """A tab of its own; the page is there."""
        context = self.browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        context.set_default_timeout(10_000)
        context.on("request", self._request)
        context.on("console", self._console)
        context.on("weberror", lambda error: self.faults.append(f"error: {error.error}"))
        self.contexts.append(context)
        page = context.new_page()
        page.goto(where if where.startswith("http") else self.address + where)
        return page

    def _request(self, request):
        if not request.url.startswith((f"{self.address}/", f"blob:{self.address}/", "data:")):
            self.faults.append(f"a request to {request.url}")

    def _console(self, message):
        provoked = any(f"status of {status}" in message.text for status in self.refusals)
        offline = 0 in self.refusals and "net::ERR_" in message.text
        if message.type in {"error", "warning"} and not provoked and not offline:
            self.faults.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

    def close(self):
        for context in self.contexts:
            context.close()


@pytest.fixture
def visit(chromium, shop):
    """Open tabs; at the end of the test nothing may have gone wrong in them, and nothing may have left the origin."""
    made = Visit(chromium, shop.address)
    yield made
    made.close()
    assert made.faults == []


@pytest.fixture(scope="session")
def axe():
    """The source of axe-core, which ``make page`` fetches."""
    return AXE.read_text(encoding="utf-8")
