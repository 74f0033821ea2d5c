"""Strangers foretold and met: classes really kept out against the estimate from leaving classes out.

Each draw keeps a fifth of the classes out, fits a model to the others and notes its estimate; then the kept-out classes
come as strangers. With --compare, all scores are compared on the same kept-out classes, paired with the density; each
needs limits of its own, which takes most of the time.

    python benchmarks/strangers.py --data stores [--compare]

The folder holds feature stores: grocery-fine (all but its test part, which is of another kind) and cifar100.
"""

from dataclasses import replace

import numpy as np
import torch
from common import arguments, write

from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.fitting.fit import solve
from mixtura.fitting.selection import TrainingSamples, choose
from mixtura.fitting.strangers import with_score
from mixtura.identity import Block, blocks_of
from mixtura.metrics.detection import auroc
from mixtura.recipe import Recipe, resolve
from mixtura.records.strangers import StrangerEstimate
from mixtura.scores import DENSITY, SCORES

DRAWS = 10
SETS = {"grocery-fine": (81, None), "cifar100": (50, 60)}  # classes of a draw, and rows of a class
RATE = 0.05


def rows_of(features: Features, classes: int, a_class: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels 0, 1, ... of random classes; grocery's test part is left out."""
    label, rng = np.array(features.label), np.random.default_rng(seed)
    official = np.array([split != "test" for split in features.split])
    usable = official if official.sum() > 1000 and len(label) < 10_000 else np.ones(len(label), dtype=bool)
    names = sorted(rng.choice(sorted(set(label)), classes, replace=False))
    parts = [rng.permutation(np.flatnonzero(usable & (label == name)))[:a_class] for name in names]
    where = np.concatenate(parts)
    return features.embedding[where], np.searchsorted(names, label[where])


def samples(x: np.ndarray, label: np.ndarray, blocks: tuple[Block, ...]) -> TrainingSamples:
    """All rows to learn from, each a group of its own."""
    tensors = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.unique(label, return_inverse=True)[1])
    none = torch.zeros(len(x), dtype=torch.bool)
    return TrainingSamples(*tensors, torch.arange(len(x)), none, None, int(tensors[1].max()) + 1, blocks)


def draw(
    features: Features, shape: tuple[int, int | None], recipe: Recipe, seed: int, compare: bool
) -> dict[str, object]:
    """The estimate of a fit without a fifth of the classes, and what each score makes of them; shares in [0, 1]."""
    x, label = rows_of(features, *shape, seed)
    count = int(label.max()) + 1
    out = np.isin(label, np.random.default_rng(100 + seed).choice(count, count // 5, replace=False))
    known = samples(x[~out], label[~out], blocks_of(features.identity))
    fitted = solve(recipe, known)
    estimate = StrangerEstimate.of_facts(fitted.facts)
    assert estimate is not None
    found = {}
    choice = choose(recipe, known)
    for name in dict.fromkeys([DENSITY, estimate.score, *(SCORES if compare else ())]):
        one = replace(fitted, score=None, raw=None)
        one = one if name == DENSITY else with_score(one, known, choice, name, 0)
        found[name] = judged(one, known, torch.from_numpy(x[out]))
    truth = found[estimate.score][0]
    return {
        "estimate": estimate.noticed,
        "low": estimate.low,
        "high": estimate.high,
        "truth": truth,
        "inside": estimate.low <= truth <= estimate.high,
        "score": estimate.score,
        "noticed": {name: share for name, (share, _) in found.items()},
        "auroc": {name: area for name, (_, area) in found.items()},
    }


@torch.inference_mode()
def judged(fitted, known: TrainingSamples, strange: torch.Tensor) -> tuple[float, float]:
    """Share of the strangers that are noticed, and the AUROC against the out-of-fold genuine rows."""
    x, typicality = fitted.projection(strange), fitted.typicality
    joint, behind = fitted.mixture.class_log_prob(x), fitted.mixture.background().log_prob(x)
    log_prob = joint.logsumexp(1)
    raw = None if fitted.score is None else fitted.score(x, log_prob, behind)
    score = typicality.score(log_prob, behind, raw)
    noticed = (typicality(score, joint.argmax(1)) < RATE).double().mean()
    both = torch.cat([typicality.scores, score]).numpy()
    return float(noticed), auroc(both, np.arange(len(both)) < len(typicality.scores))


def summary(draws: list[dict]) -> dict[str, object]:
    """How often the truth lay inside, the half-widths, and each score's gain over the density."""
    gains = {}
    for name in SCORES if draws[0]["noticed"].keys() >= SCORES.keys() else ():
        pairs = {kind: [one[kind][name] - one[kind][DENSITY] for one in draws] for kind in ("noticed", "auroc")}
        gains[name] = {
            kind: {"mean": float(np.mean(gain)), "error": float(np.std(gain, ddof=1) / len(gain) ** 0.5)}
            for kind, gain in pairs.items()
        }
    return {
        "inside": sum(one["inside"] for one in draws),
        "draws": len(draws),
        "half_width": float(np.mean([(one["high"] - one["low"]) / 2 for one in draws])),
        "error": float(np.mean([one["estimate"] - one["truth"] for one in draws])),
        "density": {kind: float(np.mean([one[kind][DENSITY] for one in draws])) for kind in ("noticed", "auroc")},
        "gain_over_density": gains,
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], data=True)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--compare", action="store_true", help="all scores, not only the chosen one")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    given = parser.parse_args()
    recipe = resolve({"head.family": "tied"})
    for name in given.sets if given.data else []:
        features, draws = FeatureStore.open(given.data / name).read(), []
        for seed in range(given.draws):
            draws.append(draw(features, SETS[name], recipe, seed, given.compare))
            one = draws[-1]
            span = f"{one['estimate']:.3f} ({one['low']:.3f} to {one['high']:.3f}), truth {one['truth']:.3f}"
            print(f"{name:14s} {seed:2d}  {span}, {one['score']}", flush=True)
        found = summary(draws)
        print(found)
        write(f"strangers_{name}", found | {"each": draws})


if __name__ == "__main__":
    main()
