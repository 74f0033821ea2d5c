"""What tests of several folders look into."""

import sqlite3

import numpy as np
import pytest
import torch

from mixtura.catalog.database import CATALOG_FILE
from mixtura.catalog.journal import Journal
from mixtura.features.records import Rows, to_features
from mixtura.fitting import fit as fitting
from mixtura.pipeline import training_set
from mixtura.recipe import resolve
from mixtura.sections import EncoderSection

torch.set_num_threads(1)  # a forked child hangs in OpenMP where its parent has been in it with more threads


def whole(path):
    """Each edit of a catalog is all there or not at all, if each enrolled three items; the number of edits."""
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    edits = db.execute("SELECT number, kind, undone, changes FROM edit ORDER BY number").fetchall()
    assert [edit[0] for edit in edits] == list(range(1, len(edits) + 1))
    enrolled = sum(kind == "enroll" for _, kind, _, _ in edits)
    assert db.execute("SELECT count(*) FROM item WHERE base IS NULL AND split = 'train'").fetchone()[0] == 3 * enrolled
    loose = db.execute("SELECT count(*) FROM item WHERE part IS NULL").fetchone()[0]
    assert loose == 3 * sum(kind == "enroll" and undone for _, kind, undone, _ in edits)
    gone = db.execute("SELECT count(*) FROM product WHERE gone = 1").fetchone()[0]
    ended = sum(kind in ("merge", "remove_product") and not undone for _, kind, undone, _ in edits)
    assert gone == ended + sum(kind == "enroll" and undone for _, kind, undone, _ in edits)
    db.close()
    return len(edits)


@pytest.fixture
def assert_whole():
    """Look into a catalog after a kill."""
    return whole


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
    encoder = EncoderSection(name="tiny", size=32, taps="none")
    return lambda features, problems=(): training_set.Gathered(features, encoder, problems)


@pytest.fixture(scope="session")
def learn(gathered):
    """The model of some features; options are dotted keys of a recipe with ``__`` for the dot."""

    def run(features, **options):
        keys = {key.replace("__", "."): value for key, value in options.items()}
        return fitting.learn(resolve({"data.root": "nowhere"} | keys), gathered(features))

    return run


@pytest.fixture
def journal(tmp_path):
    """The journal of a catalog that holds nothing yet."""
    sqlite3.connect(tmp_path / CATALOG_FILE).close()
    (tmp_path / CATALOG_FILE).touch()
    opened = Journal.open(tmp_path)
    yield opened
    opened.close()
