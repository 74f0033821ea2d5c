"""What was acknowledged, and whether it is in the catalog."""

import json
import threading
from collections import Counter

TOLERANCE = 1e-4  # of probabilities; batches of other sizes round differently


class Ledger:
    """What clients were told, from any thread; ``faults`` are the losses."""

    def __init__(self):
        self._lock = threading.Lock()
        self.edits, self.undone, self.unanswered_undos = {}, Counter(), 0
        self.enrolled, self.decisions, self.confirmed = {}, {}, {}
        self.answers, self.faults, self.events = {}, [], Counter()
        self.models, self.fits, self.fits_checked = set(), 0, 0  # fits that may have ended a list of edits
        self.ended = set()  # edits of such lists

    def fault(self, what):
        """Something is lost or wrong."""
        self.faults.append(what)

    def count(self, event):
        """Something has happened."""
        with self._lock:
            self.events[event] += 1

    def edit(self, effect, digests=()):
        """An edit was answered."""
        number, kind, summary = (effect["edit"][key] for key in ("number", "kind", "summary"))
        self.count(f"edit {kind}")
        with self._lock:
            self.edits[number] = (kind, summary)
            self.enrolled[number] = digests
            if kind == "undo":
                self.undone[summary.removeprefix("Undone: ")] += 1

    def undo_begins(self):
        """An undo is asked for; until it is answered, it may have been made or not."""
        with self._lock:
            self.unanswered_undos += 1

    def undo_ends(self):
        """It was answered."""
        with self._lock:
            self.unanswered_undos -= 1

    def answer(self, photo, decision):
        """A decision was answered, about a photo that is asked again and again."""
        self.count("decision")
        self.decisions[decision["decision_id"]] = (decision["label"], decision["verdict"], decision["model"])
        self.compare(photo, decision["model"], (decision["label"], decision["probability"], decision["typicality"]))

    def compare(self, photo, model, said):
        """Remember an answer, or compare it with the one that the same model gave before; returns whether it did."""
        with self._lock:
            first = self.answers.setdefault((model, photo), said)
        if first[0] != said[0] or max(abs(a - b) for a, b in zip(first[1:], said[1:], strict=True)) > TOLERANCE:
            self.fault(f"{model} said {first} and {said} of photo {photo}")
        return first is not said

    def check(self, db):
        """Look for everything in a database that nobody writes to."""
        if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            self.fault("the catalog is damaged")
        rows = {number: rest for number, *rest in db.execute("SELECT number, said, undone, changes FROM edit")}
        self._check_edits(rows)
        self._check_photos(rows, {row[0] for row in db.execute("SELECT sha256 FROM item WHERE part IS NOT NULL")})
        self._check_effects(db)
        self._check_journal(db)

    def _check_edits(self, rows):
        """Each edit is there as it was answered; those taken back were so by an undo; a refit begins the list anew."""
        for number in self.edits.keys() & rows.keys():
            if self.edits[number][1] != rows[number][0]:
                self.fault(f"edit {number} is {rows[number][0]!r}, answered was {self.edits[number]}")
        gone = self.edits.keys() - rows.keys() - self.ended
        if gone and (self.fits == self.fits_checked or max(gone) > min(rows, default=max(gone))):
            self.fault(f"edits are not listed any more: {sorted(gone)}, listed are {sorted(rows)}")
        self.fits_checked = self.fits
        self.ended |= gone
        back = [number for number in self.edits if number not in rows or rows[number][1]]
        unexplained = Counter(s for kind, s in map(self.edits.get, back) if kind != "undo") - self.undone
        if unexplained.total() > self.unanswered_undos:
            self.fault(f"edits are gone: {unexplained}, {self.unanswered_undos} undos were not answered")
        self.undone += unexplained  # by the undos that nobody was told of; none is at work now
        self.unanswered_undos = 0

    def _check_photos(self, rows, loose):
        for number, digests in self.enrolled.items():
            if number in rows and not rows[number][1] and not loose.issuperset(digests):
                self.fault(f"photos of edit {number} are gone: {self.edits[number]}")

    def _check_effects(self, db):
        """The tables are what the edits in effect have made of them: no edit is half there."""
        last = {}
        for (changes,) in db.execute("SELECT changes FROM edit WHERE undone = 0 AND undoes IS NULL ORDER BY number"):
            last |= {tuple(change[:3]): change[4] for change in json.loads(changes) if change[0] != "setting"}
        for (table, key, column), after in last.items():
            found = db.execute(f"SELECT {column} FROM {table} WHERE id = ?", (key,)).fetchone()
            if found is None or found[0] != after:
                self.fault(f"{column} of {table} {key} is {found}, the edits say {after}")

    def _check_journal(self, db):
        columns = "SELECT id, label, verdict, model, told IS NOT NULL, product FROM decision"
        found = {id: (rest[:3], rest[3:]) for id, *rest in db.execute(columns)}
        for id, said in list(self.decisions.items()):
            if id not in found or tuple(found[id][0]) != said:
                self.fault(f"decision {id} is {found.get(id)}, answered was {said}")
        for id, product in list(self.confirmed.items()):
            if id not in found or found[id][1] != [1, product]:
                self.fault(f"the confirmation of {id} is {found.get(id)}, said was {product}")
