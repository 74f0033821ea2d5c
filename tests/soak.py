"""Two clients, the command line, refits, kills and a full disk at once; nothing that was acknowledged may be lost.

``python tests/soak.py --seconds 60 --seed 0`` or ``make soak``. It prints what happened and ends with PASS or FAIL.
Every choice comes from the seed; the order in which processes meet does not.

- An edit that was answered is in the catalog, or was taken back by an undo.
- A decision that was answered is in the journal as it was answered, and so is every confirmation.
- All answers of one model and revision about one photo agree, with each other and with the catalog opened by itself.

The full disk is a limit on the size of files (RLIMIT_FSIZE) that is put on the running service, or on a fit, and lifted
again: a write beyond it fails as on a full disk, in the middle of a transaction, without a file system of its own.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

TOKEN = "token-of-the-soak-test-1234567890"
ENVIRONMENT = os.environ | {"MIXTURA_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
COLORS = {"apple": (200, 30, 30), "pear": (40, 180, 60), "kiwi": (60, 60, 200), "plum": (190, 40, 190)}
PHOTOS_A_CLASS, ASKED_PHOTOS = 10, 8
START_SECONDS, COMMAND_SECONDS = 60.0, 120.0
TOLERANCE = 1e-4  # of probabilities; batches of other sizes round differently
REFUSALS = {409, 503}
"""What an edit or a question may be answered while the model is replaced, the disk is full or an edit came before."""


def png(color, seed):
    """A noisy photo of a color."""
    pixels = np.array(color) + np.random.default_rng(seed).normal(0, 30, (32, 32, 3))
    target = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, "PNG")
    return target.getvalue()


def command(*given, limit=None):
    """A command of mixtura that runs; ``limit`` is the largest file that it may write, in bytes."""
    made = subprocess.Popen(
        [sys.executable, "-m", "mixtura", *map(str, given)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if limit is not None:
        resource.prlimit(made.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    return made


class Ledger:
    """What was acknowledged, and what was asked without an answer; ``faults`` are the losses."""

    def __init__(self):
        self.edits, self.undone, self.unanswered_undos = {}, Counter(), 0
        self.enrolled, self.decisions, self.confirmed = {}, {}, {}
        self.answers, self.faults, self.events = {}, [], Counter()
        self.models = set()

    def edit(self, effect, digests=()):
        """An edit was answered."""
        number, kind, summary = (effect["edit"][key] for key in ("number", "kind", "summary"))
        self.events[f"edit {kind}"] += 1
        if kind == "undo":
            self.undone[summary.removeprefix("Undone: ")] += 1
        else:
            self.edits[number] = summary
            self.enrolled[number] = digests

    def answer(self, photo, decision):
        """A decision was answered, about a photo that is asked again and again."""
        self.events["decision"] += 1
        self.decisions[decision["decision_id"]] = (decision["label"], decision["verdict"], decision["model"])
        self.compare(photo, decision["model"], (decision["label"], decision["probability"], decision["typicality"]))

    def compare(self, photo, model, said):
        """Remember an answer, or compare it with the one that the same model gave before."""
        first = self.answers.setdefault((model, photo), said)
        if first[0] != said[0] or max(abs(a - b) for a, b in zip(first[1:], said[1:], strict=True)) > TOLERANCE:
            self.faults.append(f"{model} said {first} and {said} of photo {photo}")


class Service:
    """``mixtura serve`` on a port of its own, killed and started again."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self):
        """Start it, and wait until it is ready."""
        self.process = command("serve", self.folder, "--port", self.port, "--reads", 10_000, "--writes", 10_000)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with suppress(httpx.TransportError), self.client() as client:
                if client.get("/readyz").status_code == 200:
                    return
            if self.process.poll() is not None:
                raise RuntimeError(self.process.stderr.read())
            time.sleep(0.1)
        raise RuntimeError("the service is not ready")

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


class Client(threading.Thread):
    """Works until it is told to stop; waits while the director looks into the catalog."""

    pause_seconds = 0.01

    def __init__(self, soak, seed):
        super().__init__(daemon=True)
        self.soak, self.ledger, self.draw = soak, soak.ledger, random.Random(seed)

    def run(self):
        while not self.soak.stop.is_set():
            with self.soak.service.client() as client, suppress(httpx.TransportError):
                while not self.soak.stop.is_set():
                    with self.soak.pauses:
                        self.work(client)
                    time.sleep(self.pause_seconds)
            time.sleep(0.2)  # the service was killed

    def succeeded(self, answer):
        """Whether an answer is one; faults of the service are noted."""
        self.ledger.events[f"status {answer.status_code}"] += 1
        if not answer.is_success and answer.status_code not in REFUSALS:
            self.ledger.faults.append(f"{answer.request.method} {answer.request.url.path}: {answer.text}")
        return answer.is_success


