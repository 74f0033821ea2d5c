"""Do named subclasses cost the classes anything?  Grocery: 43 superlabels, 81 labels, frozen features.

    python benchmarks/coarse_levels.py STORE        # about nine minutes on 2 cores

STORE holds features with both levels of labels (mixtura extract). One fit learns the superlabels alone, the other both
levels; both are tested on the same test part. Once with all classes, then with a fifth of them left out as strangers,
drawn anew for each of three seeds. The difference in accuracy is paired over the test items.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from mixtura.features.store import FeatureStore
from mixtura.recipe import resolve
from mixtura.tasks import fit

RESULT = Path(__file__).parent / "results" / "coarse_levels.json"
FIGURES = ("top1", "balanced", "nll", "ece", "false_reject", "auroc_unknown", "unknown_found")
SEEDS, STRANGERS = 3, 0.2
DATA = "Grocery Store, superlabels as classes and labels as subclasses"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    store = parser.parse_args().store
    features = FeatureStore.open(store).read()
    left_out = [(), *(strangers(features.superclasses, seed) for seed in range(SEEDS))]
    counts = {"superlabels": len(features.superclasses), "labels": len(features.classes), "items": len(features)}
    record = {"data": DATA, **counts, "encoder": features.identity, "cores": os.cpu_count(), "draws": []}
    for unknown in left_out:
        record["draws"].append(compared(store, unknown))
        RESULT.write_text(json.dumps(record, indent=2) + "\n")


def strangers(classes, seed):
    """A fifth of the classes."""
    order = np.random.default_rng(seed).permutation(len(classes))
    return tuple(sorted(classes[place] for place in order[: round(STRANGERS * len(classes))]))


def compared(store, unknown):
    """The figures of both fits, and the difference in accuracy with its standard error."""
    found = {level: measured(store, level, unknown) for level in ("superlabel", "both")}
    right = [one.predicted[one.true >= 0] == one.true[one.true >= 0] for one in found.values()]
    gain = right[1].astype(float) - right[0]
    error = float(gain.std(ddof=1) / len(gain) ** 0.5)
    levels = {level: figures(one) for level, one in found.items()}
    return {"left_out": list(unknown), "tested": len(gain), **levels, "gain": float(gain.mean()), "error": error}


def figures(evaluation):
    """The metrics that there are, rounded."""
    return {name: round(evaluation.metrics[name], 4) for name in FIGURES if name in evaluation.metrics}


def measured(store, level, unknown):
    """The evaluation of a fit on the test part of the data."""
    with tempfile.TemporaryDirectory() as folder:
        keys = {"data.kind": "features", "data.root": store, "data.level": level, "data.unknown": list(unknown)}
        return fit.run(resolve(keys | {"output": Path(folder) / "model"})).evaluation


if __name__ == "__main__":
    main()
