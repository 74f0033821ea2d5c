"""Online Gaussians: numbers of the core, balance, memory, and an encoder that learns through them."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mixtura.errors import UsageError
from mixtura.heads.linear import LinearHead
from mixtura.heads.online import OnlineGaussianHead


def encoder(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 8))


def two_modes(n=800, seed=0):
    """Two classes of two modes each, across from one another: no line divides them."""
    generator = torch.Generator().manual_seed(seed)
    part = torch.arange(n) % 4
    corner = torch.tensor([[1.5, 1.5], [-1.5, 1.5], [-1.5, -1.5], [1.5, -1.5]])
    return corner[part] + 0.5 * torch.randn(n, 2, generator=generator), part % 2


def learn(network, head, x, labels, epochs=8):
    adam = torch.optim.Adam([*network.parameters(), *head.parameters()], 1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            z = network(x[rows])
            adam.zero_grad()
            nn.functional.nll_loss(head(z), labels[rows]).backward()
            adam.step()
            head.update_memory(z.detach(), labels[rows])
    return float((head(network(x)).argmax(1) == labels).float().mean())


@pytest.mark.parametrize("normalize", [True, False])
def test_an_encoder_learns_through_it_as_well_as_through_a_linear_layer(normalize):
    """Tolerance 2 points of 800 rows; components alive and balanced to a third."""
    x, labels = two_modes()
    network, plain = encoder(), encoder()
    with torch.no_grad():
        head = OnlineGaussianHead.from_rows(network(x), labels, 2, components=2, normalize=normalize)
        layer = LinearHead.from_rows(plain(x), labels, 2)
    before = head.mean.clone()
    found, rival = learn(network, head, x, labels), learn(plain, layer, x, labels)
    assert found >= max(0.95, rival - 0.02)
    assert (head.mean - before).abs().max() > 0.1
    own = head._assigned(torch.arange(2))
    share = nn.functional.one_hot(own, 2).double().mean(1)
    assert (share > 1 / 3).all()


@pytest.mark.parametrize("normalize", [True, False])
def test_numbers_are_the_cores(blobs, normalize):
    x, labels = blobs(modes=2, dtype=torch.float64)
    head = OnlineGaussianHead.from_rows(x, labels, 4, components=(1, 2, 3, 2), normalize=normalize)
    head.update_memory(x[:50], labels[:50])
    mixture = head.mixture()
    assert_close(head.class_scores(x), mixture.class_log_prob(head.embed(x)), rtol=0, atol=1e-6)
    assert_close(head.log_prob(x), mixture.log_prob(head.embed(x)), rtol=0, atol=1e-6)
    assert_close(mixture.log_weight.exp().sum().item(), 1.0, rtol=0, atol=1e-9)
    dense = torch.distributions.Independent(torch.distributions.Normal(head.mean[3], head.variance[3].sqrt()), 1)
    expected = dense.log_prob(head.embed(x)) + mixture.log_weight[3]
    assert_close(head.component_log_prob(x)[:, 3], expected, rtol=0, atol=1e-9)
    offset = dense.log_prob(dense.mean[None])
    assert_close(head.distances(x)[:, 3], offset - dense.log_prob(head.embed(x)), rtol=0, atol=1e-9)


def test_gradient_goes_to_the_rows_alone(blobs):
    x, labels = blobs()
    head = OnlineGaussianHead.from_rows(x, labels, 4)
    assert not list(head.parameters())
    rows = x.clone().requires_grad_()
    nn.functional.nll_loss(head(rows), labels).backward()
    assert rows.grad is not None and rows.grad.isfinite().all() and rows.grad.abs().sum() > 0


def test_memory_is_a_ring_for_each_class():
    head = OnlineGaussianHead(1, 3, components=(1, 2, 1), normalize=False, memory=2)
    assert head.memory.shape == (3, 4, 1)
    values = torch.arange(1.0, 8.0)[:, None]
    labels = torch.tensor([0, 1, 0, 0, 1, 0, 0])
    head._remember(values, labels)
    assert head.filled.tolist() == [4, 2, 0]
    assert sorted(head.memory[0, :, 0].tolist()) == [3.0, 4.0, 6.0, 7.0]
    assert head.memory[1, :2, 0].tolist() == [2.0, 5.0]
    head._remember(torch.tensor([[9.0]]), torch.tensor([0]))
    assert sorted(head.memory[0, :, 0].tolist()) == [4.0, 6.0, 7.0, 9.0]


def test_absorbing_moves_classes_of_the_batch_by_the_momentum(blobs):
    x, labels = blobs(modes=2, dtype=torch.float64)
    head = OnlineGaussianHead.from_rows(x, labels, 4, normalize=False, memory=50, momentum=0.75, floor=0.0)
    batch = x[labels == 2][:30] + 1, labels[labels == 2][:30]
    twin = copy.deepcopy(head)
    twin._remember(*batch)
    own, ring = twin._assigned(torch.tensor([2]))[0], twin.memory[2]
    assert (torch.bincount(own[: twin.filled[2]]) >= 15).all()
    expected_mean, expected_variance = head.mean.clone(), head.variance.clone()
    for g in (0, 1):
        rows = ring[: twin.filled[2]][own[: twin.filled[2]] == g]
        expected_mean[4 + g] = 0.75 * head.mean[4 + g] + 0.25 * rows.mean(0)
        expected_variance[4 + g] = 0.75 * head.variance[4 + g] + 0.25 * rows.var(0, correction=0)
    head.update_memory(*batch)
    assert_close(head.mean, expected_mean, rtol=0, atol=1e-12)
    assert_close(head.variance, expected_variance, rtol=0, atol=1e-12)


def test_an_empty_batch_changes_nothing(blobs):
    x, labels = blobs()
    head = OnlineGaussianHead.from_rows(x, labels, 4)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    head.update_memory(x[:0], labels[:0])
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())


def test_steps_from_a_random_start_find_the_modes():
    x, labels = two_modes(400)
    torch.manual_seed(0)
    head = OnlineGaussianHead(2, 2, normalize=False, momentum=0.5)
    for _ in range(30):
        head.update_memory(x, labels)
    assert float((head(x).argmax(1) == labels).float().mean()) > 0.97
    assert (head.mean.abs() - 1.5).abs().max() < 0.3
    assert_close(head.variance.mean().item(), 0.25, rtol=0.25, atol=0)


def test_a_step_with_one_row_of_a_class_and_copies_of_one_row_stays_finite(blobs):
    x, labels = blobs(n=40)
    head = OnlineGaussianHead.from_rows(x[:1].expand(40, -1), labels, 4, components=3)
    for _ in range(5):
        head.update_memory(x[:1], labels[:1])
    assert head(x).isfinite().all()
    assert head.variance.min() > 0


def test_online_refuses_what_it_cannot_do(blobs):
    for option, message in (
        ({"memory": 1}, "memory of 1"),
        ({"momentum": 1.0}, "Momentum 1.0"),
        ({"floor": -1.0}, "Floor"),
    ):
        with pytest.raises(UsageError, match=message):
            OnlineGaussianHead(6, 4, **option)
