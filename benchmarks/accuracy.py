"""Accuracy and measured false-reject rate of ``family: auto`` on frozen lite0 features, beside scikit-learn.

Fashion-MNIST (60,000 + 10,000, 96 px), Grocery Store (train + val / test, 224 px; fine and coarse), ORL faces (5 + 5 a
person, 224 px, three draws); the last two with the layers that ``auto`` taps. Every baseline gets the same rows and
columns. Nothing sees a test row before the last line.

    python benchmarks/accuracy.py --data DATA --orl FOLDER [--only fashion grocery orl]
"""

import time
from pathlib import Path

import numpy as np
from common import arguments, baselines, model_of, write

from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.metrics.intervals import binomial_sigma
from mixtura.recipe import Recipe, resolve
from mixtura.tasks import extract
from mixtura.tasks.evaluate import evaluate


def features_of(recipe: Recipe) -> Features:
    extract.run(recipe)
    return FeatureStore.open(recipe.extract.store).read()


def measure(features: Features, recipe: Recipe) -> dict:
    began = time.perf_counter()
    model = model_of(features, recipe)
    seconds = time.perf_counter() - began
    test, train = features.select_split("test"), features.select(np.array([s != "test" for s in features.split]))
    found = evaluate(model, test)
    limit, count = found.alpha, found.intervals["false_reject"].count
    y, truth = train.label_index(model.classes), test.label_index(model.classes)
    return {
        "mixtura top1": 100 * found.metrics["top1"],
        "baselines top1": baselines(train.embedding, y, test.embedding, truth),
        "ece": 100 * found.metrics["ece"],
        "nll": found.metrics["nll"],
        "false reject stated": 100 * limit,
        "false reject measured": 100 * found.metrics["false_reject"],
        "binomial sigmas off": (found.metrics["false_reject"] - limit) / binomial_sigma(limit, count),
        "train": len(train),
        "test": len(test),
        "fit seconds": seconds,
        "chosen": {key: model.facts[key] for key in ("projection", "family", "prior_strength", "shrinkage")}
        | {"layers": model.facts.get("layers", ["last"])},
        "held-out accuracy": 100 * float(model.facts["held_out_accuracy"]),
    }


def fashion(args) -> dict:
    recipe = resolve(
        {
            "data.kind": "fashion-mnist",
            "encoder.size": 96,
            "encoder.taps": "none",
            "extract.store": str(args.work / "fashion"),
        }
    )
    return {"fashion-mnist, 96 px": measure(features_of(recipe), recipe)}


def grocery(args) -> dict:
    pack = str(args.data / "grocery81_128px.npz")
    found = {}
    for level in ("fine", "coarse"):
        keys = {"data.kind": "npz", "data.root": pack, "data.label": level}
        recipe = resolve(keys | {"extract.store": str(args.work / f"grocery-{level}")})
        found[f"grocery {level}, 224 px"] = measure(features_of(recipe), recipe)
    return found


def orl(args) -> dict:
    recipe = resolve({"data.root": str(args.orl), "extract.store": str(args.work / "orl")})
    features = features_of(recipe)
    return {f"ORL, draw {seed}": measure(halves(features, seed), recipe) for seed in range(3)}


def halves(features: Features, seed: int) -> Features:
    """Five photos of each person to learn from, five to test with."""
    rng = np.random.default_rng(seed)
    split = {}
    for person in features.classes:
        own = [id for id, label in zip(features.id, features.label, strict=True) if label == person]
        for place, which in enumerate(rng.permutation(len(own))):
            split[own[which]] = "train" if place < len(own) // 2 else "test"
    return features.with_split(split)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], data=True)
    parser.add_argument("--orl", type=Path, help="folder of the ORL faces, one folder a person")
    parser.add_argument("--only", nargs="*", default=["orl", "grocery", "fashion"])
    args = parser.parse_args()
    needed = {"orl": args.orl, "grocery": args.data, "fashion": args.work}
    for name in args.only:
        if needed[name] is None:
            print(f"{name} is left out: give --data and --orl")
            continue
        found = {"orl": orl, "grocery": grocery, "fashion": fashion}[name](args)
        for title, record in found.items():
            print(title, record)
        write(f"accuracy_{name}", {"figures": found})


if __name__ == "__main__":
    main()
