"""How fast is linear discriminant analysis in one pass over the rows, beside two passes and scikit-learn's?

    python benchmarks/tied_fit.py [--threads 2] [--rounds 5]

C = 1,000 classes, D = 256, 65,536 and 262,144 rows of float32 (scikit-learn is also given float64). Measured are
``core.classes.fit``; the sums that ``mixtura fit`` takes for all folds at once and the mixture from them; and, for
comparison, both in two passes, one for the means and one for the scatter about them. Fits alternate in one process; a
ratio is the median over rounds, of a path over ``core.classes.fit``, or of the folds over the folds. Run it on an idle
machine: the load average before is kept with the results. Predictions are compared on 20,000 fresh rows. Writes
benchmarks/results/tied_fit.json.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from threadpoolctl import threadpool_limits

from mixtura.core import classes
from mixtura.core.classes import Plan
from mixtura.core.covariance import FAMILIES
from mixtura.core.cross_fitting import Folds, content_folds
from mixtura.core.mixture import Mixture
from mixtura.core.moments import class_means, hard

PLAN = Plan("tied", floor=0.0)
OURS, FOLDS = "mixtura", "folds of mixtura fit"
TWO_PASSES, FOLDS_IN_TWO = "two passes", "folds in two passes"
C, D = 1_000, 256
SIZES = (65_536, 262_144)
FRESH = 20_000
RESULTS = Path(__file__).parent / "results" / "tied_fit.json"


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of strongly overlapping classes with one covariance."""
    shared = np.random.default_rng(0)
    mean = 0.2 * shared.normal(size=(C, D))
    turn = np.eye(D) + shared.normal(size=(D, D)) / 32
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % C)
    return (mean[y] + rng.normal(size=(n, D)) @ turn).astype(np.float32), y


def clock(work):
    """Result, seconds on the wall and seconds of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, (time.perf_counter() - wall, time.process_time() - processor)


def two_passes(x: torch.Tensor, labels: torch.Tensor, masks: list[torch.Tensor | slice]) -> Mixture:
    """Means first, then the scatter about them, part by part."""
    means = class_means(x, labels, C)
    parts = [hard(FAMILIES["tied"], x[mask], labels[mask], means) for mask in masks]
    return classes.closed_form(PLAN, sum(parts[1:], parts[0]), torch.ones(D, dtype=torch.float64))


def compare(n: int, rounds: int) -> dict[str, object]:
    X, y = rows(n, 1)
    wide, x, labels = X.astype(np.float64), torch.from_numpy(X), torch.from_numpy(y)
    fold = content_folds(x, labels, 5, 0)
    fits = {
        OURS: lambda: classes.fit(PLAN, x, labels, C),
        FOLDS: lambda: Folds(x, labels, C, fold, 5).mixture(PLAN),
        TWO_PASSES: lambda: two_passes(x, labels, [slice(None)]),
        FOLDS_IN_TWO: lambda: two_passes(x, labels, [fold == 0, fold > 0]),
        "lsqr": lambda: LinearDiscriminantAnalysis(solver="lsqr").fit(X, y),
        "svd (the default)": lambda: LinearDiscriminantAnalysis(solver="svd").fit(X, y),
        "svd, float64": lambda: LinearDiscriminantAnalysis(solver="svd").fit(wide, y),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in fits}
    models = {}
    for _ in range(rounds):
        for name, fit in fits.items():
            models[name], seconds = clock(fit)
            taken[name].append(seconds)
    fresh, truth = rows(FRESH, 2)
    chosen = {name: predicted(model, fresh) for name, model in models.items()}
    report: dict[str, object] = {"rows": n, OURS: summary(taken[OURS])}
    for name in list(fits)[1:]:
        base = taken[FOLDS if name == FOLDS_IN_TWO else OURS]
        report[name] = summary(taken[name]) | {
            "ratio": ratio(taken[name], base, 0),
            "ratio of processor time": ratio(taken[name], base, 1),
            "equal predictions": float((chosen[name] == chosen[OURS]).mean()),
        }
    report["accuracy"] = {name: float((label == truth).mean()) for name, label in chosen.items()}
    return report


def predicted(model, fresh: np.ndarray) -> np.ndarray:
    if isinstance(model, Mixture):
        return model.class_log_prob(torch.from_numpy(fresh)).argmax(1).numpy()
    return model.predict(fresh)


def summary(taken: list[tuple[float, float]]) -> dict[str, float]:
    return {"seconds": round(statistics.median(wall for wall, _ in taken), 4)}


def ratio(theirs: list[tuple[float, float]], ours: list[tuple[float, float]], clock_number: int) -> float:
    pairs = zip(theirs, ours, strict=True)
    return round(statistics.median(a[clock_number] / b[clock_number] for a, b in pairs), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    torch.set_num_threads(given.threads)
    with threadpool_limits(given.threads):
        sizes = [compare(n, given.rounds) for n in SIZES]
    report = {
        "question": "one-pass tied fit, C = 1000, D = 256, beside two passes and scikit-learn's LDA",
        "threads": given.threads,
        "load average before": round(load, 2),
        "sizes": sizes,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
