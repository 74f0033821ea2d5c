"""Digits of heads: a class far away takes none from the others, and no sample is too large for a probability."""

import copy
from itertools import product

import pytest
import torch

from mixtura.core.covariance import FAMILIES
from mixtura.heads.gaussian import GaussianHead
from mixtura.heads.linear import LinearHead
from mixtura.heads.online import OnlineGaussianHead
from mixtura.heads.prototype import PrototypeHead
from mixtura.heads.random_projection import RandomProjectionHead
from mixtura.heads.sdgm import SDGMHead
from mixtura.heads.vmf import VonMisesFisherHead
from mixtura.objectives.classification import Conditional
from mixtura.training.head_stack import train
from mixtura.training.records import Hyperparameters, TrainingData

CASES = {family: (GaussianHead, {"family": family, "rank": 2}) for family in FAMILIES}
CASES |= {
    "projected": (GaussianHead, {"family": "diagonal", "projection": "gaussian", "width": 3}),
    "several": (GaussianHead, {"family": "spherical", "components": 2}),
    "linear": (LinearHead, {}),
    "random_projection": (RandomProjectionHead, {"width": 64}),
    "euclidean": (PrototypeHead, {"metric": "euclidean"}),
}
OTHERS = {
    "sdgm": (SDGMHead, {}),
    "raw": (OnlineGaussianHead, {"normalize": False}),
    "vmf": (VonMisesFisherHead, {}),
    "cosine": (PrototypeHead, {}),
    "online": (OnlineGaussianHead, {}),
}


def classes_at(far, seed=0):
    """Three classes of spread 0.1 at 0, 1 and ``far``, in float32."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat_interleave(50)
    x = 0.1 * torch.randn(150, 4, generator=generator) + torch.tensor([0.0, 1.0, far])[labels, None]
    return x, labels


def made(name, x, labels):
    kind, options = (CASES | OTHERS)[name]
    return kind.from_rows(x, labels, 3, **options).eval()


@pytest.mark.parametrize(("name", "far"), [("sdgm", 1e3), *product(CASES, [1e3, 1e4])])
@torch.no_grad()
def test_a_class_far_away_takes_no_digits_from_the_others(name, far):
    x, labels = classes_at(far)
    head = made(name, x, labels)
    found = head(x)
    assert found.dtype == torch.float32
    assert (found.argmax(1) == labels).all()
    exact = copy.deepcopy(head).double()(x.double())
    torch.testing.assert_close(found.exp().double(), exact.exp(), rtol=0, atol=1e-6)
    again = type(head)(**head.config())
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.train(False)(x), found)


@pytest.mark.parametrize("name", CASES | OTHERS)
def test_samples_of_any_size_have_probabilities_and_gradients(name):
    x, labels = classes_at(2.0)
    head = made(name, x, labels)
    directions = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    leading = head(1e5 * directions).argmax(1)
    for size in (1e10, 1e19, 1e30, 1e38):
        rows = (size * directions / directions.abs().max()).requires_grad_()
        found = head(rows)
        torch.testing.assert_close(found.exp().sum(1), torch.ones(8))
        assert torch.equal(found.argmax(1), leading)
        found.sum().backward()
        assert rows.grad.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())
        half = copy.deepcopy(head).bfloat16()
        assert not half(rows.detach().bfloat16()).isnan().any()
    mixed = head(torch.cat([x, rows.detach()]))[: len(x)]
    torch.testing.assert_close(mixed, head(x), rtol=1e-5, atol=1e-5)


def test_the_precision_follows_the_parameters_at_the_next_mode():
    head = GaussianHead(4, 3, family="diagonal").eval()
    assert not head.exact
    with torch.no_grad():
        head.mean[2] += 1e4
    assert head.train().exact
    assert head(torch.zeros(1, 4)).dtype == torch.float32
    assert not GaussianHead(4, 3, family="diagonal").train().exact


@pytest.mark.parametrize("count", [1, 2])
def test_a_stack_is_trained_with_all_digits(count):
    """In float32, the loss of the two near classes would be that of noise."""
    x, labels = classes_at(1e4)
    head = GaussianHead.from_rows(x, labels, 3, family="diagonal")
    rows = [TrainingData(x[::2], labels[::2], x[1::2], labels[1::2], seed=seed) for seed in range(count)]
    for trained in train([head] * count, rows, Conditional(), Hyperparameters(epochs=2, batch_size=30)):
        assert (trained.head.eval()(x).argmax(1) == labels).all()
        assert max(epoch.val_nll for epoch in trained.epochs) < 0.05
