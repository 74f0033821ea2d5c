"""Is the catalog's enrollment at least as good as other few-shot classifiers, by the protocol of few-shot papers?

For each feature store, half of the classes are base classes, and episodes of the others are drawn: 5-way and all-way,
1, 5 and 20 shots, 15 queries a class. Classes with too few items for an episode are left out, and
shots for which fewer than five classes remain. Figures are percent: the
accuracy, what enroll (``gaussian``) has beyond it, and the standard error of that difference over the episodes.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from common import write

from mixtura.datasets.episodes import Design
from mixtura.features.store import FeatureStore
from mixtura.records.few_shot import FewShot
from mixtura.tasks.few_shot_classifiers import Material
from mixtura.tasks.fewshot import CLASSIFIERS, drawn, of_features, run

WAY, SHOTS, QUERIES = 5, (1, 5, 20), 15
EPISODES = {"nway": 1000, "allway": 100}
ENROLLING = "gaussian"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="+", type=Path, help="feature stores, named after their data set")
    parser.add_argument("--seed", type=int, default=0, help="of base classes and episodes")
    given = parser.parse_args()
    write("fewshot", {"seed": given.seed, "stores": {path.name: _measured(path, given.seed) for path in given.stores}})


def _measured(path: Path, seed: int) -> dict[str, dict]:
    material = of_features(FeatureStore.open(path).read(), "auto", seed)
    rows: dict[str, dict] = {}
    for protocol, episodes in EPISODES.items():
        for shot in SHOTS:
            began = time.process_time()
            if _large_enough(material, shot + QUERIES) < WAY:
                continue
            listed = drawn(material, protocol, Design(WAY, shot, QUERIES, episodes, seed), skip_small=True)
            found = run(material, listed, [*CLASSIFIERS])
            rows[found.named] = _row(found)
            print(f"{path.name}, {found.named}: {time.process_time() - began:.0f} s of processor time", flush=True)
            for name, one in rows[found.named]["classifiers"].items():
                print(
                    f"  {name:12s} {one['accuracy']:6.2f}  enroll {one['enroll_minus_this']:+6.2f} ± {one['error']:.2f}"
                )
    return rows


def _large_enough(material: Material, needed: int) -> int:
    """How many of the new classes have so many items."""
    return int((np.unique(np.asarray(material.novel.label), return_counts=True)[1] >= needed).sum())


def _row(found: FewShot) -> dict:
    enrolled = next(one.accuracy for one in found.results if one.classifier == ENROLLING)
    rows = {}
    for one in found.results:
        gap = 100 * (enrolled - one.accuracy)
        error = float(gap.std(ddof=1) / np.sqrt(len(gap)))
        rows[one.classifier] = {
            "accuracy": 100 * one.mean,
            "enroll_minus_this": float(gap.mean()),
            "error": error,
            "holds": bool(gap.mean() >= -error),
        }
    counts = {"episodes": len(found.way), "classes": found.classes, "items": found.items, "base": found.base}
    return counts | {"base_model": found.facts["base"], "classifiers": rows}


if __name__ == "__main__":
    main()
