"""Two browsers, the command line, refits, kills and a full disk at once; nothing that was acknowledged may be lost.

``python tests/soak --seconds 60 --seed 0`` or ``make soak``. It prints what happened and ends with PASS or FAIL.
Every choice comes from the seed; the order in which processes meet does not.

A browser asks and confirms in one thread and edits in another. In each round, something happens to the model (a refit
that succeeds, is refused, is killed or meets a full disk) and at a random moment of it something to the service (it is
killed, its disk is full, a command edits beside it, or is killed while it does). Then the clients are held, and

- every edit that was answered is in the catalog with all its effects, or was taken back by an undo;
- every decision that was answered is in the journal as it was answered, and so is every confirmation;
- all answers of one model and revision about one photo agree with each other, and with the catalog opened by itself, as
  it is now and as it was at earlier revisions;
- the service still runs, is ready, and answers every photo.

The full disk is a limit on the size of files (RLIMIT_FSIZE) that is put on the running service, or on a fit, and lifted
again: a write beyond it fails in the middle of a transaction, without a file system of its own and without root.
"""

import argparse
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
from clients import Asker, Editor, Pauses, Service, command, digest, png
from ledger import Ledger

COLORS = {"apple": (200, 30, 30), "pear": (40, 180, 60), "kiwi": (60, 60, 200), "plum": (190, 40, 190)}
PHOTOS_A_CLASS, ASKED_PHOTOS, BROWSERS = 10, 8, 2
COMMAND_SECONDS = 180.0
EARLIER_REVISIONS = 4  # that a check goes back, by undoing edits in a copy
CANNOT_WRITE, OUT_OF_SPACE = 73, 74  # exit codes


