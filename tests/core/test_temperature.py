import math

import pytest
import torch
from scipy import optimize

from mixtura.core import temperature


def rows(n, true, seed=0, n_classes=5):
    """Scores whose labels were drawn at temperature ``true``."""
    generator = torch.Generator().manual_seed(seed)
    joint = 4 * torch.randn(n, n_classes, generator=generator, dtype=torch.float64) - 50
    return joint, torch.multinomial((joint / true).softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5, 40.0])
def test_a_known_temperature_comes_back(true):
    assert temperature.best(*rows(40_000, true)) == pytest.approx(true, rel=0.05)


def test_no_temperature_on_a_fine_grid_is_better():
    joint, labels = rows(300, 3.0)
    found = temperature.best(joint, labels)
    grid = torch.logspace(-1.5, 4, 3000, base=torch.e, dtype=torch.float64)
    losses = torch.tensor([temperature.smoothed_nll(joint, labels, float(t)) for t in grid], dtype=torch.float64)
    assert temperature.smoothed_nll(joint, labels, found) <= float(losses.min()) + 1e-12
    assert found == pytest.approx(float(grid[losses.argmin()]), rel=0.005)


def test_the_loss_is_torchs():
    joint, labels = rows(50, 2.0)
    expected = torch.nn.functional.cross_entropy(joint / 1.7, labels)
    assert temperature.nll(joint, labels, 1.7) == pytest.approx(float(expected), abs=1e-12)


def test_kept_where_it_helps_and_one_where_it_does_not():
    joint, labels = rows(4000, 3.0)
    assert temperature.fit(joint, labels) == temperature.best(joint, labels)
    honest = [temperature.fit(*rows(200, 1.0, seed)) for seed in range(20)]
    assert sum(t == 1.0 for t in honest) >= 8  # chance alone promises a gain in fewer than half the draws


def test_few_and_perfect_rows():
    joint, labels = rows(3, 1.0)
    assert temperature.fit(joint, labels) == 1.0
    sure = 10 * torch.eye(5, dtype=torch.float64).repeat(4, 1)
    assert 0.1 < temperature.best(sure, torch.arange(5).repeat(4)) < 10  # one doubt keeps it off the edge
    absent = torch.cat([sure, torch.full((20, 1), -torch.inf, dtype=torch.float64)], 1)
    assert temperature.nll(absent, torch.arange(5).repeat(4)) < 1e-3


def test_a_class_or_a_row_far_from_all_others_has_no_say():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    joint = torch.randn(90, 3, generator=generator, dtype=torch.float64) + 3 * torch.nn.functional.one_hot(labels, 3)
    near = temperature.best(joint, labels)
    far_class = torch.cat([joint, torch.full((90, 1), -1000.0, dtype=torch.float64)], 1)
    assert temperature.best(far_class, labels) == pytest.approx(near, rel=1e-6)
    far_row = torch.cat([joint, torch.tensor([[1000.0, 0.0, 0.0]], dtype=torch.float64)])
    assert temperature.best(far_row, torch.cat([labels, torch.tensor([0])])) == pytest.approx(near, rel=0.05)


def test_the_doubt_fades_with_rows():
    joint, labels = rows(20_000, 2.0)
    assert temperature.smoothed_nll(joint, labels, 2.0) == pytest.approx(temperature.nll(joint, labels, 2.0), abs=1e-3)


def test_a_weight_is_a_number_of_rows():
    joint, labels = rows(300, 2.5)
    times = torch.randint(0, 4, (300,), generator=torch.Generator().manual_seed(1))
    repeated = joint.repeat_interleave(times, 0), labels.repeat_interleave(times)
    weight, half = times.double(), torch.arange(300) % 3 == 0
    assert temperature.nll(joint, labels, 1.7, weight) == pytest.approx(temperature.nll(*repeated, 1.7), rel=1e-12)
    for t in (0.4, 2.0, 30.0):
        expected = temperature.smoothed_nll(*repeated, t)
        assert temperature.smoothed_nll(joint, labels, t, weight) == pytest.approx(expected, rel=1e-12)
    assert temperature.best(joint, labels, weight) == pytest.approx(temperature.best(*repeated), rel=1e-5)
    fitted = temperature.fit(*repeated, half=half.repeat_interleave(times))
    assert temperature.fit(joint, labels, weight, half) == pytest.approx(fitted, rel=1e-5)


def test_given_halves_make_the_order_of_the_rows_irrelevant():
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    for seed in range(10):
        (joint, labels), half = rows(200, 1.0, seed), torch.arange(200) < 100
        moved = temperature.fit(joint[order], labels[order], half=half[order])
        assert moved == pytest.approx(temperature.fit(joint, labels, half=half), rel=1e-9)
    assert temperature.fit(joint, labels, half=torch.ones(200, dtype=torch.bool)) == 1.0  # nothing to settle by


@pytest.mark.parametrize(("n", "true"), [(30, 0.5), (400, 20.0), (3000, 1.5)])
def test_it_is_the_minimum_that_scipy_finds(n, true):
    joint, labels = rows(n, true)
    found = temperature.best(joint, labels)
    loss = lambda log: temperature.smoothed_nll(joint, labels, math.exp(log))  # noqa: E731
    expected = optimize.minimize_scalar(loss, bounds=(-4, 10), method="bounded", options={"xatol": 1e-10}).x
    assert math.log(found) == pytest.approx(expected, abs=1e-6)


def test_the_loss_is_a_loop_over_the_classes():
    joint, labels = rows(40, 2.0, n_classes=7)
    pairs = zip(joint.tolist(), labels.tolist(), strict=True)
    terms = [math.log(sum(math.exp((u - row[y]) / 1.7) for u in row)) for row, y in pairs]
    assert temperature.nll(joint.float(), labels, 1.7) == pytest.approx(sum(terms) / 40, rel=1e-6)


def test_a_label_that_is_impossible_has_no_say():
    joint, labels = rows(200, 2.0)
    expected = temperature.best(joint[1:], labels[1:])
    joint[0, labels[0]] = -math.inf
    assert temperature.best(joint, labels) == pytest.approx(expected, rel=0.05)
    assert temperature.nll(joint, labels) == temperature.smoothed_nll(joint, labels, 1.0) == math.inf
