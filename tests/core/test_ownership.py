import torch

from mixtura.core import ownership
from mixtura.core.classes import Plan, fit
from mixtura.core.covariance import FAMILIES
from mixtura.core.mixture import Mixture
from mixtura.core.ownership import ClassLogSumExp
from mixtura.testing.covariance_laws import clusters

OWNER = torch.tensor([2, 0, 2, 0, 2, 3])  # class 1 owns nothing


def joint(n=7, scale=3.0):
    return scale * torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def oracle(values):
    columns = [values[:, c == OWNER].logsumexp(1) for c in range(4)]
    return torch.stack(columns, 1)


def test_class_joint_is_log_sum_exp_in_value_and_gradient():
    values = joint().requires_grad_()
    found, expected = ClassLogSumExp.of(OWNER, 4)(values), oracle(values)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert (found[:, 1] == -torch.inf).all()
    keep = torch.tensor([0, 2, 3])
    (mine,) = torch.autograd.grad(found[:, keep].sin().sum(), values, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected[:, keep].sin().sum(), values)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_huge_and_silent_components_are_no_trouble():
    values = joint(scale=1e4)
    values[:, 5] = -torch.inf
    found = ClassLogSumExp.of(OWNER, 4)(values)
    torch.testing.assert_close(found, oracle(values))
    assert (found[:, 3] == -torch.inf).all()
    assert not found.isnan().any()


def test_one_component_a_class_in_order_is_the_joint_itself():
    values = joint()
    assert ClassLogSumExp.of(torch.arange(6), 6)(values) is values


def test_one_component_a_class_out_of_order_is_put_in_order():
    values, order = joint(), torch.tensor([3, 1, 0, 5, 2, 4])
    torch.testing.assert_close(ClassLogSumExp.of(order, 6)(values[:, order]), values)


def test_mask_leaves_each_row_its_own_class():
    values, labels = joint(4), torch.tensor([0, 2, 3, 2])
    masked = ownership.mask_others(values, OWNER, labels)
    own = labels[:, None] == OWNER
    assert torch.equal(masked[own], values[own])
    assert (masked[~own] == -torch.inf).all()


def test_of_class_is_the_density_given_the_class():
    x, labels = clusters()
    mixture = fit(Plan("diagonal", (1, 3, 2, 2, 1)), x, labels, 5)
    prior = torch.bincount(labels).double() / len(labels)
    for c in range(5):
        part = mixture.of_class(c)
        assert part.n_components == (1, 3, 2, 2, 1)[c]
        torch.testing.assert_close(
            part.log_prob(x) + prior[c].log(), mixture.class_log_prob(x)[:, c], rtol=0, atol=1e-9
        )
    torch.testing.assert_close(mixture.posterior(x).sum(1), torch.ones(len(x), dtype=x.dtype))


def test_another_class_prior_moves_columns_only():
    x, labels = clusters()
    mixture = fit(Plan("diagonal", (1, 3, 2, 2, 1, 1)), x, labels, 6)  # the last class has no rows
    prior = torch.tensor([0.1, 0.2, 0.3, 0.2, 0.1, 0.1], dtype=x.dtype).log()
    moved = mixture.with_prior(prior)
    shift = prior[:5].log_softmax(0) - (torch.bincount(labels).double() / len(labels)).log()
    torch.testing.assert_close(
        moved.class_log_prob(x)[:, :5], mixture.class_log_prob(x)[:, :5] + shift, rtol=0, atol=1e-9
    )
    assert (moved.class_log_prob(x)[:, 5] == -torch.inf).all()


def test_what_is_kept_of_a_mixture_neither_ages_in_training_nor_stops_a_gradient():
    variance = torch.ones(2, requires_grad=True)
    mean = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    zero = torch.zeros(1, 3)
    trained = Mixture(torch.zeros(2).log_softmax(0), mean, FAMILIES["spherical"](variance))
    with torch.no_grad():
        before = trained.log_prob(zero)
        variance.mul_(4)
        after = trained.log_prob(zero)
    assert not torch.equal(before, after)
    for _ in range(2):
        trained.background().log_prob(zero).sum().backward()
    still = Mixture(torch.zeros(2).log_softmax(0), mean, FAMILIES["spherical"](torch.ones(2)))
    with torch.inference_mode():
        still.log_prob(zero)
        still.background().log_prob(zero)
    x = torch.zeros(1, 3, requires_grad=True)
    (still.log_prob(x) - still.background().log_prob(x)).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
