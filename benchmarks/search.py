"""Search and clusters on frozen lite0 features: precision and mAP, agreement with labels, and the cost of being exact.

Grocery Store (128 px, official test part against train and val) and CIFAR-100 (96 px, 2,000 test photos against the
50,000 of train). Clusters are compared with the labels, which no method sees. Seconds are the least of five, and stand
beside the matrix product of the same shape, timed in turn with them in the same process.

    python benchmarks/search.py --data DATA --work STORES
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from common import arguments, write

from mixtura.features.ann import Inverted, recall
from mixtura.features.neighbors import Exact
from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.metrics.clustering import adjusted_rand, mutual_information
from mixtura.recipe import resolve
from mixtura.tasks import extract
from mixtura.tasks.cluster import METHODS, run
from mixtura.tasks.search import Retrieval, measure

QUERIES, NEIGHBORS, ROUNDS = 1000, 10, 5


def features_of(pack: str, size: int, args, name: str) -> Features:
    """Features of a pack, from the store where they are already."""
    recipe = resolve(
        {"data.kind": "npz", "data.root": str(args.data / pack), "encoder.size": size}
        | {"extract.store": str(args.work / name)}
    )
    if not (args.work / name / "store.json").exists():
        extract.run(recipe)
    return FeatureStore.open(args.work / name).read()


def coarse(features: Features) -> Features:
    return type(features)(**(vars(features) | {"label": features.superlabel, "superlabel": features.label}))


def shares(found: Retrieval) -> dict:
    record = {f"precision@{k}": 100 * value for k, value in found.precision.items()}
    return record | {"mAP": 100 * found.mean_average_precision, "queries": found.queries, "items": found.items}


def retrieval(grocery: Features, cifar: Features | None) -> dict:
    found = {}
    for level, features in {"fine": grocery, "coarse": coarse(grocery)}.items():
        test, others = features.select_split("test"), np.array([s != "test" for s in features.split])
        found[f"grocery {level}, test against train and val"] = shares(measure(features.select(others), test))
        found[f"grocery {level}, each item left out"] = shares(measure(features))
    if cifar is not None:
        test = cifar.select_split("test")
        some = test.select(np.random.default_rng(0).permutation(len(test))[:2000])
        train = cifar.select_split("train")
        found["cifar-100 fine, test against train"] = shares(measure(train, some))
        found["cifar-100 coarse, test against train"] = shares(measure(coarse(train), coarse(some)))
    return found


def clusters(grocery: Features) -> dict:
    """Each method with a count of its own choice and with the number of coarse labels."""
    true = {
        "fine": grocery.label_index(grocery.classes),
        "coarse": coarse(grocery).label_index(grocery.superclasses),
    }
    found = {}
    for method in METHODS:
        for asked in (None, len(grocery.superclasses)):
            if method == "hdbscan" and asked is not None:
                continue
            made = run(grocery, method, asked)
            record = {"clusters": int(made.number.max()), "noise": 100 * made.noise / len(made.number)}
            for level, label in true.items():
                record[f"ARI {level}"] = adjusted_rand(label, made.number)
                record[f"NMI {level}"] = mutual_information(label, made.number)
            record |= {"silhouette": made.silhouette, "stability": made.stability, "seconds": made.seconds}
            found[f"{method}, {'auto' if asked is None else asked}"] = record
            print(method, asked, record, flush=True)
    return found


def least(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The least seconds of each, taken in turn."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - began)
    return {name: min(values) for name, values in taken.items()}


def cost(base: torch.Tensor) -> dict:
    """A thousand queries, and one, against all rows."""
    base = base.contiguous()
    query = base[torch.randperm(len(base), generator=torch.Generator().manual_seed(0))[:QUERIES]]
    exact, began = Exact.build(base), time.perf_counter()
    inverted = Inverted.build(base)
    built = time.perf_counter() - began
    unit, one = exact.unit, query[:1]
    seconds = least(
        {
            "product of the same shape": lambda: query @ unit.T,
            "exact": lambda: exact.search(query, NEIGHBORS),
            "ivf": lambda: inverted.search(query, NEIGHBORS),
            "product, one query": lambda: one @ unit.T,
            "exact, one query": lambda: exact.search(one, NEIGHBORS),
            "ivf, one query": lambda: inverted.search(one, NEIGHBORS),
        }
    )
    return {
        "shape": [QUERIES, *base.shape],
        "seconds": seconds,
        "exact over product": seconds["exact"] / seconds["product of the same shape"],
        "ivf recall@10": 100 * recall(inverted, base, NEIGHBORS),
        "ivf build seconds": built,
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], data=True)
    args = parser.parse_args()
    if args.data is None:
        raise SystemExit("Give --data, the folder of the packs.")
    grocery = features_of("grocery81_128px.npz", 128, args, "grocery")
    cifar = None
    if (args.work / "cifar100" / "store.json").exists():
        cifar = FeatureStore.open(args.work / "cifar100").read()
    base = grocery if cifar is None else cifar.select_split("train")
    figures = {"cost": cost(torch.from_numpy(base.embedding)), "search": retrieval(grocery, cifar)}
    print(figures, flush=True)
    write("search", {"figures": figures | {"clusters of grocery": clusters(grocery)}})


if __name__ == "__main__":
    main()
