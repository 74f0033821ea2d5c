"""Heads in a network: they learn as well as a linear layer, and stay exact."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mixtura.core.covariance import FAMILIES, Prior
from mixtura.heads.gaussian import GaussianHead
from mixtura.heads.linear import LinearHead
from mixtura.testing.joint_training import SETTINGS, STARTS, accuracy, keeps_up, kinds

FEW = ("sgd 0.01", "sgd 0.1", "sgd 0.01 bfloat16")


@functools.cache
def linear(setting):
    return accuracy("nn.Linear", "fresh", SETTINGS[setting])


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", kinds())
def test_a_head_keeps_up_with_a_linear_layer(name, start):
    """Within 2 points on 397 pictures; the whole grid is in benchmarks/training_heads.py."""
    for setting in FEW:
        assert keeps_up(accuracy(name, start, SETTINGS[setting]), linear(setting)), setting


def joined(family="diagonal", steps=3, seed=0):
    """A network and a head that were trained together, in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(90, 5, generator=generator, dtype=torch.float64)
    labels = torch.arange(90) % 3
    x[torch.arange(90), labels] += 2
    torch.manual_seed(seed)
    below = nn.Linear(5, 4, dtype=torch.float64)
    head = GaussianHead.from_rows(below(x).detach(), labels, 3, family=family, rank=2)
    model = nn.Sequential(below, head).train()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        sgd.zero_grad()
        nn.functional.nll_loss(model(x), labels).backward()
        sgd.step()
    return model, x, labels


@pytest.mark.parametrize("family", FAMILIES)
def test_a_jointly_trained_head_is_its_mixture(family):
    model, x, _ = joined(family)
    below, head = model.eval()
    z = below(x).detach()
    assert_close(head.class_scores(z), head.mixture().class_log_prob(z), rtol=1e-8, atol=1e-8)
    again = GaussianHead(**head.config()).double()
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.eval()(z), head(z))


def test_a_loaded_head_goes_on_as_it_was():
    """It is prepared for joint training once, also after saving and loading."""
    model, x, labels = joined()
    twin = nn.Sequential(copy.deepcopy(model[0]), GaussianHead(**model[1].config()).double())
    twin[1].load_state_dict(model[1].state_dict())
    for one in (model, twin):
        nn.functional.nll_loss(one.train()(x), labels).backward()
    for name, value in model.state_dict().items():
        assert torch.equal(twin.state_dict()[name], value), name


def test_a_fit_is_untouched_until_a_network_learns_through_it():
    _, x, labels = joined()
    for given in (x, x.clone().requires_grad_()):
        head = GaussianHead.from_rows(x, labels, 3, family="full").train()
        before = {name: value.clone() for name, value in head.state_dict().items()}
        head(given).sum()
        assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())


@pytest.mark.parametrize("kind", [GaussianHead, LinearHead])
def test_the_loss_does_not_change_when_a_layer_scales_all_features(kind):
    """The gradient along the layer's own weights and biases is zero, up to the few rows of the units so far."""
    _, x, labels = joined()
    torch.manual_seed(0)
    below = nn.Linear(5, 4, dtype=torch.float64)
    model = nn.Sequential(below, kind(4, 3).double()).train()
    nn.functional.nll_loss(model(x), labels).backward()
    along = (below.weight * below.weight.grad).sum() + (below.bias * below.bias.grad).sum()
    longest = below.weight.norm() * below.weight.grad.norm()
    assert abs(along) < 0.2 * longest


def test_gradients_in_joint_training_are_those_of_the_loss():
    """Against finite differences, in float64; the units are set back because each forward moves them."""
    model, x, labels = joined(steps=1)
    below, head = model
    state = copy.deepcopy(head.state_dict())

    def loss(weight):
        head.load_state_dict(state)
        return nn.functional.nll_loss(head(nn.functional.linear(x, weight, below.bias)), labels)

    assert torch.autograd.gradcheck(loss, below.weight.detach().clone().requires_grad_())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shrunk_covariance_is_its_matrix_shrunk(family):
    model, _, _ = joined(family)
    covariance = model[1].mixture().covariance
    dense = covariance.dense(3, 4)
    target = dense.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(4, dtype=dense.dtype)
    found = covariance.shrunk(Prior(identity=0.3)).dense(3, 4)
    assert_close(found, (0.7 * dense + 0.3 * target).expand_as(found), rtol=1e-8, atol=1e-10)
