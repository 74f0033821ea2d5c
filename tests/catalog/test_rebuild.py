"""The model of a catalog is a function of the items: the one of a refit, whatever came and went."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mixtura.catalog import statistics
from mixtura.catalog.rebuild import CatalogState, ComponentGroup, model_of
from mixtura.core.classes import FLOOR_SHARE
from mixtura.core.covariance import FAMILIES
from mixtura.core.mixture import Mixture
from mixtura.core.moments import LabeledItems, labeled

EXACT = [family for family in FAMILIES if family != "lowrank"]  # a rank is found step by step, not by sums


@pytest.fixture(scope="module")
def base_of(cloud, learn):
    """A model, the sums over its rows, and its rows, in float64."""

    def make(family, components=1):
        features = cloud(n=240, classes=4, dimension=5, seed=3)
        train = features.select(np.array([split != "test" for split in features.split]))
        model = learn(features, head__family=family, head__n_components=components, head__shrinkage=0.1)
        items = items_of(model, train)
        base = statistics.base_of(
            model, statistics.sums_of(model.mixture, items), statistics.floor_of(model, items, FLOOR_SHARE)
        )
        return base, items

    return make


def items_of(model, features):
    labels = torch.from_numpy(features.label_index(model.classes))
    return LabeledItems(
        model.project(features.embedding).double(), labels, torch.ones(len(labels), dtype=torch.float64)
    )


def pick(items, index):
    return LabeledItems(items.x[index], items.labels[index], items.weight[index])


def state_of(base, added, removed, gone=()):
    names = [name for c, name in enumerate(base.model.classes) if c not in gone]
    parts = [ComponentGroup(names.index(name), c) for c, name in enumerate(base.model.classes) if c not in gone]
    return CatalogState(tuple(names), tuple(parts), added, removed)


def refit(base, x, labels):
    """The closed form on some rows, at the floor, the units and the shrinkage of the model."""
    count = int(labels.max()) + 1
    (sums,) = labeled(type(base.model.mixture.covariance), x, labels, count)
    return Mixture.from_moments(sums, base.floor, base.prior, torch.arange(count), count)


def assert_same(got, wanted, rtol=1e-9):
    torch.testing.assert_close(got.mean, wanted.mean, rtol=rtol, atol=rtol)
    torch.testing.assert_close(got.log_weight, wanted.log_weight, rtol=rtol, atol=rtol)
    count, width = wanted.mean.shape
    torch.testing.assert_close(
        got.covariance.dense(count, width), wanted.covariance.dense(count, width), rtol=rtol, atol=rtol
    )


@pytest.fixture(scope="module")
def double():
    """Keep models in float64, so that the law is seen to 1e-9."""
    kept = Mixture.to
    Mixture.to = lambda self, target: self if target is torch.float32 else kept(self, target)
    yield
    Mixture.to = kept


@pytest.mark.parametrize("family", EXACT)
def test_a_catalog_without_items_is_the_refit_without_them(base_of, double, family):
    base, items = base_of(family)
    rng = np.random.default_rng(0)
    gone = torch.from_numpy(rng.permutation(len(items.x))[:25])
    kept = torch.ones(len(items.x), dtype=torch.bool)
    kept[gone] = False
    made = model_of(base, state_of(base, pick(items, slice(0, 0)), pick(items, gone)), lambda _: None, None)
    assert_same(made.mixture, refit(base, items.x[kept], items.labels[kept]))


@pytest.mark.parametrize("family", EXACT)
def test_a_catalog_with_further_items_is_the_refit_with_them(base_of, double, family):
    base, items = base_of(family)
    more = pick(items, slice(0, 40))
    more = replace(more, x=more.x + 0.3 * torch.randn(40, 5, generator=torch.Generator().manual_seed(1)).double())
    made = model_of(base, state_of(base, more, pick(items, slice(0, 0))), lambda _: None, None)
    wanted = refit(base, torch.cat([items.x, more.x]), torch.cat([items.labels, more.labels]))
    assert_same(made.mixture, wanted)


@pytest.mark.parametrize("family", EXACT)
def test_a_catalog_without_a_class_is_the_refit_without_it(base_of, double, family):
    base, items = base_of(family)
    own = items.labels == 1
    state = state_of(base, pick(items, slice(0, 0)), pick(items, own), gone={1})
    made = model_of(base, state, lambda _: None, None)
    labels = items.labels[~own]
    assert_same(made.mixture, refit(base, items.x[~own], labels - (labels > 1).long()))
    assert made.classes == ("c0", "c2", "c3")


def test_what_comes_and_goes_leaves_no_trace(base_of, double):
    """Adding and subtracting the same items, with several components a class as well, gives the same sums."""
    base, items = base_of("diagonal", components=2)
    some = pick(items, slice(10, 60))
    was = model_of(base, state_of(base, pick(items, slice(0, 1)), pick(items, slice(0, 1))), lambda _: None, None)
    now = model_of(base, state_of(base, some, some), lambda _: None, None)
    assert_same(now.mixture, was.mixture, rtol=1e-9)


def test_without_edits_the_model_is_the_one_that_was_fitted(base_of):
    base, items = base_of("tied")
    none = pick(items, slice(0, 0))
    made = model_of(base, state_of(base, none, none), lambda _: None, None)
    assert torch.equal(made.mixture.mean, base.model.mixture.mean)
    assert torch.equal(made.mixture.log_weight, base.model.mixture.log_weight)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_sums_survive_the_file(base_of, family):
    base, _ = base_of(family)
    back = statistics.from_bytes(statistics.to_bytes(base.sums), base.model.mixture)
    for got, wanted in zip(back.tensors(), base.sums.tensors(), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_newcomers_do_not_move_what_was_fitted(base_of, family):
    base, items = base_of(family)
    none = pick(items, slice(0, 0))
    state = state_of(base, none, none)
    new = ComponentGroup(4, None, items.x[:3] + 40.0)
    made = model_of(base, CatalogState((*state.names, "new"), (*state.parts, new), none, none), lambda _: None, None)
    torch.testing.assert_close(made.mixture.mean[:4], base.model.mixture.mean, rtol=1e-5, atol=1e-5)
    shares = made.mixture.log_weight.exp()
    torch.testing.assert_close(shares[:4], 0.8 * base.model.mixture.log_weight.exp(), rtol=1e-5, atol=1e-6)
    assert made.answers((items.x[:2] + 40.0).float().numpy()).predicted.tolist() == [4, 4]
