"""Does a shop owner get a model in five minutes: 1,000 photos of 20 classes, ``mixtura train`` with its defaults?

    python benchmarks/training_five_minutes.py --data DATA                       # a little over five minutes
    python benchmarks/training_five_minutes.py --data DATA --minutes 1 --each 12 # a short try

The photos are Grocery Store's, 50 of each class, in a folder a class; further photos of these classes are predicted.
Then a class that the model has never seen is enrolled from three photos, without training, by the command and in this
process, and forgotten again: afterwards the model of the catalog, saved, has the bytes it had before, and so have all
answers. Writes
benchmarks/results/training_five_minutes.json, and exits with 1 if anything is late or not as before.
"""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, write

import mixtura
from mixtura.catalog import Catalog
from mixtura.catalog.shots import shots
from mixtura.model import bundle
from mixtura.records.decision import Decision
from mixtura.tasks.predict import encoder_for

CLASSES, QUERIES, SHOTS, ENROLL_SECONDS = 20, 5, 3, 2.0


def shoot(pack: Path, place: Path, each: int) -> tuple[Path, list[Path], list[Path]]:
    """The photos to train on, others of the same classes, and those of a further class."""
    held = np.load(pack, allow_pickle=False)
    data, offset, y = held["data"], held["offset"], held["y"]
    large = np.flatnonzero(np.bincount(y) >= each + QUERIES)[: CLASSES + 1]

    def written(folder: Path, rows: np.ndarray) -> list[Path]:
        folder.mkdir(parents=True)
        paths = [folder / f"{row:05}.jpg" for row in rows]
        for row, path in zip(rows, paths, strict=True):
            path.write_bytes(data[offset[row] : offset[row + 1]].tobytes())
        return paths

    rng, queries, new = np.random.default_rng(0), list[Path](), list[Path]()
    for c in large:
        rows, name = rng.permutation(np.flatnonzero(y == c)), str(held["classes"][c])
        if c == large[-1]:
            new = written(place / "new" / name, rows[: SHOTS + QUERIES])
        else:
            written(place / "photos" / name, rows[:each])
            queries += written(place / "queries" / name, rows[each : each + QUERIES])
    return place / "photos", queries, new


def mixtura_command(*given: object) -> tuple[float, Any]:
    """Run a command; the seconds that all of it took, and what it says."""
    began = time.perf_counter()
    line = [sys.executable, "-m", "mixtura", *map(str, given), "--json"]
    said = subprocess.run(line, stdout=subprocess.PIPE, check=True).stdout
    return time.perf_counter() - began, json.loads(said)


def fingerprint(folder: Path, work: Path) -> str:
    """The hash of the model that a catalog has now, as it is saved."""
    shutil.rmtree(work, ignore_errors=True)
    bundle.save_pretrained(Catalog.open(folder).model, work)
    return bundle.fingerprint(work)


def enrolled_here(shop: Path, name: str, paths: list[Path]) -> list[float]:
    """Seconds to enroll photos in a process that has the catalog and its encoder, as a server has; then of others."""
    catalog, seconds = Catalog.open(shop), list[float]()
    encoder = encoder_for(catalog.model)
    for number, part in enumerate((paths[:SHOTS], paths[SHOTS : 2 * SHOTS])):
        began = time.perf_counter()
        made, problems = shots(encoder, part)
        catalog.enroll(f"{name} {number}", made)
        seconds.append(time.perf_counter() - began)
        assert not problems
    return seconds


def answers(shop: Path, paths: list[Path]) -> list[Decision]:
    """What a catalog says of photos; the number of its last edit is left out."""
    return [replace(one, model=None) for one in mixtura.load(shop).predict(paths)]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], data=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--each", type=int, default=50, help="photos of a class")
    given = parser.parse_args()
    work = given.work / "training-five-minutes"
    shutil.rmtree(work, ignore_errors=True)
    photos, asked, new = shoot(given.data / "grocery81_128px.npz", work, given.each)
    shop, name = work / "shop", new[0].parent.name
    seconds, made = mixtura_command("train", photos, "-o", shop, "--minutes", given.minutes)
    before = fingerprint(shop, work / "before")  # this makes the catalog, by whose numbers neighbors go from now on
    said = answers(shop, asked)
    right = [one.label == path.parent.name for one, path in zip(said, asked, strict=True)]
    command_seconds, _ = mixtura_command("enroll", shop, name, *new[:SHOTS])
    found = [one.label == name for one in answers(shop, new[SHOTS:])]
    mixtura_command("remove", shop, "--product", name)
    exact = fingerprint(shop, work / "after") == before and answers(shop, asked) == said
    first, second = enrolled_here(shop, name, new)
    for _ in range(2):
        mixtura_command("undo", shop)
    exact &= fingerprint(shop, work / "undone") == before and answers(shop, asked) == said
    record = {
        "photos": CLASSES * given.each,
        "classes": CLASSES,
        "minutes": given.minutes,
        "seconds": seconds,
        "in time": seconds <= 60 * given.minutes,
        "training": {key: value for key, value in made["training"].items() if key != "page"},
        "accuracy on further photos": float(np.mean(right)),
        "enroll": {
            "photos": SHOTS,
            "seconds": first,
            "seconds of the next": second,
            "seconds of the command": command_seconds,
            "aim": ENROLL_SECONDS,
        },
        "found of the new class": f"{sum(found)} of {len(found)}",
        "forgotten exactly": exact,
    }
    print(json.dumps(record, indent=2))
    write("training_five_minutes", record)
    sys.exit(int(not (record["in time"] and exact and first < ENROLL_SECONDS)))


if __name__ == "__main__":
    main()
