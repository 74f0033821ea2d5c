"""How accurate and how honest is every head, beside what people use on frozen features, on the same rows?

Each set is a feature store; all heads and rivals see the same three draws (or the official folds), choose what they
leave open (explained variance, C, shrinkage, k, temperature) on the same validation rows, and are tested once.
"""

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from common import write
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from mixtura.core import temperature
from mixtura.features.store import FeatureStore
from mixtura.metrics.calibration import ece, gaps
from mixtura.metrics.replicates import replicates
from mixtura.pipeline import training_set
from mixtura.recipe import Recipe, resolve
from mixtura.records.sweep import DONE, Run
from mixtura.sweeps import grid
from mixtura.sweeps.jobs import TEST, TRAIN, VAL

WIDE = ["spherical", "diagonal", "lowrank", "tied", "vmf", "sdgm-d", "prototype", "linear", "random_projection"]
NARROW = ["full", "sdgm-f"]
"""Heads of a size that grows with the square of the dimension: as much variance as leaves few axes."""


def part(heads: list[str], explained: list[float], solvers: list[str], l2: float = 0.0, **sweep: object) -> dict:
    """One part of a grid, as settings of a recipe."""
    given = {"heads": heads, "explained_variance": explained, "solvers": solvers} | sweep
    return {f"sweep.{name}": value for name, value in given.items()} | {"fit.l2": l2}


PENALTIES, STRENGTHS = (60, 180, 500), (1e-3, 3e-3, 1e-2)
"""What gradient heads (as l2) and logistic regression (as C, which is 1 / l2) choose between on sets of many rows."""

FEW_PENALTIES, FEW_STRENGTHS = (3, 30, 300), (3e-4, 3e-3, 3e-2, 3e-1)
"""The same on sets of few rows."""

SMALL = [
    part([h for h in WIDE if h != "lowrank"], [0.95, 1.0], ["closed", "gradient"]),
    part(NARROW, [0.5, 0.6], ["closed", "gradient"]),
    part(["lowrank"], [0.8], ["closed", "gradient"]),
    part(["diagonal"], [0.8], ["em", "gradient"], n_components=[2]),
    *(part(["spherical", "linear"], [1.0], ["gradient"], l2, whiten_power=0.35) for l2 in FEW_PENALTIES),
]

LARGE = [
    part(["tied"], [1.0], ["closed"]),
    *(part(["spherical", "diagonal", "linear"], [1.0], ["gradient"], l2, whiten_power=0.35) for l2 in PENALTIES),
    part(["spherical"], [1.0], ["gradient"], PENALTIES[1], whiten_power=0.35, n_components=[3]),
    part(["prototype", "vmf", "sdgm-d"], [0.8], ["gradient"]),
    part(NARROW, [0.5], ["closed"]),
    part(["lowrank"], [0.5], ["closed"]),
    part(["random_projection"], [1.0], ["closed"]),
]
"""The grids of sets below and above ``MANY`` rows; the latter see the square roots of the features, and so may their
rivals, which also try the features as they are."""

MANY = 10_000


def grids(name: str, store: Path, given: argparse.Namespace, folds: bool) -> list[Recipe]:
    count = len(FeatureStore.open(store).facts())
    common = {"data.kind": "features", "data.root": store, "fit.epochs": given.epochs, "sweep.folds": folds}
    common |= {"fit.batch_size": 32 if folds else 256, "sweep.jobs": 1, "sweep.n_seeds": given.seeds}
    common |= {"projection": [{"name": "power"}]} if count > MANY else {}
    return [
        resolve(common | own | {"output": given.work / f"{name}-{place}"})
        for place, own in enumerate(LARGE if count > MANY else SMALL)
    ]


def kept_rivals(path: Path, recipe: Recipe) -> list[Run]:
    """The rivals' runs, from an earlier time if they are there: logistic regression takes longer than all heads."""
    if not path.exists():
        path.write_text(json.dumps([asdict(run) for run in rivals(recipe)]))
    return [Run(**plain) for plain in json.loads(path.read_text())]


def rivals(recipe: Recipe) -> list[Run]:
    """Logistic regression, LDA and nearest neighbors on the draws of a sweep.

    What they leave open is settled by the validation rows of the first draw (refitting logistic regression for every
    value on every draw would take hours), the temperature by those of each draw.
    """
    features = training_set.gather(recipe).features
    draws = grid.split_assignments(features, recipe)
    labels = features.label_index(features.classes)
    settled: dict = {}
    spaces = {"as they are": features.embedding}
    if recipe.projection:
        spaces["square roots"] = np.sqrt(features.embedding.clip(0))
    runs = [
        run
        for draw in draws
        for name, x in spaces.items()
        for run in _rivals_of(x, labels, draw, settled.setdefault(name, {}), name)
    ]
    chosen: dict = {}  # by the validation rows of all draws
    for run in runs:
        space = run.note.partition(":")[0]
        chosen.setdefault(run.head, {}).setdefault(space, []).append(run)
    return [
        run
        for by_space in chosen.values()
        for run in max(by_space.values(), key=lambda own: np.mean([one.val_accuracy for one in own]))
    ]


