"""Transductive classifiers: laws, one episode at a time by a plain loop, and what the queries are good for."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from mixtura.core import few_shot, transduction
from mixtura.core.between import BetweenClasses
from mixtura.core.covariance import Prior, family_of
from mixtura.core.few_shot import Newcomers
from mixtura.core.mixture import Mixture
from mixtura.core.moments import labeled
from mixtura.core.transduction import TransductiveNewcomers, soft_prototype

WAY, QUERIES, DIMENSION, BASES = 4, 15, 6, 10


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def episodes(count=5, shot=1, apart=1.0):
    """Support and queries of classes with unit variances, in float64."""
    rows = apart * normal(0, count, WAY, 1, DIMENSION) + normal(1, count, WAY, shot + QUERIES, DIMENSION)
    return rows[:, :, :shot], rows[:, :, shot:].flatten(1, 2)


def newcomers(family, apart=1.0):
    labels = torch.arange(BASES).repeat_interleave(20)
    x = apart * normal(2, BASES, DIMENSION)[labels] + normal(3, len(labels), DIMENSION)
    (sums,) = labeled(family_of(family), x, labels, BASES)
    prior = Prior(5.0, 0.1)
    return Newcomers(Mixture.from_moments(sums, 1e-3, prior, torch.arange(BASES), BASES), sums, 1e-3, prior)


PAIRS = {
    "prototype": lambda: (few_shot.prototype, soft_prototype, partial(soft_prototype, weight=0.0)),
    **{
        family: lambda family=family: (
            (alone := newcomers(family)),
            TransductiveNewcomers(alone),
            TransductiveNewcomers(alone, 0.0),
        )
        for family in ("tied", "diagonal", "full")
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_queries_of_no_weight_leave_the_inductive_scores(name):
    inductive, transductive, weightless = PAIRS[name]()
    support, query = episodes(shot=3)
    torch.testing.assert_close(weightless(support, query), inductive(support, query), rtol=1e-9, atol=1e-9)
    assert (transductive(support, query) - inductive(support, query)).abs().max() > 0.1


@pytest.mark.parametrize("name", PAIRS)
def test_the_order_of_queries_and_of_episodes_does_not_matter_and_a_batch_is_a_loop(name):
    _, classify, _ = PAIRS[name]()
    support, query = episodes(shot=2)
    scores = classify(support, query)
    order = torch.randperm(query.shape[1], generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(classify(support, query[:, order]), scores[:, order], rtol=1e-8, atol=1e-8)
    alone = [classify(support[i : i + 1], query[i : i + 1]) for i in range(len(support))]
    torch.testing.assert_close(torch.cat(alone), scores, rtol=1e-8, atol=1e-8)


def log_joint(alone, support, query, mean):
    """Log-density of shots, queries and means of one episode, up to a constant, by the model's own densities."""
    made = alone.made(support[None])
    between = BetweenClasses.of(alone.mixture, alone.moments.weight)
    now = replace(made, mean=mean)
    peak = now.component_log_prob(mean).diagonal()
    away = 2 * (peak - now.component_log_prob(between.center[None])[0])  # squared distances from the center
    along = ((mean - between.center) @ between.dual.mT).square()  # of which this is along the axes
    prior = -0.5 * ((along / between.variance).sum(1) + (away - along.sum(1)) / between.rest).sum()
    shots = sum(now.component_log_prob(support[c])[:, c].sum() for c in range(WAY))
    return prior + shots + now.component_log_prob(query).logsumexp(1).sum()


def heights(classify, alone, support, query, monkeypatch):
    """The log-density before the first step and after each of 10."""
    found = []
    for steps in range(11):
        monkeypatch.setattr(transduction, "STEPS", steps)
        mean = classify.moved(support[None], query[None]).mean
        found.append(float(log_joint(alone, support, query, mean)))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("family", ["tied", "diagonal", "full"])
def test_no_step_makes_the_means_of_newcomers_less_probable(family, monkeypatch):
    alone = newcomers(family, apart=0.5)
    support, query = (part[0] for part in episodes(1, shot=2))
    classify = TransductiveNewcomers(alone)
    rise = heights(classify, alone, support, query, monkeypatch).diff()
    assert rise[0] > 0.1 and (rise > -1e-9).all()
    first, found = alone.made(support[None]), alone.between
    wide = replace(found, variance=1e12 + found.variance, rest=1e12)  # as if the base classes said nothing to the steps
    monkeypatch.setitem(vars(alone), "between", wide)
    monkeypatch.setattr(Newcomers, "made", lambda *_: first)
    assert (heights(classify, alone, support, query, monkeypatch).diff() < -1e-3).any()


@pytest.mark.parametrize("family", ["tied", "diagonal", "full"])
def test_newcomers_come_to_rest_at_the_most_probable_means(family, monkeypatch):
    monkeypatch.setattr(transduction, "STEPS", 500)
    alone = newcomers(family)
    support, query = (part[0] for part in episodes(1, shot=2))
    mean = TransductiveNewcomers(alone).moved(support[None], query[None]).mean.requires_grad_()
    (slope,) = torch.autograd.grad(log_joint(alone, support, query, mean), mean)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["prototype", "tied"])
def test_queries_help_where_there_is_one_shot(name):
    inductive, transductive, _ = PAIRS[name]()
    support, query = episodes(200, apart=1.5)
    label = torch.arange(WAY).repeat_interleave(QUERIES)
    alone, together = (
        float((classify(support, query).argmax(2) == label).double().mean()) for classify in (inductive, transductive)
    )
    assert together > alone + 0.05


def test_the_scale_of_features_does_not_matter_to_prototypes():
    support, query = episodes()
    torch.testing.assert_close(soft_prototype(100 * support, 100 * query), 1e4 * soft_prototype(support, query))


def test_queries_that_are_all_at_their_prototypes_stay_there():
    support, _ = episodes()
    assert (soft_prototype(support, support.flatten(1, 2)).argmax(2) == torch.arange(WAY)).all()
