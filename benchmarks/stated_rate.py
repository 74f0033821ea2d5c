"""Stated against measured false-reject rates on exchangeable random splits of feature sets.

Every cell is a set of features, a number of classes and of rows a class: ten random draws of both, a model of the
drawn rows, and the shares of other rows of the same classes that typicality turns away at 1, 5, 10 and 20%. As the
model has equally many rows of each class, each class counts equally among the others too, however many it has left.
A rate that is below the smallest rank there is (1 / (rows + 1)) is left out: fit says that nothing can be rejected.
Sets are feature stores, or .npz packs with ``x`` and ``label``.

    python benchmarks/stated_rate.py --data stores/grocery-fine stores/orl stores/cifar100 [--draws 10] [--recipe K=V]
"""

import argparse
import zlib
from pathlib import Path

import numpy as np
import torch
from common import in_memory, model_of, write

from mixtura.features.records import Features
from mixtura.features.store import HEADER_FILE, FeatureStore
from mixtura.recipe import resolve
from mixtura.scores.typicality import can_reject

RATES = (0.01, 0.05, 0.1, 0.2)
CLASSES = (10, 30, 100)
ROWS = (5, 10, 30, 100, 500)
MIN_TEST = 200  # rows to test with in a cell; fewer tell nothing about 1%
MAX_TEST = 4000


def read(path: Path) -> Features:
    """The features of a store or a pack, all splits together."""
    if (path / HEADER_FILE).is_file():
        return FeatureStore.open(path).read()
    with np.load(path) as pack:
        label = [str(one) for one in pack["label"]]
        return in_memory(pack["x"], label, ["train"] * len(label))


def cells(features: Features) -> list[tuple[int, int]]:
    """Numbers of classes and of rows a class that leave enough rows to test with."""
    size = np.sort(np.unique(np.asarray(features.label), return_counts=True)[1])[::-1]
    found = []
    for count in sorted({min(count, len(size)) for count in CLASSES}):
        for rows in ROWS:
            least = size[count - 1]
            if rows < least and (size[:count] - rows).clip(0).sum() >= MIN_TEST:
                found.append((count, rows))
    return found


def drawn(features: Features, count: int, rows: int, seed: int) -> Features:
    """Random classes and rows to learn from, ``rows`` a class; what is left of these classes is the test part."""
    rng = np.random.default_rng(seed)
    label = np.asarray(features.label)
    names, size = np.unique(label, return_counts=True)
    chosen = rng.choice(names[size > rows], count, replace=False)
    learn, test = [], []
    for name in chosen:
        order = rng.permutation(np.flatnonzero(label == name))
        learn, test = [*learn, *order[:rows]], [*test, *order[rows:]]
    test = rng.permutation(test)[:MAX_TEST]
    index = np.concatenate([learn, test]).astype(np.int64)
    split = ["train"] * len(learn) + ["test"] * len(test)
    return in_memory(features.embedding[index], [str(one) for one in label[index]], split, features.identity)


def measure(features: Features, options: dict[str, object]) -> tuple[list[float], dict[str, object]]:
    """Shares turned away at each stated rate, and how the model was calibrated."""
    model = model_of(features, resolve(options))
    test = features.select_split("test")
    typicality = torch.from_numpy(np.asarray(model.answers(test.embedding).typicality))
    facts = {key: model.facts[key] for key in ("family", "shrinkage", "calibrated_by", "held_out_items")}
    _, label, count = np.unique(np.asarray(test.label), return_inverse=True, return_counts=True)
    weight = torch.from_numpy(1 / (len(count) * count[label]))
    return [float(weight @ (typicality < rate).double()) for rate in RATES], facts


def cell(features: Features, shape: tuple[int, int], draws: int, options: dict[str, object]) -> list[dict]:
    """Mean over draws, its standard error and the deviation from each stated rate in standard errors."""
    seeds = [zlib.crc32(f"{shape}{i}".encode()) for i in range(draws)]
    found = [measure(drawn(features, *shape, seed), options) for seed in seeds]
    shares = np.array([one for one, _ in found])
    error = shares.std(0, ddof=1) / draws**0.5
    return [
        {
            "classes": shape[0], "rows a class": shape[1], "stated": 100 * rate, "measured": 100 * mean,
            "standard error": 100 * sigma, "z": (mean - rate) / max(sigma, 1e-9), "facts": found[0][1],
        }
        for rate, mean, sigma in zip(RATES, shares.mean(0).tolist(), error.tolist(), strict=True)
        if can_reject(min(facts["held_out_items"] for _, facts in found), rate)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="feature stores or .npz packs")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--cells", nargs="*", default=[], help="only these, such as 10x30")
    parser.add_argument("--recipe", nargs="*", default=[], help="recipe keys, such as head.family=lowrank")
    parser.add_argument("--name", default="stated_rate", help="of the results file")
    args = parser.parse_args()
    if not args.data:
        print("left out: give --data")
        return
    options = dict(pair.split("=", 1) for pair in args.recipe)
    lines = []
    for path in args.data:
        features = read(path)
        for shape in cells(features):
            if args.cells and "{}x{}".format(*shape) not in args.cells:
                continue
            for line in cell(features, shape, args.draws, options):
                lines.append({"set": path.stem} | line)
                print(*(f"{v:.2f}" if isinstance(v, float) else v for v in lines[-1].values()), flush=True)
    z = np.abs([line["z"] for line in lines])
    summary = {"cells": len(z), "within 2 standard errors": float((z <= 2).mean()), "largest deviation": float(z.max())}
    print(summary)
    write(args.name, {"summary": summary, "cells": lines})


if __name__ == "__main__":
    main()
