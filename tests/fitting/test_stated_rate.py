"""The stated share of genuine items is turned away, no more and no less, in hundreds of dimensions."""

import math
from dataclasses import replace

import pytest
import torch

from mixtura.core import leave_one_out
from mixtura.core.classes import SCALE_STRENGTH, Plan
from mixtura.core.covariance import Prior
from mixtura.core.cross_fitting import Folds, content_folds
from mixtura.features.learning_curve import extrapolated
from mixtura.features.projected_folds import cross_fit_projection
from mixtura.features.projection import LDA, PCA
from mixtura.scores.typicality import Typicality

CLASSES, DIMENSION, DRAWS = 20, 320, 5
RATES = (0.01, 0.05, 0.1, 0.2)
LIMIT = 3.5  # standard errors
TIED, LOW_RANK, PAIRS = Plan("tied", prior=Prior(0.0, 0.1)), Plan("lowrank", rank=4), Plan("diagonal", 2)


def draw(seed, rows, test=100):
    """Exchangeable classes with heavy tails and a falling spectrum: rows to learn from and rows to judge."""
    g = torch.Generator().manual_seed(seed)
    spread = (torch.arange(DIMENSION) + 1.0).rsqrt()
    means = torch.randn(CLASSES, DIMENSION, generator=g) * spread
    labels = torch.arange(CLASSES).repeat_interleave(rows + test)
    normal = torch.randn(len(labels), DIMENSION, generator=g)
    tail = (torch.randn(len(labels), 8, generator=g).square().mean(1)).rsqrt()[:, None]
    x = means[labels] + normal * spread * tail
    learn = torch.arange(len(labels)) % (rows + test) < rows
    return (x[learn], labels[learn]), (x[~learn], labels[~learn])


def rejected(held, mixture, x):
    """Shares of new rows below each stated rate."""
    typicality = Typicality.fit(held.log_prob, held.background, held.predicted)
    joint = mixture.class_log_prob(x)
    score = typicality.score(joint.logsumexp(1), mixture.background().log_prob(x))
    value = typicality(score, joint.argmax(1))
    return torch.stack([(value < rate).double().mean() for rate in RATES])


def deviations(measured, held, tested):
    """Standard errors between the mean over draws and each stated rate; one draw has binomial error in both samples."""
    stated = torch.tensor(RATES, dtype=torch.float64)
    error = (stated * (1 - stated) * (1 / held + 1 / tested) / len(measured)).sqrt()
    return (torch.stack(measured).mean(0) - stated) / error


def measure(steps, plan, rows, n_folds, score, draws=DRAWS):
    found = []
    for seed in range(draws):
        (x, labels), (new, _) = draw(seed, rows)
        folds = Folds(x, labels, CLASSES, content_folds(x, labels, n_folds, 0), n_folds)
        projection, space = cross_fit_projection(steps, x, folds)
        found.append(rejected(score(steps, x, folds, space, plan), space.mixture(plan), projection(new)))
    return deviations(found, CLASSES * rows, CLASSES * 100)


def each_left_out(steps, x, folds, space, plan):
    return leave_one_out.calibration_scores(space, plan)


def by_fold(steps, x, folds, space, plan):
    return space.cross_val_predict(plan, background=True)


@pytest.mark.parametrize("plan", [TIED, Plan("diagonal", prior=Prior(2.0, 0.0))], ids=["tied", "diagonal"])
def test_leaving_each_row_out_keeps_the_stated_rate(plan):
    off = measure([], plan, 25, 5, each_left_out)
    assert bool((off.abs() < LIMIT).all()), off


@pytest.mark.parametrize("apart", [1.0, 5.0, 30.0])
def test_so_do_five_rows_of_each_of_four_classes(apart):
    """However far the classes are apart; a mean of four rows errs by more than the spread of the scores."""
    rates, found, held = torch.tensor([0.1, 0.2], dtype=torch.float64), [], 4 * 5
    for seed in range(10):
        g = torch.Generator().manual_seed(seed)
        means = torch.randn(4, DIMENSION, generator=g) * apart / DIMENSION**0.5
        labels = torch.arange(4).repeat_interleave(55)
        x, learn = means[labels] + torch.randn(len(labels), DIMENSION, generator=g), torch.arange(len(labels)) % 55 < 5
        folds = Folds(x[learn], labels[learn], 4, content_folds(x[learn], labels[learn], 5, 0), 5)
        found.append(rejected(each_left_out([], None, None, folds, TIED), folds.mixture(TIED), x[~learn])[2:])
    error = (rates * (1 - rates) * (1 / held + 1 / 200) / len(found)).sqrt()
    off = (torch.stack(found).mean(0) - rates) / error
    assert bool((off.abs() < LIMIT).all()), off


