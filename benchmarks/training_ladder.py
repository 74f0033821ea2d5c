"""The ladder of what may be trained, at few and many photos a class: accuracy, loss, strangers noticed, minutes.

    python benchmarks/training_ladder.py --data DATA [--only grocery fashion] [--photos 5 10] [--seeds 3] [--rungs all]

A setting is a set and a number of photos a class, drawn anew for each seed with a fifth of the classes kept out as
strangers; "all" is the set's own split. Each rung is ``mixtura train --trainable RUNG`` with the defaults; ``frozen``
is the model that it begins with, which is also the result of ``head``. ``all, unmixed`` takes the trained weights as
they are, where validation photos prefer a mixture with those at the start. ``auto`` follows from these runs, because it
trains ``last`` and ``all`` in the same way: the one with the lower validation loss, if it replaced the frozen encoder.
``softmax`` is logistic regression (``head.name: linear``) on the features of ``all``, so at equal budget.

Test photos select nothing. Results are kept after each run, and runs that are there are not made again.
"""

import io
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
from common import RESULTS, arguments, write
from PIL import Image

from mixtura.datasets.idx import load_fashion_mnist
from mixtura.fitting import network
from mixtura.recipe import resolve
from mixtura.tasks import fit, train

UNKNOWN_SHARE = 0.2  # of the classes
PHOTOS = {"grocery": (5, 10, 20, None), "fashion": (5, 10, 20, 50)}
SIZE = {"grocery": 128, "fashion": 96}
FASHION_TEST = 2000  # photos, chosen once; a fifth of the test part, to save time
RUNGS = ("frozen", "last", "norm", "all")
NAME = "training_ladder"


def grocery(data: Path) -> dict[str, np.ndarray]:
    """The pack of Grocery Store."""
    with np.load(data / "grocery81_128px.npz") as pack:
        return {key: pack[key] for key in ("data", "offset", "y", "classes", "split")}


def fashion(_: Path) -> dict[str, np.ndarray]:
    """A pack of Fashion-MNIST's training photos and some test photos."""
    items = load_fashion_mnist().items
    test = [item for item in items if item.split == "test"]
    chosen = [test[row] for row in np.random.default_rng(0).permutation(len(test))[:FASHION_TEST]]
    some = [item for item in items if item.split == "train"] + chosen
    names, files = sorted({str(item.label) for item in some}), [png(item.payload) for item in some]
    return {
        "data": np.frombuffer(b"".join(files), np.uint8),
        "offset": np.cumsum([0, *map(len, files)]),
        "y": np.array([names.index(str(item.label)) for item in some]),
        "classes": np.array(names),
        "split": np.array([item.split for item in some]),
    }


