"""SCGM-A: contrasts as sums over all keys written out, gradients by differences, and what each name compares with."""

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from mixtura.core.subclass_model import SubclassModel
from mixtura.errors import UsageError
from mixtura.objectives.angular import CONTRAST_LOSSES, LOSSES, METRICS, ScgmA
from mixtura.objectives.contrast import Keys, Pairs

N, D, C, R, T = 8, 5, 3, 6, 20
TEMPERATURE = 0.3


@pytest.fixture
def drawn():
    """Means, class scores, pairs of eight rows whose bank has keys of twelve, and the subclass of each row."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    label = torch.arange(T) % C
    own = Keys(normalize(normal(N, D), dim=1), label[:N], torch.arange(N))
    row = torch.cat([torch.arange(2), torch.arange(N, N + 10)])  # two are of rows of the batch
    bank = Keys(normalize(normal(len(row), D), dim=1), label[row], row)
    subclass = torch.where(torch.arange(T) == 3, -1, label * 2 + torch.arange(T) // C % 2)
    model = SubclassModel(normal(R, D).requires_grad_(), normal(C, D).requires_grad_())
    return model, normal(N, C), Pairs(normal(N, D).requires_grad_(), own, bank), subclass


def contrast(drawn, name, metric="angular"):
    """The contrast of each row, with all keys written out."""
    model, scores, pairs, subclass = drawn
    center, sub_center = normalize(model.class_mean, dim=1), normalize(model.mean, dim=1)
    found = []
    for n in range(N):
        label, kind = int(pairs.own.label[n]), int(subclass[n])
        order = scores[n].argsort(descending=True).tolist()
        rival = next(c for c in order if c != label)
        keep = {
            "cst_by_class": lambda c, k, label=label: c == label,
            "cst_all": lambda c, k: True,
            "cst_all_by_class": lambda c, k: True,
            "cst_two_class": lambda c, k, label=label, rival=rival: c in (label, rival),
        }.get(name, lambda c, k, kind=kind: k == kind)
        origin = torch.zeros(D, dtype=torch.float64)
        seen = center[label] if metric == "angular" else origin
        if name in ("cst_all", "cst_by_subclass"):
            seen = origin
        if name == "cst_by_subclass_angnorm":
            seen = sub_center[kind]

        def direction(u, seen=seen):
            return normalize(normalize(u, dim=0) - seen, dim=0)

        a = direction(pairs.v[n])
        near = [a @ direction(pairs.own.key[n])]
        for key, c, row in zip(pairs.bank.key, pairs.bank.label.tolist(), pairs.bank.row.tolist(), strict=True):
            if row != n and keep(c, int(subclass[row])):
                near.append(a @ direction(key))
        near = torch.stack(near) / TEMPERATURE
        without = "subclass" in name and kind < 0
        found.append(near.sum() * 0 if without else near.logsumexp(0) - near[0])
    return torch.stack(found).mean()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", CONTRAST_LOSSES)
def test_a_contrast_is_the_sum_over_the_keys_that_it_names(drawn, name, metric):
    model, scores, pairs, subclass = drawn
    made = ScgmA(0.0, temperature=TEMPERATURE, metric=metric, losses=(name,))
    loss, terms = made(model, scores, pairs, subclass[:N], subclass)
    expected = contrast(drawn, name, metric)
    assert torch.allclose(loss, expected, rtol=1e-9) and torch.allclose(terms["contrast_loss"], expected)
    assert terms["class_loss"] == 0


def test_the_terms_are_added_by_their_weight(drawn):
    model, scores, pairs, subclass = drawn
    loss, terms = ScgmA(0.7, 2.0, TEMPERATURE)(model, scores, pairs, subclass[:N], subclass)
    assert torch.allclose(terms["class_loss"], cross_entropy(scores / 2, pairs.own.label))
    known = subclass[:N] >= 0
    labels, kind = pairs.own.label[known], subclass[:N][known]
    near = -model.subclass_posterior(pairs.v[known], labels)[torch.arange(len(kind)), kind].sum() / N
    owner = -model.class_given_subclass()[kind, labels].sum() / N
    assert torch.allclose(terms["subclass_loss"], near) and torch.allclose(terms["owner_loss"], owner)
    assert torch.allclose(loss, terms["class_loss"] + terms["contrast_loss"] + 0.7 * (near + owner))


@pytest.mark.parametrize("name", LOSSES)
def test_every_mean_and_the_embeddings_have_the_gradient_of_differences(drawn, name):
    model, scores, pairs, subclass = drawn
    made = ScgmA(temperature=TEMPERATURE, losses=(name,))

    def lost(mean, class_mean, v):  # contrasts see from means without a gradient, so means move the other terms alone
        still = SubclassModel(mean, class_mean)
        whole, terms = made(still, scores, Pairs(v, pairs.own, pairs.bank), subclass[:N], subclass)
        return whole - terms["contrast_loss"] if mean is not model.mean else whole

    assert torch.autograd.gradcheck(lambda v: lost(model.mean, model.class_mean, v), (pairs.v,))
    means = tuple(one.detach().clone().requires_grad_() for one in (model.mean, model.class_mean))
    assert torch.autograd.gradcheck(lambda *two: lost(*two, pairs.v.detach()), means)
    lost(model.mean, model.class_mean, pairs.v).backward()
    reached = subclass[:N][subclass[:N] >= 0].unique()
    assert (model.mean.grad[reached].norm(dim=1) > 0).all() and (model.class_mean.grad.norm(dim=1) > 0).all()


def test_one_class_has_no_rival(drawn):
    model, _, pairs, subclass = drawn
    one = SubclassModel(model.mean, model.class_mean[:1])
    own = Keys(pairs.own.key, torch.zeros(N, dtype=torch.int64), pairs.own.row)
    bank = Keys(pairs.bank.key, torch.zeros(len(pairs.bank.row), dtype=torch.int64), pairs.bank.row)
    alone = Pairs(pairs.v, own, bank)
    scores = torch.zeros(N, 1, dtype=torch.float64)
    lost = [ScgmA(losses=(name,))(one, scores, alone, subclass[:N], subclass)[0] for name in
            ("cst_two_class", "cst_by_class")]  # fmt: skip
    assert torch.equal(*lost)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight": -1.0}, "A weight of -1.0"),
        ({"class_temperature": 0.0}, "A temperature of 0.0"),
        ({"temperature": float("inf")}, "A temperature of inf"),
        ({"metric": "cosine"}, "There is no metric 'cosine'. Use one of: angular, norm"),
        ({"losses": ("cst",)}, "There is no loss 'cst'. Use some of: cls, cst_by_class"),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused(options, said):
    with pytest.raises(UsageError, match=said):
        ScgmA.from_options(**options)
