"""Von Mises-Fisher: integrals over circle and sphere, scikit-free oracles for the estimate, EM, and odd rows."""

import math

import pytest
import scipy.stats
import torch
from torch.testing import assert_close

from mixtura.core import special
from mixtura.heads.vmf import VonMisesFisherHead, concentration


def circle(n=4000):
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack([angle.cos(), angle.sin()], 1), torch.full((n,), 2 * math.pi / n, dtype=torch.float64)


def sphere(n=400):
    """Points evenly spread in height and longitude, with their share of the surface."""
    height = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 - 1
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    z, phi = (t.reshape(-1) for t in torch.meshgrid(height, angle, indexing="ij"))
    radius = (1 - z.square()).sqrt()
    points = torch.stack([radius * phi.cos(), radius * phi.sin(), z], 1)
    return points, torch.full((n * n,), 4 * math.pi / n**2, dtype=torch.float64)


def drawn(mean, kappa, n, seed):
    return torch.from_numpy(scipy.stats.vonmises_fisher(mean, kappa).rvs(n, random_state=seed))


def directions(n_modes, dimension, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n_modes, dimension, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize(("dimension", "surface"), [(2, circle), (3, sphere)])
@pytest.mark.parametrize("kappa", [1e-3, 2.0, 60.0])
def test_density_integrates_to_one(dimension, surface, kappa):
    torch.manual_seed(0)
    head = VonMisesFisherHead(dimension, 2, (1, 2)).double()
    with torch.no_grad():
        head.log_concentration.fill_(math.log(kappa))
        head.prior_logit.copy_(torch.tensor([0.3, -1.0]))
        head.weight_logit.copy_(torch.tensor([0.0, 1.0, 2.0]))
    points, share = surface()
    assert_close(float((head.log_prob(points).detach().exp() * share).sum()), 1.0, rtol=0, atol=2e-3)


@pytest.mark.parametrize("dimension", [2, 3, 10, 64])
def test_log_density_is_scipys(dimension):
    torch.manual_seed(1)
    head = VonMisesFisherHead(dimension, 3).double()
    x = directions(20, dimension, 1)
    with torch.no_grad():
        head.log_concentration.copy_(torch.tensor([0.1, 8.0, 300.0]).log())
    for c in range(3):
        mean = torch.nn.functional.normalize(head.direction[c], dim=0).detach().numpy()
        rival = scipy.stats.vonmises_fisher(mean, head.log_concentration[c].exp().item()).logpdf(x.numpy())
        assert_close(head.component_log_prob(3 * x)[:, c] + math.log(3), torch.from_numpy(rival), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dimension", [2, 3, 10, 128, 1280, 4096])
def test_estimate_inverts_the_mean_length(dimension):
    kappa = torch.logspace(0, 5.7, 12, dtype=torch.float64)
    length = special.mean_length(dimension, kappa)
    assert_close(concentration(length, dimension), kappa, rtol=1e-4, atol=0)


def test_estimate_stays_in_range():
    found = concentration(torch.tensor([0.0, 1.0]), 512)
    assert found.isfinite().all()
    assert (found > 0).all() and (found <= 1e6).all()


def test_start_finds_what_the_rows_were_drawn_from():
    mean = directions(2, 8)
    x = torch.cat([drawn(mean[0].numpy(), 20.0, 2000, 0), drawn(mean[1].numpy(), 80.0, 2000, 1)])
    labels = torch.arange(2).repeat_interleave(2000)
    head = VonMisesFisherHead.from_rows(x, labels, 2)
    assert_close(head.log_concentration.exp().detach().double(), torch.tensor([20.0, 80.0]).double(), rtol=0.05, atol=0)
    assert_close(torch.nn.functional.normalize(head.direction).detach().double(), mean, rtol=0, atol=0.02)


def test_concentration_is_not_fooled_by_few_rows():
    """20 classes of 5 rows in 256 dimensions: the plain estimate is far too sure."""
    mean = directions(20, 256)
    x = torch.cat([drawn(m.numpy(), 100.0, 5, i) for i, m in enumerate(mean)])
    labels = torch.arange(20).repeat_interleave(5)
    head = VonMisesFisherHead.from_rows(x, labels, 20, shared=True)
    assert head.log_concentration.shape == (1,)
    assert_close(head.log_concentration.exp().item(), 100.0, rtol=0.15, atol=0)
    one = VonMisesFisherHead.from_rows(x[::5], labels[::5], 20)
    assert one(x).isfinite().all()


def test_em_finds_two_modes_a_class():
    mean = directions(4, 6, seed=2)
    x = torch.cat([drawn(m.numpy(), 40.0, 300, i) for i, m in enumerate(mean)])
    labels = torch.tensor([0, 0, 1, 1]).repeat_interleave(300)
    one, two = (VonMisesFisherHead.from_rows(x, labels, 2, components=g) for g in (1, 2))
    assert float((two.log_prob(x) - one.log_prob(x)).detach().mean()) > 0.5
    found = torch.nn.functional.normalize(two.direction).detach().double() @ mean.T
    assert (found.amax(0) > 0.99).all()


def test_length_of_a_row_does_not_matter_and_zeros_are_finite(blobs):
    x, labels = blobs()
    head = VonMisesFisherHead.from_rows(x, labels, 4)
    assert_close(head(7 * x), head(x), rtol=0, atol=1e-4)
    zero = torch.zeros(1, 6, requires_grad=True)
    head.log_prob(zero).sum().backward()
    assert zero.grad is not None and zero.grad.isfinite().all()
    with_zero = VonMisesFisherHead.from_rows(torch.cat([x, zero.detach()]), torch.cat([labels, labels[:1]]), 4)
    assert with_zero(x).isfinite().all()


def test_counts_what_a_prediction_uses(blobs):
    x, labels = blobs()
    assert VonMisesFisherHead.from_rows(x, labels, 4, shared=True).n_parameters == 4 * 6 + 1 + 4 + 1
    assert VonMisesFisherHead.from_rows(x, labels, 4, components=2).n_parameters == 8 * 6 + 8 + 8 + 4 + 1
