"""The prior of class means, against dense matrices and by simulation."""

from dataclasses import replace

import pytest
import torch
from sklearn.isotonic import IsotonicRegression

from mixtura.core import init
from mixtura.core.between import (
    CLASS_FOLDS,
    FOLD_SEED,
    MIN_CLASSES,
    MIN_RATIO,
    BetweenClasses,
    not_rising,
    ratio_of,
    variances_of_others,
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
    raw, rest = x[:2].double(), torch.full((2,), between.rest, dtype=torch.float64)
    for place, n in enumerate(count.tolist()):
        expected = between.center + spread @ torch.linalg.solve(spread + covariance / n, raw[place] - between.center)
        torch.testing.assert_close(between.shrunk(raw, count, rest)[place], expected, rtol=1e-8, atol=1e-8)
        left = torch.linalg.inv(torch.linalg.inv(spread) + n * torch.linalg.inv(covariance))
        expected = torch.linalg.solve(covariance, left).trace()
        torch.testing.assert_close(between.uncertainty(count, rest)[place], expected, rtol=1e-7, atol=1e-7)


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


@pytest.mark.parametrize(("classes", "dimension"), [(MIN_CLASSES, 12), (23, 60), (40, 12)])
def test_variances_of_others_are_those_of_a_loop(classes, dimension):
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(classes, dimension, generator=generator, dtype=torch.float64) * torch.linspace(3, 0.5, dimension)
    count = torch.randint(2, 30, (classes,), generator=generator).double()
    variance, rest = variances_of_others(mean @ mean.T, count, torch.arange(classes), dimension)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(FOLD_SEED)).tolist()
    along, across = [], []
    for place in range(min(CLASS_FOLDS, classes)):
        held = order[place::CLASS_FOLDS]
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


def test_values_that_do_not_rise_are_those_of_isotonic_regression():
    generator = torch.Generator().manual_seed(0)
    for size in (1, 2, 7, 100):
        values = torch.randn(size, generator=generator, dtype=torch.float64)
        expected = IsotonicRegression(increasing=False).fit_transform(range(size), values)
        torch.testing.assert_close(not_rising(values), torch.from_numpy(expected))


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
    near, far = (
        (one.shrunk(shots, count, one.rest_of(shots, count)) - mean[100:]).square().sum(1).mean()
        for one in (between, alike)
    )
    assert near < 0.6 * far


@pytest.mark.parametrize("family", ["spherical", "diagonal", "full", "lowrank"])
def test_covariances_of_their_own_have_one_variance_for_all_directions(family):
    x, labels, _ = world(20, per_class=100)
    mixture, between = measured(family, x, labels)
    sizes = torch.full((20,), 100.0, dtype=torch.float64)
    assert len(between.variance) == 0 and between.rest == ratio_of(mixture, sizes)
    count = torch.tensor([2.0], dtype=torch.float64)
    expected = between.center + between.rest / (between.rest + 0.5) * (x[:1] - between.center)
    torch.testing.assert_close(between.shrunk(x[:1].double(), count, between.rest_of(x[:1].double(), count)), expected)


@pytest.mark.parametrize("classes", [2, MIN_CLASSES - 1])
def test_few_classes_have_no_directions(classes):
    between = measured("tied", *world(classes)[:2])[1]
    assert len(between.variance) == 0 and between.rest >= MIN_RATIO


def test_one_feature_has_one_direction():
    x, labels, _ = world(20, dimension=1)
    between = measured("tied", x, labels)[1]
    assert len(between.variance) == 0 and between.rest == pytest.approx(2.0, rel=0.7)  # 19 degrees of freedom


@pytest.mark.parametrize("family", ["spherical", "diagonal", "tied"])
def test_the_ratio_is_that_of_the_variances(family):
    x, labels, _ = world(200, 6, per_class=40)
    mixture, _ = measured(family, x, labels)
    ratio = ratio_of(mixture, torch.full((200,), 40.0, dtype=torch.float64))
    low, high = (1.8, 2.2) if family == "tied" else (1.0, 4.0)  # others see the correlation as spread
    assert low < ratio < high


def test_components_of_a_class_are_left_out_together():
    """Three components lie close to each other in every class, so of each the others know the direction."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(20, 1, 200, generator=generator) * 2**0.5
    labels = torch.arange(60).repeat_interleave(60)
    at = (mean + 0.3 * torch.randn(20, 3, 200, generator=generator)).reshape(60, 200)
    x = at[labels] + torch.randn(3600, 200, generator=generator)
    mixture = replace(init.from_labels("tied", x, labels, 60), component_class=torch.arange(60) // 3, n_classes=20)
    weight = torch.full((60,), 60.0, dtype=torch.float64)
    between = BetweenClasses.of(mixture, weight)
    assert between.variance.mean() == pytest.approx(2.1, rel=0.2) and between.rest == pytest.approx(2.1, rel=0.2)


def test_a_component_without_samples_counts_for_nothing():
    x, labels, _ = world(20)
    mixture = measured("tied", x, labels)[0]
    far = replace(mixture, mean=torch.cat([mixture.mean[:-1], mixture.mean[-1:] + 1000]))
    weight = torch.full((20,), 60.0, dtype=torch.float64)
    weight[-1] = 0
    with_far, without = (
        BetweenClasses.of(m, w) for m, w in ((far, weight), (mixture.select(torch.arange(19)), weight[:-1]))
    )
    for name in ("center", "variance", "rest"):
        torch.testing.assert_close(getattr(with_far, name), getattr(without, name))


def test_a_class_of_another_kind_keeps_its_mean():
    """Known means vary in three directions; of new ones, some do, and some lie far off in all directions."""
    x, labels, mean = world(60, 300, flat=FLAT, per_class=40)
    old = labels < 40
    between = measured("tied", x[old], labels[old])[1]
    count = torch.ones(20, dtype=torch.float64)
    shots = x[~old].reshape(20, 40, -1)[:, 0].double()
    assert between.rest_of(shots, count).max() == pytest.approx(between.rest)
    far = shots + 3 * (x[old][:1] - mean[:1])  # three more deviations of one sample within its class
    rest = between.rest_of(far, count)
    assert rest.min() > 3
    kept = (between.shrunk(far, count, rest) - between.center).norm(dim=1) / (far - between.center).norm(dim=1)
    assert kept.min() > 0.75
