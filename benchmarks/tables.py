"""Accuracy and log-loss of MixtureClassifier on scikit-learn's tables, beside scikit-learn's own classifiers.

Wine, breast cancer, iris and digits; five stratified folds in each of several shuffles (seeds 0, 1, ...). Nothing is
tuned on test rows: every choice is made within the training part. Figures are means over all test folds, the standard
error is that of these means, and differences are taken fold by fold. Quadratic discriminant analysis refuses collinear
features: breast cancer takes a tol of 1e-8, and digits, whose pixels are partly constant, standardized features and a
reg_param of 0.001.

    python benchmarks/tables.py [--shuffles 5]

Writes benchmarks/results/tables.json.
"""

import argparse
import time
import warnings

import numpy as np
from common import write
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mixtura import MixtureClassifier

TABLES = {"wine": load_wine, "breast cancer": load_breast_cancer, "iris": load_iris, "digits": load_digits}
OURS = {family: MixtureClassifier(family, random_state=0) for family in ("tied", "full", "auto")}
OURS["auto, projection auto"] = MixtureClassifier(projection="auto", random_state=0)
THEIRS = {
    "LDA": LinearDiscriminantAnalysis(),
    "QDA": QuadraticDiscriminantAnalysis(tol=1e-8),
    "GaussianNB": GaussianNB(),
    "logistic regression (standardized)": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
}
REGULARIZED = make_pipeline(StandardScaler(), QuadraticDiscriminantAnalysis(reg_param=1e-3))
PAIRS = {"tied": "LDA", "full": "QDA"}
CLOSE = 2.0  # points


def folds(y: np.ndarray, shuffles: int):
    """The rows to learn from and the rows to test with, shuffle by shuffle."""
    for seed in range(shuffles):
        yield from StratifiedKFold(5, shuffle=True, random_state=seed).split(np.zeros(len(y)), y)


def judged(model, x: np.ndarray, y: np.ndarray, shuffles: int) -> dict:
    """Accuracy (percent) and log-loss (nats) of each fold, what was chosen, and the seconds of a fit."""
    accuracy, loss, chosen, seconds = [], [], [], []
    for learn, test in folds(y, shuffles):
        began = time.process_time()
        fitted = clone(model).fit(x[learn], y[learn])
        seconds.append(time.process_time() - began)
        accuracy.append(100 * float((fitted.predict(x[test]) == y[test]).mean()))
        loss.append(float(log_loss(y[test], fitted.predict_proba(x[test]), labels=fitted.classes_)))
        if isinstance(model, MixtureClassifier):
            chosen.append(f"{fitted.plan_.family}, {fitted.plan_.feature_scale}")
    return {"accuracy": accuracy, "nll": loss, "chosen": chosen, "seconds": float(np.median(seconds))}


def summary(found: dict) -> dict:
    """Means with their standard errors."""
    record = {
        "accuracy": round(float(np.mean(found["accuracy"])), 2),
        "standard error": round(error(found["accuracy"]), 2),
        "nll": round(float(np.mean(found["nll"])), 4),
        "nll standard error": round(error(found["nll"]), 4),
        "seconds a fit": round(found["seconds"], 3),
    }
    names, counts = np.unique(found["chosen"], return_counts=True)
    return record | ({"chosen": dict(zip(names.tolist(), counts.tolist(), strict=True))} if len(names) else {})


def error(values: list[float]) -> float:
    return float(np.std(values, ddof=1) / len(values) ** 0.5)


def verdict(found: dict[str, dict]) -> dict:
    """Ours less theirs: the pairs in points, and ``auto`` against the best of theirs."""
    told = {}
    for ours, theirs in PAIRS.items():
        gap = float(np.mean(found[ours]["accuracy"]) - np.mean(found[theirs]["accuracy"]))
        told[f"{ours} less {theirs}"] = {"points": round(gap, 2), f"within {CLOSE:g} points": gap >= -CLOSE}
    for metric, sign in (("accuracy", 1), ("nll", -1)):
        best = max(THEIRS, key=lambda name: sign * np.mean(found[name][metric]))
        gaps = sign * (np.array(found["auto"][metric]) - np.array(found[best][metric]))
        own = error(found["auto"][metric])
        told[f"auto against the best, {metric}"] = {
            "best": best,
            "better by": round(float(gaps.mean()), 4),
            "standard error of auto": round(own, 4),
            "within a standard error": bool(gaps.mean() >= -own),
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shuffles", type=int, default=5)
    shuffles = parser.parse_args().shuffles
    tables = {}
    for name, load in TABLES.items():
        x, y = load(return_X_y=True)
        models = OURS | THEIRS | ({"QDA": REGULARIZED} if name == "digits" else {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scikit-learn, on collinear features
            found = {model: judged(models[model], x, y, shuffles) for model in models}
        tables[name] = {"rows": len(x), "features": x.shape[1]}
        tables[name] |= {model: summary(one) for model, one in found.items()} | {"verdict": verdict(found)}
        print(name, *tables[name].items(), sep="\n  ", flush=True)
    write("tables", {"folds": 5, "shuffles": list(range(shuffles)), "tables": tables})


if __name__ == "__main__":
    main()