@pytest.mark.parametrize(("share", "limit"), [(0.0, 6.0), (0.01, LIMIT), (0.1, LIMIT)])
def test_so_do_features_that_are_constant_within_each_class(share, limit):
    """Then the ratio to the background is nearly the same for all rows, and terms of 1/n exceed its spread.

    Without shrinkage, it differs in the last digits only.
    """
    found, rows = [], 50
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        labels = torch.arange(6).repeat_interleave(2 * rows)
        x = 3 * torch.randn(6, 30, generator=g)[labels]
        x[:, :15] += torch.randn(len(labels), 15, generator=g)
        learn = torch.arange(len(labels)) % 2 == 0
        folds = Folds(x[learn], labels[learn], 6, content_folds(x[learn], labels[learn], 5, 0), 5)
        plan = Plan("tied", prior=Prior(0.0, share), floor=1e-6)
        found.append(rejected(each_left_out([], None, None, folds, plan), folds.mixture(plan), x[~learn]))
    off = deviations(found, 6 * rows, 6 * rows)
    assert bool((off.abs() < limit).all()), off


def rejected_of_seldom_features(strength, draws=10):
    """Shares of new rows where a third of the features hardly vary, except in one of 300 rows."""
    found = []
    for seed in range(draws):
        g = torch.Generator().manual_seed(seed)
        labels = torch.arange(10).repeat_interleave(60)
        x = 0.3 * torch.randn(10, DIMENSION, generator=g)[labels] + torch.randn(len(labels), DIMENSION, generator=g)
        fires = torch.rand(len(labels), DIMENSION // 3, generator=g) < 1 / 300
        x[:, : DIMENSION // 3] *= torch.where(fires, 1.0, 0.2)
        learn = torch.arange(len(labels)) % 60 < 10
        folds = Folds(x[learn], labels[learn], 10, content_folds(x[learn], labels[learn], 5, 0), 5)
        plan = replace(TIED, feature_scale="unit", prior=Prior(0.0, 0.9), scale_share=strength / len(folds.labels))
        found.append(rejected(each_left_out([], None, None, folds, plan), folds.mixture(plan), x[~learn]))
    return found


def test_so_do_features_that_seldom_fire():
    """In ten rows of ten classes such a feature has a tiny unit, in which a new row that fires is far away.

    The stated 1% is left out: it is the last one of 100 rows.
    """
    off = deviations(rejected_of_seldom_features(SCALE_STRENGTH), 100, 500)[1:]
    assert bool((off.abs() < LIMIT).all()), off


def test_in_units_of_these_rows_alone_they_do_not():
    off = deviations(rejected_of_seldom_features(0.0), 100, 500)
    assert off[1] > LIMIT, off


def test_five_folds_do_not():
    """The thresholds of a model of four fifths of the rows: too few are turned away."""
    off = measure([], TIED, 25, 5, by_fold)
    assert bool((off[1:] < -LIMIT).all()), off


@pytest.mark.parametrize(
    ("steps", "plan"),
    [([(PCA, {"explained_variance": 0.9})], TIED), ([(LDA, {})], TIED), ([], LOW_RANK), ([], PAIRS)],
    ids=["pca", "lda", "lowrank", "two components"],
)
def test_extrapolated_scores_keep_the_stated_rate(steps, plan):
    off = measure(steps, plan, 25, 20, extrapolated, draws=2 if plan in (LOW_RANK, PAIRS) else 3)
    assert bool((off.abs() < LIMIT).all()), off


def test_plain_folds_of_a_learned_projection_do_not():
    off = measure([(LDA, {})], TIED, 25, 5, by_fold, draws=3)
    assert bool((off[1:] < -LIMIT).all()), off


def test_extrapolation_meets_the_scores_of_leaving_one_out():
    """Where both exist, the mean density of held-out rows agrees to a third of what plain folds are off by."""
    (x, labels), _ = draw(0, 25)
    folds = Folds(x, labels, CLASSES, content_folds(x, labels, 10, 0), 10)
    exact = each_left_out([], x, folds, folds, TIED)
    plain, found = (score([], x, folds, folds, TIED) for score in (by_fold, extrapolated))
    for name in ("log_prob", "background"):
        truth = float(getattr(exact, name).mean())
        assert abs(float(getattr(found, name).mean()) - truth) < abs(float(getattr(plain, name).mean()) - truth) / 3
    assert math.isfinite(float(found.log_prob.sum()))