def png(pixels: np.ndarray) -> bytes:
    """Pixels as a file."""
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def drawn(pack: dict[str, np.ndarray], photos: int | None, seed: int, path: Path) -> tuple[Path, tuple[str, ...]]:
    """A pack with so many photos a class to learn from, and the classes that are kept out."""
    rng = np.random.default_rng(seed)
    count = len(pack["classes"])
    unknown = rng.choice(count, round(UNKNOWN_SHARE * count), replace=False)
    names = tuple(str(pack["classes"][c]) for c in unknown)
    learn = pack["split"] != "test"
    rows = np.flatnonzero(~learn)
    if photos is None:
        rows = np.arange(len(learn))
    else:
        own = [rng.permutation(np.flatnonzero(learn & (pack["y"] == c)))[:photos] for c in range(count)]
        rows = np.sort(np.concatenate([rows, *own]))
    start, end = pack["offset"][rows], pack["offset"][rows + 1]
    kept = {
        "data": np.concatenate([pack["data"][a:b] for a, b in zip(start, end, strict=True)]),
        "offset": np.concatenate([[0], np.cumsum(end - start)]),
        "y": pack["y"][rows],
        "classes": pack["classes"],
        "split": np.where((photos is not None) & learn[rows], "train", pack["split"][rows]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **kept)
    return path, names


def run(keys: dict[str, object], part: str, output: Path) -> dict[str, object]:
    """The figures of the trained model, and what validation photos said; no figures if they prefer the start."""
    began = time.perf_counter()
    made = train.run(resolve(keys | {"train.trainable": part, "output": str(output)}))
    return {
        "figures": {gain.name: gain.after for gain in made.training.gains},
        "replaced": made.training.replaced,
        "share": made.course.parts[-1].share if made.course.parts else None,
        "loss": made.course.parts[-1].loss if made.course.parts else None,
        "minutes": (time.perf_counter() - began) / 60,
        "outcome": made.training.outcome,
    }


def unmixed(keys: dict[str, object], output: Path) -> dict[str, object]:
    """The same run with the trained weights as they are; training itself is not repeated."""
    shares, network.SHARES = network.SHARES, (1.0,)
    try:
        return run(keys, "all", output)
    finally:
        network.SHARES = shares


def softmax(keys: dict[str, object], output: Path) -> dict[str, object]:
    """Logistic regression on the features of a trained bundle."""
    own = {"encoder.name": f"own:{output}", "head.name": "linear", "extract.store": str(output / "features")}
    plain = {key: value for key, value in keys.items() if key != "encoder.size"}
    return fitted(plain | own, output.with_suffix(".softmax"))


def fitted(keys: dict[str, object], output: Path) -> dict[str, object]:
    """The figures of a model of features as they are."""
    untrained = {key: value for key, value in keys.items() if not key.startswith("train.")}
    metrics = fit.run(resolve(untrained | {"output": str(output)})).evaluation.metrics
    names = {"accuracy": "top1", "nll": "nll", "auroc_unknown": "auroc_unknown"}
    return {"figures": {name: metrics[key] for name, key in names.items()}}


def auto(found: dict[str, dict]) -> str:
    """The rung that ``--trainable auto`` takes: the lower validation loss, if that replaces the frozen encoder."""
    tried = {rung: found[rung] for rung in ("last", "all") if rung in found and found[rung]["loss"] is not None}
    if not tried:
        return "frozen"
    best = min(tried, key=lambda rung: tried[rung]["loss"])
    photos = re.search(r"On (\d+) validation photos", tried[best]["outcome"])
    enough = photos is not None and int(photos[1]) >= train.MIN_COMPARED
    return best if enough and tried[best]["replaced"] else "frozen"


def summary(runs: dict[str, dict]) -> dict[str, dict[str, object]]:
    """Accuracy in percent by setting: means over seeds, and that of auto against the best rung, paired by seed."""
    made: dict[str, dict[str, object]] = {}
    for setting in dict.fromkeys(key.rpartition(", seed")[0] for key in runs):
        own = [one for key, one in runs.items() if key.rpartition(", seed")[0] == setting and {"last", "all"} & {*one}]
        rungs = [rung for rung in ("frozen", "last", "all") if all(rung in one for one in own)]
        if not own:
            continue
        of = {rung: np.array([100 * one[rung]["figures"]["accuracy"] for one in own]) for rung in rungs}
        taken = np.array([100 * one[auto(one)]["figures"]["accuracy"] for one in own])
        best = max(rungs, key=lambda rung: of[rung].mean())
        apart = taken - of[best]
        made[setting] = {rung: float(values.mean()) for rung, values in of.items()} | {
            "auto": float(taken.mean()),
            "auto took": [auto(one) for one in own],
            "auto minus the best": float(apart.mean()),
            "standard error": float(apart.std(ddof=1) / len(own) ** 0.5) if len(own) > 1 else None,
        }
    return made


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], data=True)
    parser.add_argument("--only", nargs="*", default=list(PHOTOS))
    parser.add_argument("--photos", nargs="*", help="a class, or all")
    parser.add_argument("--rungs", nargs="*", default=list(RUNGS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--name", default=NAME)
    args = parser.parse_args()
    path = RESULTS / f"{args.name}.json"
    runs = json.loads(path.read_text())["runs"] if path.is_file() else {}
    for name in args.only:
        pack = {"grocery": grocery, "fashion": fashion}[name](args.data)
        for photos in PHOTOS[name]:
            if args.photos and str(photos or "all") not in args.photos:
                continue
            for seed in args.seeds:
                setting = f"{name}, {photos or 'all'} photos a class, seed {seed}"
                place = args.work / f"ladder-{name}-{photos or 'all'}-{seed}"
                file, unknown = drawn(pack, photos, seed, place / "photos.npz")
                keys: dict[str, object] = {
                    "data.kind": "npz",
                    "data.root": str(file),
                    "data.unknown": unknown,
                    "encoder.size": SIZE[name],
                    "extract.store": str(place / "features"),
                    "seed": seed,
                } | ({} if args.epochs is None else {"train.epochs": args.epochs})
                found = runs.setdefault(setting, {})
                for rung in args.rungs:
                    if rung in found:
                        continue
                    output = place / rung
                    shutil.rmtree(output, ignore_errors=True)
                    found[rung] = fitted(keys, output) if rung == "frozen" else run(keys, rung, output)
                    if rung == "all" and found[rung]["replaced"]:
                        found["softmax"] = softmax(keys, output)
                    if rung == "all" and found[rung]["share"] not in (None, 1.0):
                        found["all, unmixed"] = unmixed(keys, output)
                    print(setting, rung, {k: v for k, v in found[rung].items() if k != "outcome"}, flush=True)
                    write(args.name, {"summary": summary(runs), "runs": runs})
                shutil.rmtree(place)


if __name__ == "__main__":
    main()
