"""Features with a known truth, and models made of them; no photo is read."""

import numpy as np
import pytest

from mixtura.features.records import Rows, to_features
from mixtura.recipe import resolve
from mixtura.sections import EncoderSection
from mixtura.tasks import fit, gather

IDENTITY = {"name": "tiny", "size": "32 px", "weights": "w"}


@pytest.fixture(scope="session")
def features():
    """Rows as features; every fifth is for testing unless ``split`` says otherwise."""

    def make(x, labels, split=None, **columns):
        n = len(labels)
        split = ["test" if i % 5 == 4 else "train" for i in range(n)] if split is None else split
        known = {"superlabel": [None] * n, "group": [None] * n, "weight": np.ones(n)}
        known["sha256"] = [f"{i:064x}" for i in range(n)]
        ids = [f"i{i}" for i in range(n)]
        rows = Rows(
            embedding=np.asarray(x, dtype=np.float32), id=ids, source=ids, label=list(labels), split=split,
            **(known | columns),
        )  # fmt: skip
        return to_features(rows, IDENTITY)

    return make


@pytest.fixture(scope="session")
def cloud(features):
    """``n`` rows of round Gaussians about random means; classes ``c0``, ``c1``, ... in turn."""

    def make(n=300, classes=4, dimension=6, separation=4.0, seed=0, **more):
        rng = np.random.default_rng(seed)
        mean = separation * rng.standard_normal((classes, dimension))
        label = np.arange(n) % classes
        x = mean[label] + rng.standard_normal((n, dimension))
        return features(x, [f"c{c}" for c in label], **more)

    return make


@pytest.fixture(scope="session")
def gathered():
    """What ``gather`` would give for some features."""
    return lambda features, problems=(): gather.Gathered(features, EncoderSection(name="tiny"), problems)


@pytest.fixture(scope="session")
def learn(gathered):
    """The model of some features; options are dotted keys of a recipe with ``__`` for the dot."""

    def run(features, **options):
        keys = {key.replace("__", "."): value for key, value in options.items()}
        return fit.learn(resolve({"data.root": "nowhere"} | keys), gathered(features))

    return run
