"""The loss of SCGM-G: its terms written out, and gradients that reach every mean."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from mixtura.core.subclass_model import SubclassModel
from mixtura.errors import UsageError
from mixtura.objectives.coarse_to_fine import NORMALIZED, ScgmG

N, D, R, C = 12, 4, 6, 3


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    return SubclassModel(normal(R, D), normal(C, D)), normal(N, D), torch.arange(N) % C, torch.arange(N) % R


def test_the_terms_are_those_of_the_paper(drawn):
    model, v, labels, assigned = drawn
    unit, mean, class_mean = normalize(v, dim=1), normalize(model.mean, dim=1), normalize(model.class_mean, dim=1)
    near = cross_entropy(unit @ mean.T / 0.1, assigned)
    owner = cross_entropy(mean[assigned] @ class_mean.T, labels)
    wrong = cross_entropy(unit.relu() @ model.class_mean.T, labels)
    loss, terms = ScgmG(weight=0.3)(model, v, labels, assigned)
    assert torch.allclose(loss, wrong + 0.3 * (near + owner))
    for name, term in {"class_loss": wrong, "subclass_loss": near, "owner_loss": owner}.items():
        assert torch.allclose(terms[name], term)


def test_the_four_normalizations(drawn):
    model, v, _, _ = drawn
    unit, mean = normalize(v, dim=1), normalize(model.class_mean, dim=1)
    pairs = {
        "embedding": (unit, model.class_mean), "weight": (v, mean), "both": (unit, mean), "none": (v, model.class_mean)
    }  # fmt: skip
    assert set(pairs) == set(NORMALIZED)
    for name, (own, weight) in pairs.items():
        assert torch.allclose(ScgmG(normalize=name).class_scores(model, v), own.relu() @ weight.T)


@pytest.mark.parametrize("angular", [False, True])
def test_every_mean_and_the_embeddings_have_the_gradient_of_differences(drawn, angular):
    model, v, labels, assigned = drawn

    def loss(mean, class_mean, rows):
        return ScgmG(angular=angular)(SubclassModel(mean, class_mean), rows, labels, assigned)[0]

    assert torch.autograd.gradcheck(loss, (model.mean, model.class_mean, v))
    loss(model.mean, model.class_mean, v).backward()
    for tensor in (model.mean, model.class_mean, v):
        assert (tensor.grad.norm(dim=1) > 0).all()


def test_shares_of_one_are_a_hard_assignment_and_rows_without_one_have_the_class_term_alone(drawn):
    model, v, labels, assigned = drawn
    hard = ScgmG()(model, v, labels, assigned)[0]
    assert torch.allclose(hard, ScgmG()(model, v, labels, torch.eye(R, dtype=torch.float64)[assigned])[0])
    for none in (torch.full((N,), -1), torch.zeros(N, R)):
        loss, terms = ScgmG()(model, v, labels, none)
        assert torch.allclose(loss, terms["class_loss"]) and float(terms["subclass_loss"]) == 0
    weight = (torch.arange(N) < 4).double()
    some = ScgmG()(model, v, labels, assigned, weight)[0]
    assert torch.allclose(some, ScgmG()(model, v[:4], labels[:4], assigned[:4])[0])


def test_a_teacher_that_agrees_costs_nothing_and_one_that_does_not_pulls(drawn):
    model, v, labels, _ = drawn
    objective = ScgmG(distill_weight=0.5, distill_temperature=2.0)
    same = objective.distilled(model, v, model, v, labels)
    assert math.isclose(same.item(), 0, abs_tol=1e-12)
    other = SubclassModel(model.mean.detach().flip(0), model.class_mean.detach())
    far = objective.distilled(model, v, other, v.detach(), labels)
    (slope,) = torch.autograd.grad(far, v)
    weight = (torch.arange(N) < 3).double()
    some = objective.distilled(model, v, other, v.detach(), labels, weight)
    assert torch.allclose(some, objective.distilled(model, v[:3], other, v[:3].detach(), labels[:3]))
    with torch.no_grad():
        assert far.item() > float(objective.distilled(model, v - 0.01 * slope, other, v, labels)) > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight": -1.0}, "weight of -1"),
        ({"normalize": "all"}, "no normalization 'all'. Use one of: embedding"),
        ({"distill_weight": 1.0}, "distillation weight of 1.0"),
        ({"distill_temperature": 0.0}, "temperature of 0"),
    ],
)
def test_what_is_out_of_range_is_refused(options, said):
    with pytest.raises(UsageError, match=said):
        ScgmG.from_options(**options)