class Asker(Client):
    """Asks about photos, and confirms some of the answers."""

    def work(self, client):
        photos = [self.draw.randrange(ASKED_PHOTOS) for _ in range(self.draw.randint(1, 3))]
        images = [base64.b64encode(self.soak.photos[photo]).decode() for photo in photos]
        asked = client.post("/v1/classify", json={"images": images})
        if not self.succeeded(asked):
            return
        for photo, decision in zip(photos, asked.json()["decisions"], strict=True):
            self.ledger.answer(photo, decision)
        product = decision["candidates"][0]["id"]
        if product and self.draw.random() < 0.3:
            said = client.post("/v1/feedback", json={"decision": decision["decision_id"], "product": product})
            if said.status_code != 404 and self.succeeded(said):
                self.ledger.confirmed[decision["decision_id"]] = product


class Editor(Client):
    """Enrolls photos, then renames, confirms, merges or removes the product, or takes the last edit back."""

    pause_seconds = 0.1

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
            body["images"] = [base64.b64encode(photo).decode() for photo in photos]
        answer = client.request(method, path, json=body or None)
        if answer.status_code == 404 or not self.succeeded(answer):  # 404: another has removed it
            return None
        self.ledger.edit(answer.json(), [self.soak.digest(photo) for photo in photos])
        return answer.json()

    def undo(self, client):
        """Take the last edit back; returns whether there was one."""
        self.ledger.unanswered_undos += 1
        answer = client.post("/v1/undo")
        if answer.status_code != 503:
            self.ledger.unanswered_undos -= 1
        if not self.succeeded(answer):
            return False
        self.ledger.edit(answer.json())
        return True


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