class Soak:
    """The director: makes a shop, has clients work on it, and does to it what happens to shops."""

    def __init__(self, root, seed):
        self.root, self.draw, self.draw_beside = root, random.Random(seed), random.Random(seed + 100)
        self.ledger, self.pauses, self.stop = Ledger(), Pauses(), threading.Event()
        self.edits_wanted = threading.Event()
        self.edits_wanted.set()
        self.folder = root / "shop"
        self.photos = [png(list(COLORS.values())[n % len(COLORS)], 10_000 + n) for n in range(ASKED_PHOTOS)]
        self._make_photos("apple", "pear", "kiwi")
        self._fit()
        self.service = Service(self.folder, root / "log")
        self.service.start()
        self.clients = [made(self, seed + n) for n, made in enumerate((Asker, Editor) * BROWSERS, 1)]
        self.asker, self.editor = Asker(self, 0), Editor(self, 0)  # the director's own, which no thread runs

    def run(self, seconds):
        """Soak; returns the faults."""
        for client in self.clients:
            client.start()
        end = time.monotonic() + seconds
        of_model, of_service = [], []
        with ThreadPoolExecutor(1) as beside:
            while time.monotonic() < end and not self.ledger.faults:
                of_model = of_model or self._shuffled(self.refit, self.refuse_refit, self.kill_refit, self.starve_refit)
                of_service = of_service or self._shuffled(
                    self.kill, self.fill_disk, self.edit_by_command, self.kill_command
                )
                moment = self.draw.uniform(0.0, 4.0)
                shaken = beside.submit(self._after, moment, of_service.pop())
                self._after(0.0, of_model.pop())
                shaken.result()
                self.check()
        self.stop.set()
        for client in self.clients:
            client.join(90)
            if client.is_alive():
                self.ledger.fault("a client hangs")
        self._check_progress()
        self.service.kill()
        self._check_stored()
        return self.ledger.faults

    def _shuffled(self, *actions):
        return self.draw.sample(actions, len(actions))

    def _after(self, seconds, action):
        time.sleep(seconds)
        self.ledger.count(action.__name__)
        action()

    def kill(self):
        """Kill the service among edits and questions."""
        self.service.kill()
        self.service.start()

    def fill_disk(self):
        """Let the disk be full for a while; then the service goes on by itself."""
        with self.service.full_disk(self.draw_beside.choice([0, 60_000, 150_000, 400_000])):
            time.sleep(self.draw_beside.uniform(0.5, 2.0))
        with self.service.client() as client:
            if client.get("/readyz").status_code != 200:
                self.ledger.fault("the service is not ready after the disk was full")

    def refit(self):
        """Fit again, with more photos and another family, while questions come."""
        self._make_photos("plum", seed=self.draw.randrange(1000))
        with self._no_edits():
            self._fit("--set", f"head.family={self.draw.choice(['tied', 'diagonal', 'full'])}")

    def refuse_refit(self):
        """Fit into a shop that has edits, most of the time: refused at once, or there were none."""
        self._fit()

    def kill_refit(self):
        """Kill a fit at any moment."""
        with self._no_edits():
            made = command("fit", self.root / "photos", "-o", self.folder, "--encoder", "pixels", "-q")
            time.sleep(self.draw.uniform(2.0, 8.0))
            made.kill()
            made.communicate()
        self.ledger.fits += 1
        self._remember_model()

    def starve_refit(self):
        """A fit that meets a full disk."""
        self._make_photos("plum", seed=self.draw.randrange(1000))
        with self._no_edits():
            self._fit(limit=self.draw.choice([2_000, 50_000, 100_000, 400_000]))

    @contextmanager
    def _no_edits(self):
        """Take all edits back, and make none inside the block: a fit is refused at once where one stands."""
        self.edits_wanted.clear()
        try:
            with self.pauses.all_held():
                self._undo_all()
            yield
        finally:
            self.edits_wanted.set()

    def _undo_all(self):
        """Take edits back until there is none, or the service does not answer: then the fit is refused."""
        try:
            with self.service.client() as client:
                while self.editor.undo(client):
                    pass
        except httpx.TransportError:
            self.ledger.count("connection lost")

    def edit_by_command(self):
        """An edit by the command line beside the service."""
        made, photo = self._enroll()
        out, said = made.communicate(timeout=COMMAND_SECONDS)
        self.ledger.count(f"enroll ended with {made.returncode}")
        if made.returncode == 0:
            self.ledger.edit(json.loads(out), [digest(photo)])
        elif made.returncode != CANNOT_WRITE:
            self.ledger.fault(f"enroll: {made.returncode} {said}")

    def kill_command(self):
        """Kill such an edit at any moment; it is there or not."""
        made, _ = self._enroll()
        time.sleep(self.draw_beside.uniform(1.0, 4.0))
        made.kill()
        made.communicate()

    def _enroll(self):
        seed = self.draw_beside.randrange(10**9)
        photo, path = png((seed % 256, 90, seed // 256 % 256), seed), self.root / "new.png"
        path.write_bytes(photo)
        return command("enroll", self.folder, f"by command {seed}", path, "--json"), photo

    def check(self):
        """Look into the catalog and ask the service while nobody else works."""
        with self.pauses.all_held():
            if self.service.has_ended:
                self.ledger.fault(f"the service ended by itself: {(self.root / 'log').read_text()}")
                return
            with self.service.client() as client:
                if self.asker.ask(client, range(len(self.photos))) is None:
                    self.ledger.fault("the service does not answer photos any more")
            self._check_stored()

    def _check_stored(self):
        with closing(sqlite3.connect(self.folder / "catalog.sqlite")) as db:
            self.ledger.check(db)
        self._check_answers()

    def _check_answers(self):
        """Compare what was answered with a copy of the catalog, opened by itself, now and as it was before."""
        from mixtura.catalog import Catalog
        from mixtura.tasks.predict import encoder_for

        copy = self.root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder, copy, ignore=shutil.ignore_patterns(".staged-*", ".tmp-*"))
        with closing(sqlite3.connect(copy / "catalog.sqlite")) as db:
            standing = standing_at(db.execute("SELECT number, undoes FROM edit ORDER BY number").fetchall())
        catalog = Catalog.open(copy)
        bundle, now = catalog.view().bundle, standing[max(standing)]
        embedding = self._embedding(encoder_for(catalog.model))
        for turn in range(EARLIER_REVISIONS + 1):
            said = catalog.decide([str(n) for n in range(len(embedding))], embedding)
            for revision in [number for number, edits in standing.items() if edits == now]:
                self._compare(f"{bundle}r{revision}", said, turn)
            if not now:
                break
            catalog.undo()
            now = now[:-1]
        catalog.close()
        self._remember_model()
        strange = {model.partition("r")[0] for model, _ in self.ledger.answers} - self.ledger.models
        if strange:
            self.ledger.fault(f"answers name models that were never there: {strange}")

    def _compare(self, model, decisions, turn):
        for photo, made in enumerate(decisions):
            if turn and (model, photo) not in self.ledger.answers:
                continue  # nobody asked then
            if self.ledger.compare(photo, model, (made.label, made.probability, made.typicality)):
                self.ledger.count("answer compared with an earlier revision" if turn else "answer compared")

    def _embedding(self, encoder):
        from mixtura.pipeline.queries import embed, prepare

        return embed(encoder, [prepare(encoder, photo, "a") for photo in self.photos])

    def _check_progress(self):
        """Nothing was refused for good, and everything was tried."""
        with self.service.client() as client:
            made = self.editor.edit(client, "POST", "/v1/products", [png((9, 9, 90), n) for n in (1, 2)], name="last")
        if made is None:
            self.ledger.fault("no edit is possible any more")
        for event in ("decision", "confirmation", "edit enroll", "edit undo", "answer compared"):
            if not self.ledger.events[event]:
                self.ledger.fault(f"there was no {event}")

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
        self.ledger.count(f"fit ended with {made.returncode}")
        if made.returncode not in {0, CANNOT_WRITE} and (limit is None or made.returncode != OUT_OF_SPACE):
            self.ledger.fault(f"fit: {made.returncode} {said}")
        self.ledger.fits += made.returncode == 0
        self._remember_model()

    def _remember_model(self):
        from mixtura.model import bundle

        self.ledger.models.add(bundle.fingerprint(self.folder))


def standing_at(rows):
    """The edits in effect at each revision, from (number, number of the edit that it undoes); 0 is before all."""
    at, standing = {0: ()}, ()
    for number, undoes in rows:
        standing = (*standing, number) if undoes is None else tuple(one for one in standing if one != undoes)
        at[number] = standing
    return at


def main():
    """Soak once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as root:
        soak = Soak(Path(root), given.seed)
        faults = soak.run(given.seconds)
        soak.service.kill()
    for event, count in sorted(soak.ledger.events.items()):
        print(f"{count:7} {event}")
    for fault in faults[:20]:
        print(fault[:1000])
    print("FAIL" if faults else "PASS")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
