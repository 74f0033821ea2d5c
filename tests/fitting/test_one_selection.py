"""The command and the estimator are one selection: the same rows, the same seed, the same choice."""

import numpy as np
import pytest

from mixtura.features.imports import save
from mixtura.features.store import FeatureStore
from mixtura.model.bundle import from_pretrained
from mixtura.recipe import resolve
from mixtura.sklearn import MixtureClassifier
from mixtura.tasks import fit


def table(rng):
    """Three classes in features whose units differ by a factor of ten thousand.

    With half of the rows, two families are equally good, and rounding decides between them.
    """
    y = np.arange(600) % 3
    x = rng.normal(size=(3, 6))[y] + rng.normal(size=(600, 6)) @ (np.eye(6) + 0.2 * rng.normal(size=(6, 6)))
    return x * np.logspace(-2, 2, 6), y


def deep(rng):
    """Few rows in many dimensions, behind a rectifier."""
    y = np.arange(240) % 8
    return np.maximum(0, 0.4 * rng.normal(size=(8, 150))[y] + rng.normal(size=(240, 150))), y


def spreads(rng):
    """Classes with spreads of their own, one of them in two heaps."""
    y = np.arange(600) % 3
    x = np.einsum("nd,nde->ne", rng.normal(size=(600, 5)), rng.normal(size=(3, 5, 5))[y])
    x[:300][y[:300] == 1] += 12
    return x, y


@pytest.mark.parametrize("components", [1, "auto"])
@pytest.mark.parametrize("make", [table, deep, spreads])
def test_command_and_estimator_choose_the_same(features, tmp_path, make, components):
    x, y = make(np.random.default_rng(0))
    rows = features(x, [f"c{c}" for c in y])
    save(rows, tmp_path / "store")
    keys = {
        "data.kind": "features",
        "data.root": str(tmp_path / "store"),
        "output": str(tmp_path / "model"),
        "projection": ["identity"],
    }
    fit.run(resolve(keys | {"head.n_components": components, "seed": 5}))
    model = from_pretrained(tmp_path / "model")
    stored = FeatureStore.open(tmp_path / "store").read()
    learned = stored.select(np.array([split != "test" for split in stored.split]))
    ours = MixtureClassifier(n_components=components, random_state=5).fit(learned.embedding, learned.label)
    plan, facts = ours.plan_, model.facts
    assert (plan.family, plan.feature_scale) == (facts["family"], facts["feature_scale"])
    assert (plan.prior.identity, plan.prior.strength) == (facts["shrinkage"], facts["prior_strength"])
    assert (plan.components if plan.components == 1 else list(plan.components)) == facts["n_components"]
    assert 1 / 1.5 < ours.temperature_ / model.temperature < 1.5  # the command holds out smaller folds for it
    test = stored.select_split("test").embedding
    np.testing.assert_allclose(ours.score_samples(test), model.mixture.log_prob(model.project(test)), rtol=2e-3)


def test_the_stores_ask_for_different_things(features):
    chosen = [
        MixtureClassifier(random_state=5).fit(*make(np.random.default_rng(0))).plan_ for make in (table, deep, spreads)
    ]
    assert chosen[0].feature_scale == "unit"
    assert [plan.family for plan in chosen] == ["tied", "tied", "full"]
    assert len({plan.prior.identity for plan in chosen}) > 1
