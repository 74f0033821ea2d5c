"""Laws of the model of subclasses, against explicit sums and tensors; and EM on it never loses."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from mixtura.core.balanced import Balance, assign
from mixtura.core.subclass_model import SubclassModel
from mixtura.core.two_levels import SubclassScores

N, D, R, C = 30, 5, 7, 3


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    v, labels = normal(N, D), torch.arange(N) % C
    prior = normal(C).log_softmax(0)
    return SubclassModel(normal(R, D), normal(C, D), 0.2, 0.7, prior), v, labels


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("mixture_prior", [False, True])
def test_probabilities_are_those_of_explicit_sums(drawn, mixture_prior):
    model, v, labels = drawn
    model = replace(model, mixture_prior=mixture_prior)
    near, own = unit(model.mean) @ unit(model.class_mean).T, (unit(v) @ unit(model.mean).T / 0.2).exp()
    weight = (near / 0.7).exp()
    prior = model.log_prior.exp()
    class_given = weight * prior / (weight * prior).sum(1, keepdim=True)
    share = weight / weight.sum(0)
    joint = own * share.T[labels] if mixture_prior else own
    posterior = joint / joint.sum(1, keepdim=True)
    assert torch.allclose(model.class_given_subclass().exp(), class_given)
    assert torch.allclose(model.subclass_given_class().exp(), share.T)
    assert torch.allclose(model.subclass_posterior(v, labels).exp(), posterior)
    assert torch.allclose(model.score(v, labels).exp(), posterior * class_given.T[labels])
    through = own @ share * prior if mixture_prior else own @ class_given
    assert torch.allclose(model.class_posterior(v).exp(), through / through.sum(1, keepdim=True))


def test_only_directions_count(drawn):
    model, v, labels = drawn
    longer = replace(model, mean=3 * model.mean, class_mean=model.class_mean * torch.tensor([[1.0], [2.0], [0.1]]))
    assert torch.allclose(longer.score(9 * v, labels), model.score(v, labels))
    assert torch.allclose(longer.class_posterior(9 * v), model.class_posterior(v))


def test_the_closed_form_of_angles_is_that_of_explicit_differences(drawn):
    model, v, labels = drawn
    center = unit(model.class_mean)[labels]
    ours = normalize(unit(v) - center, dim=1)[:, None]
    theirs = normalize(unit(model.mean)[None] - center[:, None], dim=2)
    assert torch.allclose(model.angular_similarity(v, labels), (ours * theirs).sum(2) / 0.2)
    on_center = model.angular_similarity(model.class_mean[:1].clone(), torch.zeros(1, dtype=torch.int64))
    assert on_center.isfinite().all()


def test_scores_by_chunk_are_the_scores_up_to_a_constant_of_each_row(drawn):
    model, v, labels = drawn
    for one in (model, replace(model, mixture_prior=True)):
        chunked = SubclassScores(v, labels, one.mean, one.superclass_table(), one.variance).chunk(0, N)
        apart = chunked - one.score(v, labels)
        assert torch.allclose(apart, apart[:, :1].expand_as(apart))


def test_the_bound_of_em_never_falls(drawn):
    """Regularization 1, soft shares, free columns: the E-step makes the bound tight, and a line search only climbs."""
    model, v, labels = drawn
    model = replace(model, mixture_prior=True)
    mean, class_mean = model.mean.clone(), model.class_mean.clone()
    free = Balance(regularization=1.0, strength=1e-9, steps=1)

    def evidence():
        one = replace(model, mean=mean, class_mean=class_mean)
        return float(one.score(v, labels).logsumexp(1).mean())

    first = last = evidence()
    for _ in range(10):
        one = replace(model, mean=mean, class_mean=class_mean)
        scores = SubclassScores(v, labels, mean, one.superclass_table(), one.variance)
        share = assign(scores, balance=free).responsibilities(scores.chunk(0, N))
        assert torch.allclose(share, one.score(v, labels).softmax(1), atol=1e-6)
        free_mean, free_class = mean.clone().requires_grad_(), class_mean.clone().requires_grad_()
        moved = replace(model, mean=free_mean, class_mean=free_class)
        bound = (share * moved.score(v, labels)).sum(1).mean()
        slopes = torch.autograd.grad(bound, (free_mean, free_class))
        step = 1.0
        while True:
            new = mean + step * slopes[0], class_mean + step * slopes[1]
            one = replace(model, mean=new[0], class_mean=new[1])
            if float((share * one.score(v, labels)).sum(1).mean()) >= float(bound.detach()):
                break
            step /= 2
        mean, class_mean = new
        now = evidence()
        assert now >= last - 1e-12
        last = now
    assert last > first + 0.01
