"""Decisions with taps and size off and on, beside LR, LDA and kNN on the same tapped features; three draws.

Of each set a fifth of the classes is kept out as unknown; the classes, and where the set has no split of its own the
rows, are drawn anew in every draw. Each rival chooses its one option on the same validation rows (a fifth of the rows
to learn from), by log-loss, then learns from all of them; its temperature and its 5% threshold come from the same
validation rows. What selects anything sees no test row.

    python benchmarks/decisions.py --data DATA --orl FOLDER [--only grocery-fine orl ...] [--draws 3] [--native]
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import arguments, model_of, write
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from mixtura.core import temperature
from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.metrics.calibration import ece
from mixtura.metrics.detection import auroc
from mixtura.recipe import resolve
from mixtura.tasks import extract
from mixtura.tasks.evaluate import evaluate

STATED_RATE = 0.05
UNKNOWN_SHARE = 0.2  # of the classes
VALIDATION_SHARE = 0.2  # of the rows to learn from
MIN_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Set:
    """A set with its recipe keys, the small and the native size in pixels, and whether it has a split of its own."""

    keys: dict
    small: int
    native: int
    has_split: bool = True


def sets(args) -> dict[str, Set]:
    grocery = {"data.kind": "npz", "data.root": str(args.data / "grocery81_128px.npz")}
    letters = {
        "data.kind": "npz",
        "data.root": str(args.data / "omniglot" / "omniglot_small_8alphabets.npz"),
    }
    cifar = {"data.kind": "npz", "data.root": str(args.data / "cifar100_test.npz"), "data.label": "fine"}
    return {
        "grocery-fine": Set(grocery | {"data.label": "fine"}, 128, 224),
        "grocery-coarse": Set(grocery | {"data.label": "coarse"}, 128, 224),
        "orl": Set({"data.root": str(args.orl)}, 128, 224, has_split=False),
        "omniglot-8": Set(letters, 64, 96, has_split=False),
        "cifar-100": Set(cifar, 32, 64, has_split=False),
        "fashion-mnist": Set({"data.kind": "fashion-mnist"}, 64, 96),
    }


def features_of(name: str, data: Set, size: int, work: Path) -> Features:
    recipe = resolve(data.keys | {"encoder.size": size, "extract.store": str(work / f"{name}-{size}")})
    extract.run(recipe)
    return FeatureStore.open(recipe.extract.store).read()


def drawn(features: Features, data: Set, seed: int) -> tuple[Features, tuple[str, ...]]:
    """The features with a split, and the classes that are kept out."""
    rng = np.random.default_rng(seed)
    names = features.classes
    unknown = rng.choice(names, max(1, round(UNKNOWN_SHARE * len(names))), replace=False)
    if data.has_split:
        return features, tuple(map(str, unknown))
    split = {}
    for name in names:
        own = [id for id, label in zip(features.id, features.label, strict=True) if label == name]
        for place, which in enumerate(rng.permutation(len(own))):
            split[own[which]] = "train" if place < len(own) // 2 else "test"
    return features.with_split(split), tuple(map(str, unknown))


def mixtura(features: Features, unknown: tuple[str, ...], taps: str) -> dict:
    model = model_of(features, resolve({"data.unknown": unknown, "encoder.taps": taps}))
    figures = evaluate(model, features.select_split("test")).metrics
    return {
        "top1": 100 * figures["top1"],
        "nll": figures["nll"],
        "ece": 100 * figures["ece"],
        "auroc": 100 * figures["auroc_unknown"],
        "unknown found": 100 * figures["unknown_found"],
        "false reject": 100 * figures["false_reject"],
        "layers": model.facts.get("layers", ["last"]),
    }


def _logistic(c: float):
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300))


def _lda(shrinkage: float):
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)


def _neighbors(k: int):
    return make_pipeline(Normalizer(), KNeighborsClassifier(k, weights="distance"))


RIVALS = {
    "logistic regression": (_logistic, (1e-4, 1e-3, 1e-2, 1e-1, 1.0)),
    "LDA": (_lda, (0.01, 0.03, 0.1, 0.3, 0.6)),
    "kNN": (_neighbors, (1, 3, 5, 10, 20)),
}


def rivals(features: Features, unknown: tuple[str, ...]) -> dict[str, dict]:
    known = [name for name in features.classes if name not in unknown]
    test = np.array([split == "test" for split in features.split])
    label = features.label_index(tuple(known))
    x, y = features.embedding[~test & (label >= 0)], label[~test & (label >= 0)]
    rng = np.random.default_rng(0)
    order = rng.permutation(len(y))
    judge = np.zeros(len(y), dtype=bool)
    for c in range(len(known)):
        own = order[y[order] == c]
        judge[own[: round(VALIDATION_SHARE * len(own))]] = True
    truth = label[test]
    return {
        name: _measured(make, options, (x, y, judge), (features.embedding[test], truth))
        for name, (make, options) in RIVALS.items()
    }


def _log_probability(model, x) -> torch.Tensor:
    return torch.from_numpy(np.log(model.predict_proba(x).clip(MIN_PROBABILITY)))


def _measured(make, options, learned, asked) -> dict:
    (x, y, judge), (test, truth) = learned, asked
    label = torch.from_numpy(y[judge])
    trials = []
    for option in options:
        model = make(option).fit(x[~judge], y[~judge])
        scores = _log_probability(model, x[judge])
        best = temperature.best(scores, label)
        trials.append((temperature.nll(scores, label, best), option, best, _familiarity(model, x[judge], best)))
    _, option, best, validation = min(trials, key=lambda trial: trial[0])
    limit = np.quantile(validation, STATED_RATE)
    whole = make(option).fit(x, y)
    posterior = (_log_probability(whole, test) / best).softmax(1).numpy()
    score, inside = _familiarity(whole, test, best), truth >= 0
    right = posterior[inside].argmax(1) == truth[inside]
    chosen = posterior[inside][np.arange(inside.sum()), truth[inside]]
    return {
        "top1": 100 * right.mean(),
        "nll": -np.log(chosen.clip(MIN_PROBABILITY)).mean(),
        "ece": 100 * ece(posterior[inside].max(1), right),
        "auroc": 100 * auroc(score, inside),
        "unknown found": 100 * (score[~inside] < limit).mean(),
        "false reject": 100 * (score[inside] < limit).mean(),
        "option": option,
    }


def _familiarity(model, x, best: float) -> np.ndarray:
    """Higher for more familiar rows: the closeness of the nearest neighbor, or the largest tempered probability."""
    last = model[-1] if hasattr(model, "__getitem__") else model
    if isinstance(last, KNeighborsClassifier):
        index: NearestNeighbors = last
        return -index.kneighbors(model[0].transform(x))[0].mean(1)
    return (_log_probability(model, x) / best).softmax(1).max(1).values.numpy()


def summary(draws: list[dict]) -> dict:
    """Mean and standard error over the draws of every number."""
    names = [name for name, value in draws[0].items() if isinstance(value, float | np.floating)]
    values = {name: np.array([float(draw[name]) for draw in draws]) for name in names}
    return {
        name: {"mean": float(v.mean()), "se": float(v.std(ddof=1) / len(v) ** 0.5) if len(v) > 1 else None}
        for name, v in values.items()
    } | {key: [draw[key] for draw in draws] for key in ("layers", "option") if key in draws[0]}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], data=True)
    parser.add_argument("--orl", type=Path, help="folder of the ORL faces, one folder a person")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--native", action="store_true", help="native size and all taps alone, for large sets")
    args = parser.parse_args()
    for name, data in sets(args).items():
        if args.only and name not in args.only:
            continue
        sizes = (data.native,) if args.native else (data.small, data.native)
        read = {size: features_of(name, data, size, args.work) for size in sizes}
        found: dict[str, list[dict]] = {}
        for seed in range(args.draws):
            for size, features in read.items():
                split, unknown = drawn(features, data, seed)
                for taps in ("auto",) if args.native else ("none", "auto"):
                    title = f"mixtura, {size} px, taps {taps}"
                    found.setdefault(title, []).append(mixtura(split, unknown, taps))
                    print(name, seed, title, found[title][-1], flush=True)
            for rival, record in rivals(split, unknown).items():
                title = f"{rival}, {data.native} px, all taps"
                found.setdefault(title, []).append(record)
                print(name, seed, title, record, flush=True)
        write(f"decisions_{name}", {"draws": args.draws, "figures": {key: summary(d) for key, d in found.items()}})


if __name__ == "__main__":
    main()