def _rivals_of(x: np.ndarray, y: np.ndarray, draw, settled: dict, space: str):
    role = draw.role
    scale = StandardScaler().fit(x[role == TRAIN])
    parts = {r: (scale.transform(x[role == r]).astype(np.float32), y[role == r]) for r in (TRAIN, VAL, TEST)}
    (train, train_y), (val, val_y), (test, test_y) = parts[TRAIN], parts[VAL], parts[TEST]
    values = STRENGTHS if len(train) > MANY else FEW_STRENGTHS
    families = {
        "logistic regression": [LogisticRegression(C=c, max_iter=100, tol=1e-3) for c in values],
        "LDA": [LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s) for s in ("auto", 0.1)],
        "nearest neighbors": [KNeighborsClassifier(k, metric="cosine", weights="distance") for k in (5, 20)],
    }
    for name, models in families.items():
        tried = []
        for model in settled.get(name, models):
            log_p = np.log(model.fit(train, train_y).predict_proba(val).clip(1e-12))
            joint, truth = torch.from_numpy(log_p).double(), torch.from_numpy(val_y)
            degrees = temperature.best(joint, truth)
            tried.append(((log_p.argmax(1) == val_y).mean(), -temperature.nll(joint, truth, degrees), degrees, model))
        accuracy, loss, degrees, model = max(tried, key=lambda one: one[:2])
        settled[name] = [model]
        joint = torch.from_numpy(np.log(model.predict_proba(test).clip(1e-12))).double()
        top = (joint / degrees).softmax(1).max(1)
        right = top.indices.numpy() == test_y
        yield Run(
            name,
            "scikit-learn",
            "",
            1.0,
            1,
            draw.seed,
            draw.fold,
            DONE,
            x.shape[1],
            float(right.mean()),
            temperature.nll(joint, torch.from_numpy(test_y), degrees),
            ece=ece(top.values.numpy(), right),
            val_accuracy=float(accuracy),
            val_nll=-float(loss),
            temperature=degrees,
            tested=len(right),
            gaps=tuple(gaps(top.values.numpy(), right).tolist()),
            note=f"{space}: {model}",
        )


def best(parts: list[tuple[str, list[Run]]]) -> list[dict]:
    """Each head at the cell that validation rows prefer, with mean and standard error over the draws.

    ``parts`` are the runs of each part of the grid, beside words for its settings.
    """
    cells: dict = {}
    for words, runs in parts:
        for run in runs:
            if run.status == DONE:
                cells.setdefault((run.head, run.cell, words), []).append(run)
    chosen: dict = {}
    for (head, _, words), own in cells.items():
        rank = (np.mean([r.val_accuracy for r in own]), -np.mean([r.val_nll for r in own]))
        if head not in chosen or rank > chosen[head][0]:
            chosen[head] = (rank, own, words)
    return [_row(own) | {"settings": words} for _, own, words in chosen.values()]


def settings(recipe: Recipe) -> str:
    """What a part of the grid sets beyond head, solver, explained variance and components."""
    return f"whiten {recipe.sweep.whiten_power:g}, l2 {recipe.fit.l2:g}" if recipe.fit.l2 else ""


def _row(own: list[Run]) -> dict:
    first = own[0]
    row = asdict(first.cell) | {"runs": len(own)}
    for name in ("accuracy", "nll", "ece"):
        values = np.array(replicates(own, name))
        row[name] = float(values.mean())
        row[f"{name}_se"] = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    row |= {name: float(np.mean([getattr(run, name) for run in own])) for name in ("parameters", "sparsity", "seconds")}
    return {key: (None if isinstance(value, float) and math.isnan(value) else value) for key, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="+", help="NAME=FOLDER of a feature store; NAME:folds=FOLDER for folds")
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks/heads"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    for entry in given.stores:
        name, _, store = entry.partition("=")
        name, folds = name.removesuffix(":folds"), name.endswith(":folds")
        recipes = grids(name, Path(store), given, folds)
        made = [grid.run(recipe) for recipe in recipes]
        parts = [(settings(recipe), list(one.runs)) for recipe, one in zip(recipes, made, strict=True)]
        runs = [run for _, own in parts for run in own]
        beside = kept_rivals(given.work / f"{name}-rivals.json", recipes[0])
        failed = sorted(
            {f"{r.head} {r.explained_variance:g} {r.n_components}: {r.note}" for r in runs if r.status != DONE}
        )
        record = {
            "facts": made[0].facts | {"data": name},
            "heads": best(parts),
            "rivals": best([("", beside)]),
            "failed": failed,
        }
        for row in [*record["heads"], *record["rivals"]]:
            print(name, json.dumps(row), flush=True)
        write(f"heads_{name}", record)
        (given.work / f"{name}.json").write_text(json.dumps([asdict(run) for run in [*runs, *beside]]))


if __name__ == "__main__":
    main()
