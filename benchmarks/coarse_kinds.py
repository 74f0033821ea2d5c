"""Kinds within the 43 coarse classes of Grocery Store on frozen lite0 features, compared with its 81 fine classes.

All rows are used (train, val and test together): nothing is fitted that is later scored, the fine labels are seen by no
method, and a shop owner looks into all photos as well. One setting was chosen with a look at this set: mixtures start
more often since eight of these classes were seen to be unstable by too few starts.

    python benchmarks/coarse_kinds.py --work STORES [--data DATA]

STORES/grocery-fine is a store with the fine class as label and the coarse one as superlabel; where it is missing, it is
extracted from DATA/grocery81_128px.npz.
"""

import time
from dataclasses import replace

import numpy as np
from common import arguments, write

from mixtura.core.subclasses.search import Rules
from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.metrics.clustering import adjusted_rand, hungarian_accuracy, mutual_information
from mixtura.recipe import resolve
from mixtura.tasks import extract
from mixtura.tasks.subclasses import Subclasses, run

STORE, PACK = "grocery-fine", "grocery81_128px.npz"


def grocery(args) -> Features:
    """The features, from the store where they are already."""
    place = args.work / STORE
    if not (place / "store.json").exists():
        if args.data is None:
            raise SystemExit(f"Give --data, the folder of {PACK}.")
        recipe = {"data.kind": "npz", "data.root": str(args.data / PACK), "extract.store": str(place)}
        extract.run(resolve(recipe))
    return FeatureStore.open(place).read()


def numbered(values) -> np.ndarray:
    return np.unique(np.array([str(one) for one in values]), return_inverse=True)[1]


def agreement(fine: np.ndarray, labels) -> dict[str, float]:
    own = numbered(labels)
    return {
        "Hungarian accuracy": 100 * hungarian_accuracy(fine, own),
        "NMI": mutual_information(fine, own),
        "ARI": adjusted_rand(fine, own),
        "kinds": int(own.max()) + 1,
    }


def with_true_counts(coarse: Features, true: dict[str, int], rules: Rules) -> list[str]:
    """K-means inside every class, with the number of fine classes as the number of kinds."""
    label = np.array(coarse.label, dtype=object)
    for count in sorted({one for one in true.values() if one > 1}):
        names = [name for name, own in true.items() if own == count]
        found = run(coarse, "kmeans", names, count, replace(rules, most=max(rules.most, count)))
        some = found.number > 0
        label[some] = [f"{name}/{n}" for name, n in zip(label[some], found.number[some], strict=True)]
    return label.tolist()


def labels_of(found: Subclasses) -> list[str]:
    return [f"{name}/{n}" for name, n in zip(found.features.label, found.number.tolist(), strict=True)]


def classes_of(found: Subclasses, true: dict[str, int]) -> dict:
    """How often classes of one fine class stay whole, and what becomes of the others."""
    single = [one for one in found.classes if true[one.name] == 1]
    judged = [one for one in single if one.reason != "few_rows"]
    several = [one for one in found.classes if true[one.name] > 1]
    return {
        "classes of one kind": len(single),
        "kept whole": sum(one.count == 1 for one in single),
        "of one kind with the rows to split": len(judged),
        "kept whole of these": sum(one.count == 1 for one in judged),
        "classes of several kinds": len(several),
        "split of these": sum(one.count > 1 for one in several),
        "with the true count": sum(one.count == true[one.name] for one in several),
        "mean absolute error of the count": float(np.mean([abs(one.count - true[one.name]) for one in found.classes])),
    }


def each(found: Subclasses, true: dict[str, int]) -> list[dict]:
    return [
        {"class": one.name, "rows": one.size, "true": true[one.name], "found": one.count, "likeliest": one.likeliest,
         "stability": one.stability, "p": one.p_value, "p corrected": one.corrected, "reason": one.reason}
        for one in found.classes
    ]  # fmt: skip


def main() -> None:
    args = arguments(__doc__.splitlines()[0], data=True).parse_args()
    features = grocery(args)
    fine = numbered(features.label)
    coarse = replace(features, label=features.superlabel, superlabel=features.label)
    pairs = set(zip(coarse.label, features.label, strict=True))
    true = {name: sum(own == name for own, _ in pairs) for name in coarse.classes}
    rules, figures = Rules(), {}
    for method in ("mixture", "hdbscan", "dendrogram", "kmeans"):
        began, cpu = time.perf_counter(), time.process_time()
        found = run(coarse, method, rules=rules)
        seconds = {"seconds": time.perf_counter() - began, "processor seconds": time.process_time() - cpu}
        figures[method] = agreement(fine, labels_of(found)) | classes_of(found, true) | seconds
        if method == "mixture":
            figures[method]["each class"] = each(found, true)
        print(method, {key: value for key, value in figures[method].items() if key != "each class"}, flush=True)
    began = time.perf_counter()
    figures["kmeans, true counts"] = agreement(fine, with_true_counts(coarse, true, rules))
    figures["kmeans, true counts"]["seconds"] = time.perf_counter() - began
    figures["coarse classes whole"] = agreement(fine, coarse.label)
    print(figures["kmeans, true counts"], figures["coarse classes whole"], flush=True)
    shape = {"items": len(features), "features": features.dimension, "fine": len(features.classes), "coarse": len(true)}
    write("coarse_kinds", {"rows used": "train, val and test together", "shape": shape, "figures": figures})


if __name__ == "__main__":
    main()
