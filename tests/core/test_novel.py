"""Components from a few rows: what the two-covariance model says, by simulation."""

import pytest
import torch

from mixtura.core import init, novel
from mixtura.core.covariance import FAMILIES, Prior
from mixtura.core.moments import hard


def world(classes=40, per_class=60, dimension=12, apart=2.0, seed=0):
    """Classes whose means vary ``apart`` times the variance within, which is not round; float64."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.eye(dimension, dtype=torch.float64) + 0.3 * torch.randn(
        dimension, dimension, generator=generator, dtype=torch.float64
    )
    mean = apart**0.5 * torch.randn(classes, dimension, generator=generator, dtype=torch.float64) @ root.T
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = torch.randn(len(labels), dimension, generator=generator, dtype=torch.float64) @ root.T
    return mean[labels] + noise, labels, mean, root


def known(family, x, labels):
    mixture = init.from_labels(family, x, labels, int(labels.max()) + 1)
    kind = FAMILIES[family]
    return mixture, hard(kind, x, labels, mixture.mean, None, mixture.covariance.factor_posterior())


def test_few_rows_lose_what_the_lift_gives_back():
    """Averaged over many newcomers, their own rows have the density that the true mean would give them."""
    x, labels, mean, root = world(classes=1200, per_class=63)
    old = labels < 200
    mixture, sums = known("tied", x[old], labels[old])
    rows = x[~old].view(1000, 63, -1)
    made = novel.novel_components(mixture, sums, [part[:3] for part in rows], 0.0, Prior())
    own = (
        torch.stack([made.mixture.component_log_prob(part[3:])[:, p] for p, part in enumerate(rows)])
        - made.mixture.log_weight[0]
    )
    white = (rows[:, 3:] - mean[200:, None]) @ torch.linalg.inv(root).T
    truth = -0.5 * white.square().sum(2) - torch.logdet(root) - 6 * torch.log(torch.tensor(2 * torch.pi))
    lost = (truth - own).mean()
    assert float(made.lift[0]) == pytest.approx(float(lost), abs=0.15)  # of 1.7 nats; standard error 0.05
    assert 1.5 < lost < 2.0


def test_the_mean_is_closer_to_the_truth_than_the_average():
    x, labels, mean, _ = world(classes=300, apart=0.5)
    old = labels < 200
    mixture, sums = known("tied", x[old], labels[old])
    handfuls = [x[labels == c][:2] for c in range(200, 300)]
    made = novel.novel_components(mixture, sums, handfuls, 0.0, Prior())
    raw = torch.stack([rows.mean(0) for rows in handfuls])
    assert (made.mixture.mean - mean[200:]).square().mean() < 0.7 * (raw - mean[200:]).square().mean()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_newcomers_have_a_proper_covariance_in_every_family(family):
    x, labels, _, _ = world(classes=10)
    mixture, sums = known(family, x, labels)
    made = novel.novel_components(mixture, sums, [x[:1], x[60:63] + 1.0], 1e-6, Prior())
    dense = made.mixture.covariance.dense(2, 12)
    assert bool((torch.linalg.eigvalsh(dense) > 0).all())
    assert made.mixture.component_log_prob(x).isfinite().all()
    assert float(made.mixture.log_weight.exp().sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("family", ["spherical", "diagonal", "full"])
def test_a_borrowed_covariance_counts_for_twenty_rows(family):
    x, labels, _, _ = world(classes=3, per_class=400)
    mixture, sums = known(family, x, labels)
    rows = x[:30] - x[:30].mean(0)
    made = novel.novel_components(mixture, sums, [rows], 0.0, Prior())
    own = rows.T @ rows / 30
    near = mixture.covariance.dense(3, 12).mean(0)  # three classes are all that there is to be near to
    blended = (30 * own + 20 * near) / 50
    got = made.mixture.covariance.dense(1, 12)[0]
    if family == "full":
        torch.testing.assert_close(got, blended, rtol=1e-8, atol=1e-10)
    else:
        mean = blended.diagonal() if family == "diagonal" else blended.diagonal().mean().expand(12)
        torch.testing.assert_close(got.diagonal(), mean, rtol=1e-8, atol=1e-10)
