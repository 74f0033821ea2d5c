"""Transductive classifiers: laws, one episode at a time by a plain loop, and what the queries are good for."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from mixtura.core import few_shot
from mixtura.core.covariance import Prior, family_of
from mixtura.core.few_shot import Newcomers
from mixtura.core.mixture import Mixture
from mixtura.core.moments import labeled
from mixtura.core.novel import novel_components
from mixtura.core.transduction import STEPS, TransductiveNewcomers, soft_prototype

WAY, QUERIES, DIMENSION, BASES = 4, 15, 6, 10
DRAW = torch.Generator().manual_seed(0)


def episodes(count=5, shot=1, apart=1.0):
    """Support and queries of classes with unit variances, in float64."""
    center = apart * torch.randn(count, WAY, 1, DIMENSION, generator=DRAW, dtype=torch.float64)
    rows = center + torch.randn(count, WAY, shot + QUERIES, DIMENSION, generator=DRAW, dtype=torch.float64)
    return rows[:, :, :shot], rows[:, :, shot:].flatten(1, 2)


def newcomers(family):
    labels = torch.arange(BASES).repeat_interleave(20)
    x = torch.randn(BASES, DIMENSION, generator=DRAW, dtype=torch.float64)[labels]
    x = x + torch.randn(len(labels), DIMENSION, generator=DRAW, dtype=torch.float64)
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
    order = torch.randperm(query.shape[1], generator=DRAW)
    torch.testing.assert_close(classify(support, query[:, order]), scores[:, order], rtol=1e-8, atol=1e-8)
    alone = [classify(support[i : i + 1], query[i : i + 1]) for i in range(len(support))]
    torch.testing.assert_close(torch.cat(alone), scores, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("family", ["tied", "diagonal"])
def test_newcomers_are_moved_by_em(family):
    """By densities of the core, class by class, with covariances and weights held."""
    alone = newcomers(family)
    support, query = (part[0] for part in episodes(1, shot=2))
    start = novel_components(alone.mixture, alone.moments, list(support), alone.floor, alone.prior).mixture
    now = start
    for _ in range(STEPS):
        share = now.component_log_prob(query).softmax(1)
        sums = [(share[:, c, None] * query).sum(0) for c in range(WAY)]
        mean = [(2 * start.mean[c] + sums[c]) / (2 + share[:, c].sum()) for c in range(WAY)]
        now = replace(start, mean=torch.stack(mean))
    found = TransductiveNewcomers(alone)(support[None], query[None])[0]
    expected = now.component_log_prob(query).log_softmax(1)
    torch.testing.assert_close(found.log_softmax(1), expected, rtol=1e-6, atol=1e-6)


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
