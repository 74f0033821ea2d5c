"""The service as a process, and clients that work with it until they are told to stop."""

import base64
import hashlib
import io
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress

import httpx
import numpy as np
from PIL import Image

TOKEN = "token-of-the-soak-test-1234567890"
ENVIRONMENT = os.environ | {"MIXTURA_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
START_SECONDS = 60.0
REFUSALS = {"question": {503}, "edit": {409, 503}}
"""What may be answered while the model is replaced, the disk is full, or another edit came before."""


def png(color, seed):
    """A noisy photo of a color."""
    pixels = np.array(color) + np.random.default_rng(seed).normal(0, 30, (32, 32, 3))
    target = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, "PNG")
    return target.getvalue()


def digest(photo):
    """The hash by which the catalog knows a photo."""
    return hashlib.sha256(photo).hexdigest()


def base64_of(photos):
    """Photos as JSON has them."""
    return [base64.b64encode(photo).decode() for photo in photos]


def command(*given, limit=None, **streams):
    """A command of mixtura that runs; ``limit`` is the largest file that it may write, in bytes."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    made = subprocess.Popen([sys.executable, "-m", "mixtura", *map(str, given)], env=ENVIRONMENT, text=True, **streams)
    if limit is not None:
        resource.prlimit(made.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    return made


class Service:
    """``mixtura serve`` on a port of its own, killed and started again."""

    def __init__(self, folder, log):
        self.folder, self.log, self.process = folder, log, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self):
        """Start it, and wait until it is ready."""
        options = ("--port", self.port, "--reads", 10_000, "--writes", 10_000)
        with self.log.open("a") as log:
            self.process = command("serve", self.folder, *options, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and not self.has_ended:
            with suppress(httpx.TransportError), self.client() as client:
                if client.get("/readyz").status_code == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"the service is not ready\n{self.log.read_text()}")

    @property
    def has_ended(self):
        """Whether the process is no more."""
        return self.process.poll() is not None

    def kill(self):
        """End it at once, wherever it is."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def client(self):
        """A client with the token."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=60, trust_env=False)

    @contextmanager
    def full_disk(self, size):
        """No file may be written beyond ``size`` bytes."""
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, free)


class Pauses:
    """Clients go on together; the director waits for all of them and holds them."""

    def __init__(self):
        self._changed, self._working, self._held = threading.Condition(), 0, False

    def __enter__(self):
        with self._changed:
            self._changed.wait_for(lambda: not self._held)
            self._working += 1

    def __exit__(self, *given):
        with self._changed:
            self._working -= 1
            self._changed.notify_all()

    @contextmanager
    def all_held(self):
        """Nobody works inside the block."""
        with self._changed:
            self._held = True
            self._changed.wait_for(lambda: self._working == 0)
        try:
            yield
        finally:
            with self._changed:
                self._held = False
                self._changed.notify_all()


class Client(threading.Thread):
    """Works until it is told to stop; waits while the director looks into the catalog."""

    pause_seconds, kind = 0.02, "question"

    def __init__(self, soak, seed):
        super().__init__(daemon=True)
        self.soak, self.ledger, self.draw = soak, soak.ledger, random.Random(seed)

    def run(self):
        try:
            while not self.soak.stop.is_set():
                with self.soak.service.client() as client:
                    self.connected(client)
                time.sleep(0.2)  # the service was killed
        except Exception:
            self.ledger.fault(f"a client failed: {traceback.format_exc()}")

    def connected(self, client):
        """Work with one service until it ends."""
        try:
            while not self.soak.stop.is_set():
                with self.soak.pauses:
                    self.work(client)
                time.sleep(self.pause_seconds)
        except httpx.TimeoutException as error:
            self.ledger.fault(f"the service does not answer: {error!r}")
        except httpx.TransportError:
            self.ledger.count("connection lost")

    def succeeded(self, answer):
        """Whether an answer is one; faults of the service are noted."""
        self.ledger.count(f"status {answer.status_code} of a {self.kind}")
        if not answer.is_success and answer.status_code not in REFUSALS[self.kind]:
            self.ledger.fault(f"{answer.request.method} {answer.request.url.path}: {answer.text}")
        return answer.is_success


class Asker(Client):
    """Asks about photos, and confirms some of the answers."""

    def work(self, client):
        photos = [self.draw.randrange(len(self.soak.photos)) for _ in range(self.draw.randint(1, 3))]
        decision = self.ask(client, photos)
        if decision is None or self.draw.random() > 0.3:
            return
        product = decision["candidates"][0]["id"]
        if product:
            said = client.post("/v1/feedback", json={"decision": decision["decision_id"], "product": product})
            if said.status_code != 404 and self.succeeded(said):  # 404: the product is gone since
                self.ledger.confirmed[decision["decision_id"]] = product
                self.ledger.count("confirmation")

    def ask(self, client, photos):
        """Ask about photos; returns the last decision, if there is one."""
        images = base64_of(self.soak.photos[photo] for photo in photos)
        asked = client.post("/v1/classify", json={"images": images})
        if not self.succeeded(asked):
            return None
        decisions = asked.json()["decisions"]
        for photo, decision in zip(photos, decisions, strict=True):
            self.ledger.answer(photo, decision)
        return decisions[-1]


class Editor(Client):
    """Enrolls photos, then renames, confirms, merges or removes the product, or takes the last edit back."""

    pause_seconds, kind = 0.15, "edit"

    def work(self, client):
        if not self.soak.edits_wanted.is_set():
            return
        seed = self.draw.randrange(10**9)
        photos = [png((seed % 256, seed // 256 % 256, 90), seed + place) for place in range(2)]
        made = self.edit(client, "POST", "/v1/products", photos, name=f"new {seed}")
        if made is None:
            return
        path = f"/v1/products/{made['product']['id']}"
        match self.draw.randrange(6):
            case 0:
                self.edit(client, "PATCH", path, name=f"renamed {seed}")
            case 1:
                self.edit(client, "PATCH", path, confirmed=True)
            case 2:
                self.edit(client, "PATCH", path, merge_into="apple")
            case 3:
                self.edit(client, "DELETE", path)
            case _:
                self.undo(client)

    def edit(self, client, method, path, photos=(), **body):
        if photos:
            body["images"] = base64_of(photos)
        answer = client.request(method, path, json=body or None)
        if answer.status_code == 404 or not self.succeeded(answer):  # 404: another has removed it
            return None
        self.ledger.edit(answer.json(), [digest(photo) for photo in photos])
        return answer.json()

    def undo(self, client):
        """Take the last edit back; returns whether there was one."""
        self.ledger.undo_begins()
        answer = client.post("/v1/undo")
        if answer.status_code != 503:
            self.ledger.undo_ends()
        if not self.succeeded(answer):
            return False
        self.ledger.edit(answer.json())
        return True