class Soak:
    """The director: makes a shop, has clients work on it, and does to it what happens to shops."""

    def __init__(self, root, seed):
        self.root, self.draw = root, random.Random(seed)
        self.ledger, self.pauses, self.stop = Ledger(), Pauses(), threading.Event()
        self.edits_wanted = threading.Event()
        self.edits_wanted.set()
        self.folder = root / "shop"
        self.photos = [png(list(COLORS.values())[n % len(COLORS)], 10_000 + n) for n in range(ASKED_PHOTOS)]
        self._make_photos("apple", "pear", "kiwi")
        self._fit()
        self.service = Service(self.folder)
        self.service.start()
        self.editor = Editor(self, seed + 1)
        self.clients = [self.editor, Asker(self, seed + 2)]

    @staticmethod
    def digest(photo):
        """The hash by which the catalog knows a photo."""
        return hashlib.sha256(photo).hexdigest()

    def run(self, seconds):
        """Soak; returns the faults."""
        for client in self.clients:
            client.start()
        end = time.monotonic() + seconds
        actions = [self.kill, self.fill_disk, self.refit, self.refuse_refit, self.kill_refit, self.starve_refit]
        actions += [self.edit_by_command]
        deck = []
        while time.monotonic() < end and not self.ledger.faults:
            deck = deck or self.draw.sample(actions, len(actions))
            time.sleep(self.draw.uniform(0.2, 1.0))
            action = deck.pop()
            self.ledger.events[action.__name__] += 1
            action()
            self.check()
        self.stop.set()
        for client in self.clients:
            client.join(30)
        self.service.kill()
        self.check()
        return self.ledger.faults

    def kill(self):
        """Kill the service among edits and questions."""
        self.service.kill()
        self.service.start()

    def fill_disk(self):
        """Let the disk be full for a while; then the service goes on by itself."""
        with self.service.full_disk(self.draw.choice([0, 60_000, 150_000, 400_000])):
            time.sleep(self.draw.uniform(0.2, 1.0))
        with self.service.client() as client:
            if client.get("/readyz").status_code != 200:
                self.ledger.faults.append("the service is not ready after the disk was full")

    def refit(self):
        """Take all edits back and fit again, with more photos and another family, while questions come."""
        self._make_photos("plum", seed=self.draw.randrange(1000))
        self.edits_wanted.clear()
        with self.pauses.all_held(), self.service.client() as client:
            while self.editor.undo(client):
                pass
        self._fit("--set", f"head.family={self.draw.choice(['tied', 'diagonal', 'full'])}")
        self.edits_wanted.set()

    def refuse_refit(self):
        """Fit into a shop that has edits, most of the time: refused at once, or there were none."""
        self._fit()

    def kill_refit(self):
        """Kill a fit at any moment."""
        made = command("fit", self.root / "photos", "-o", self.folder, "--encoder", "pixels", "-q")
        time.sleep(self.draw.uniform(2.0, 6.0))
        made.kill()
        made.wait()
        self._remember_model()

    def starve_refit(self):
        """A fit that meets a full disk."""
        self._fit(limit=self.draw.choice([100, 2_000, 20_000, 100_000]))

    def edit_by_command(self):
        """An edit by the command line beside the service."""
        seed = self.draw.randrange(10**9)
        photo = png((seed % 256, 90, seed // 256 % 256), seed)
        path = self.root / "new.png"
        path.write_bytes(photo)
        made = command("enroll", self.folder, f"by command {seed}", path, "--json")
        out, said = made.communicate(timeout=COMMAND_SECONDS)
        if made.returncode == 0:
            self.ledger.edit(json.loads(out), [self.digest(photo)])
        elif made.returncode not in {65, 73, 74}:
            self.ledger.faults.append(f"enroll: {said}")

    def check(self):
        """Look into the catalog while nobody edits it."""
        with self.pauses.all_held():
            with closing(sqlite3.connect(self.folder / "catalog.sqlite")) as db:
                if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                    self.ledger.faults.append("the catalog is damaged")
                self._check_edits(db)
                self._check_journal(db)
            self._check_answers()

    def _check_edits(self, db):
        found = dict(db.execute("SELECT number, undone FROM edit"))
        taken_back = [number for number in self.ledger.edits if found.get(number, 1)]
        unexplained = Counter(self.ledger.edits[number] for number in taken_back) - self.ledger.undone
        if unexplained.total() > self.ledger.unanswered_undos:
            self.ledger.faults.append(f"edits are gone: {unexplained} of {len(self.ledger.edits)}")
        loose = {row[0] for row in db.execute("SELECT sha256 FROM item WHERE part IS NOT NULL")}
        for number, digests in self.ledger.enrolled.items():
            if number not in taken_back and not loose.issuperset(digests):
                self.ledger.faults.append(f"photos of edit {number} are gone: {self.ledger.edits[number]}")

    def _check_journal(self, db):
        columns = "SELECT id, label, verdict, model, told IS NOT NULL, product FROM decision"
        found = {id: (rest[:3], rest[3:]) for id, *rest in db.execute(columns)}
        for id, said in list(self.ledger.decisions.items()):
            if id not in found or tuple(found[id][0]) != said:
                self.ledger.faults.append(f"decision {id} is {found.get(id)}, answered was {said}")
        for id, product in list(self.ledger.confirmed.items()):
            if id not in found or found[id][1] != [1, product]:
                self.ledger.faults.append(f"the confirmation of {id} is {found.get(id)}, said was {product}")

    def _check_answers(self):
        """Ask a copy of the catalog, opened by itself, what the service was asked."""
        from mixtura.catalog import Catalog
        from mixtura.pipeline.queries import embed, prepare
        from mixtura.tasks.predict import encoder_for

        copy = self.root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder, copy, ignore=shutil.ignore_patterns(".staged-*", ".tmp-*"))
        catalog = Catalog.open(copy)
        encoder = encoder_for(catalog.model)
        embedding = embed(encoder, [prepare(encoder, photo, "a") for photo in self.photos])
        decisions = catalog.decide([str(n) for n in range(len(embedding))], embedding)
        for photo, made in enumerate(decisions):
            self.ledger.compare(photo, made.model, (made.label, made.probability, made.typicality))
        catalog.close()
        self._remember_model()
        strange = {model.partition("r")[0] for model, _ in self.ledger.answers} - self.ledger.models
        if strange:
            self.ledger.faults.append(f"answers name models that were never there: {strange}")

    def _make_photos(self, *labels, seed=0):
        for label in labels:
            place = self.root / "photos" / label
            place.mkdir(parents=True, exist_ok=True)
            for number in range(PHOTOS_A_CLASS):
                (place / f"{number}-{seed}.png").write_bytes(png(COLORS[label], 100 * seed + number))

    def _fit(self, *options, limit=None):
        given = ("fit", self.root / "photos", "-o", self.folder, "--encoder", "pixels", "-q", *options)
        made = command(*given, limit=limit)
        _, said = made.communicate(timeout=COMMAND_SECONDS)
        self.ledger.events[f"fit ended with {made.returncode}"] += 1
        if made.returncode not in {0, 73} and (limit is None or made.returncode not in {65, 74}):
            self.ledger.faults.append(f"fit: {made.returncode} {said}")
        self._remember_model()

    def _remember_model(self):
        from mixtura.model import bundle

        self.ledger.models.add(bundle.fingerprint(self.folder))


def main():
    """Soak once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as root:
        soak = Soak(Path(root), given.seed)
        faults = soak.run(given.seconds)
    for event, count in sorted(soak.ledger.events.items()):
        print(f"{count:7} {event}")
    for fault in faults[:20]:
        print(fault[:1000])
    print("FAIL" if faults else "PASS")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
