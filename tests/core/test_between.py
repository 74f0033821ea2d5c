"""The prior of class means, against dense matrices and by simulation."""

from dataclasses import replace

import pytest
import torch
from sklearn.isotonic import IsotonicRegression

from mixtura.core import init
from mixtura.core.between import (
    FOLD_SEED,
    FOLDS,
    MIN_MEANS,
    MIN_RATIO,
    BetweenClasses,
    falling,
    held_out_variances,
    ratio_of,
)

FLAT = 3  # directions in which means vary


def world(classes, dimension=12, per_class=60, apart=2.0, flat=None, seed=0):
    """Samples of classes whose means vary ``apart`` times the variance within, in all or in ``flat`` directions."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    root = torch.eye(dimension, dtype=torch.float64) + 0.3 * normal(dimension, dimension)
    mean = apart**0.5 * normal(classes, dimension)
    mean[:, dimension if flat is None else flat :] = 0
    labels = torch.arange(classes).repeat_interleave(per_class)
    return ((mean[labels] + normal(len(labels), dimension)) @ root.T), labels, mean @ root.T


def measured(family, x, labels):
    count = int(labels.max()) + 1
    mixture = init.from_labels(family, x, labels, count)
    return mixture, BetweenClasses.of(mixture, torch.bincount(labels, minlength=count).double())


def dense(between, covariance):
    """The between-class covariance as a matrix."""
    return between.rest * covariance + (between.axes.mT * (between.variance - between.rest)) @ between.axes


@pytest.mark.parametrize("classes", [5, 40])
def test_means_are_the_most_probable_ones(classes):
    """With fewer directions than dimensions, and with as many."""
    x, labels, _ = world(classes)
    mixture, between = measured("tied", x, labels)
    assert len(between.variance) == {5: 3, 40: 11}[classes]  # what the smallest part without a fold spans
    covariance = mixture.covariance.dense(1, 12)[0].double()
    torch.testing.assert_close(between.dual @ between.axes.mT, torch.eye(len(between.variance), dtype=torch.float64))
    spread, count = dense(between, covariance), torch.tensor([1.0, 4.5], dtype=torch.float64)
    raw = x[:2].double()
    for place, n in enumerate(count.tolist()):
        expected = between.center + spread @ torch.linalg.solve(spread + covariance / n, raw[place] - between.center)
        torch.testing.assert_close(between.shrunk(raw, count)[place], expected, rtol=1e-8, atol=1e-8)
        left = torch.linalg.inv(torch.linalg.inv(spread) + n * torch.linalg.inv(covariance))
        expected = torch.linalg.solve(covariance, left).trace()
        torch.testing.assert_close(between.uncertainty(count)[place], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("classes", "dimension"), [(200, 12), (40, 200)])
def test_the_variance_is_found_where_it_is(classes, dimension):
    x, labels, _ = world(classes, dimension, flat=FLAT)
    between = measured("tied", x, labels)[1]
    assert between.variance[:FLAT].mean() == pytest.approx(2.0, rel=0.25)  # of 40 means, the standard error is 13%
    assert between.variance[FLAT:].max() < 0.1 and MIN_RATIO <= between.rest < 0.01


def test_means_that_vary_everywhere_vary_no_more_along_the_directions_found():
    """As much as the sample variances along these directions pretend: five times as much."""
    x, labels, _ = world(40, 200)
    between = measured("tied", x, labels)[1]
    assert between.rest == pytest.approx(2.0, rel=0.15)
    assert between.variance.mean() == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize(("classes", "dimension"), [(MIN_MEANS, 12), (23, 60), (40, 12)])
def test_held_out_variances_are_those_of_a_loop(classes, dimension):
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(classes, dimension, generator=generator, dtype=torch.float64) * torch.linspace(3, 0.5, dimension)
    count = torch.randint(2, 30, (classes,), generator=generator).double()
    variance, rest = held_out_variances(mean @ mean.T, count, dimension)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(FOLD_SEED)).tolist()
    along, across = [], []
    for place in range(min(FOLDS, classes)):
        held = order[place::FOLDS]
        kept = mean[[c for c in range(classes) if c not in held]]
        axes = torch.linalg.svd(kept - kept.mean(0), full_matrices=False).Vh[: len(variance)]
        for c in held:
            away = (mean[c] - kept.mean(0)) * (len(kept) / (len(kept) + 1)) ** 0.5
            along.append((axes @ away).square() - 1 / count[c])
            left = (away - axes.T @ (axes @ away)).square().sum() / (dimension - len(axes))
            across.append(left - 1 / count[c])
    assert rest == pytest.approx(float(torch.stack(across).mean()), rel=1e-8)
    expected = IsotonicRegression(increasing=False).fit_transform(range(len(variance)), torch.stack(along).mean(0))
    torch.testing.assert_close(variance, torch.from_numpy(expected).clamp_min(rest), rtol=1e-8, atol=1e-8)


def test_falling_values_are_those_of_isotonic_regression():
    generator = torch.Generator().manual_seed(0)
    for size in (1, 2, 7, 100):
        values = torch.randn(size, generator=generator, dtype=torch.float64)
        expected = IsotonicRegression(increasing=False).fit_transform(range(size), values)
        torch.testing.assert_close(falling(values), torch.from_numpy(expected))


def test_one_sample_of_a_new_class_is_better_placed_than_by_one_variance_for_all_directions():
    x, labels, mean = world(200, 60, flat=FLAT)
    old = labels < 100
    mixture, between = measured("tied", x[old], labels[old])
    shots = x[~old].reshape(100, 60, -1)[:, 0].double()
    count = torch.ones(100, dtype=torch.float64)
    alike = replace(
        between,
        axes=between.axes[:0],
        dual=between.dual[:0],
        variance=between.variance[:0],
        rest=ratio_of(mixture, torch.full((100,), 60.0)),
    )
    near, far = ((one.shrunk(shots, count) - mean[100:]).square().sum(1).mean() for one in (between, alike))
    assert near < 0.6 * far


@pytest.mark.parametrize("family", ["spherical", "diagonal", "full", "lowrank"])
def test_covariances_of_their_own_have_one_variance_for_all_directions(family):
    x, labels, _ = world(20, per_class=100)
    mixture, between = measured(family, x, labels)
    sizes = torch.full((20,), 100.0, dtype=torch.float64)
    assert len(between.variance) == 0 and between.rest == ratio_of(mixture, sizes)
    count = torch.tensor([2.0], dtype=torch.float64)
    expected = between.center + between.rest / (between.rest + 0.5) * (x[:1] - between.center)
    torch.testing.assert_close(between.shrunk(x[:1].double(), count), expected)


@pytest.mark.parametrize("classes", [2, MIN_MEANS - 1])
def test_few_classes_have_no_directions(classes):
    between = measured("tied", *world(classes)[:2])[1]
    assert len(between.variance) == 0 and between.rest >= MIN_RATIO
