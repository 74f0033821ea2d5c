"""Shared by the benchmark scripts: results files, baselines of scikit-learn, models on features in memory."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import date
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from mixtura.features.records import Features, Rows, to_features
from mixtura.fitting import fit as fitting
from mixtura.model.model import Model
from mixtura.pipeline.training_set import Gathered
from mixtura.recipe import Recipe
from mixtura.sections import EncoderSection

RESULTS = Path(__file__).parent / "results"


def arguments(about: str, data: bool = False) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about)
    if data:
        parser.add_argument("--data", type=Path, help="folder of the .npz packs; what needs them is skipped without")
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"), help="folder for feature stores")
    return parser


def write(name: str, record: dict) -> None:
    """Keep what was measured, with where it was measured."""
    machine = {
        "date": date.today().isoformat(),
        "command": " ".join([Path(sys.argv[0]).name]),
        "python": platform.python_version(),
        "processor_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
    } | {package: metadata.version(package) for package in ("torch", "scikit-learn", "numpy")}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine} | record, indent=2) + "\n")


def in_memory(x: np.ndarray, label: list[str], split: list[str], identity: Mapping[str, str] | None = None) -> Features:
    """Features of unrelated items; without the identity of an encoder, features that none has made."""
    count = len(x)
    ids = [str(i) for i in range(count)]
    rows = Rows(
        np.ascontiguousarray(x, dtype=np.float32),
        ids,
        list(ids),
        list(label),
        [None] * count,
        [None] * count,
        list(split),
        np.ones(count),
        list(ids),
    )
    return to_features(rows, dict(identity or {"name": "memory"}))


def model_of(features: Features, recipe: Recipe) -> Model:
    """The model that mixtura fit would make of these features."""
    return fitting.learn(recipe, Gathered(features, EncoderSection(), ()))


def baselines(x: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Accuracy, in percent, of what people use on frozen features, each at scikit-learn's or the usual setting."""
    rivals = {
        "logistic regression (standardized, C = 1)": make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
        "5 nearest neighbors (cosine)": make_pipeline(Normalizer(), KNeighborsClassifier(5)),
        "LDA (lsqr, shrinkage 0.1)": LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
        "LDA (lsqr, shrinkage auto)": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    }
    return {name: 100 * float(rival.fit(x, y).score(test, truth)) for name, rival in rivals.items()}
