"""SupCon, MaskCon and ANCOR: sums over all pairs written out, gradients by differences, and what each falls back to."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from mixtura.errors import UsageError
from mixtura.names import find
from mixtura.objectives import PAIR_OBJECTIVES
from mixtura.objectives.contrast import Keys, Pairs
from mixtura.objectives.contrastive import Ancor, MaskCon, SupCon

N, D, L, C = 8, 5, 12, 3
OBJECTIVES = [SupCon(0.3), MaskCon(0.7, 0.3, 0.4), Ancor(0.3)]
WEIGHTS = torch.randn(C, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.fixture
def pairs():
    """Embeddings and keys of eight photos, and keys of twelve, the first two of which are of the first photos."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    own = Keys(normalize(normal(N, D), dim=1), torch.tensor([0, 1, 2, 0, 1, 0, 2, 2]), torch.arange(N))
    row = torch.cat([torch.arange(2), torch.arange(N, N + L - 2)])
    bank = Keys(normalize(normal(L, D), dim=1), torch.arange(L) % C, row)
    return Pairs(normal(N, D).requires_grad_(), own, bank)


def loss_of(objective, pairs):
    made = objective(pairs, WEIGHTS) if isinstance(objective, Ancor) else objective(pairs)
    return made[0]


def rows_of(pairs):
    """For each row: embedding, key and class, and of the other photos the keys and whether they have its class."""
    unit = normalize(pairs.v, dim=1)
    for v, key, label, row in zip(unit, pairs.own.key, pairs.own.label, pairs.own.row, strict=True):
        other = [place for place in range(len(pairs.bank.row)) if pairs.bank.row[place] != row]
        yield (
            v,
            key,
            label,
            [pairs.bank.key[one] for one in other],
            [bool(pairs.bank.label[one] == label) for one in other],
        )


def info_nce(pairs, temperature):
    """The own key against those of other photos."""
    found = []
    for v, key, _, others, _ in rows_of(pairs):
        near = torch.stack([v @ one / temperature for one in (key, *others)])
        found.append(near.logsumexp(0) - near[0])
    return torch.stack(found).mean()


def test_supcon_is_the_mean_over_all_keys_of_the_class(pairs):
    found = []
    for v, key, _, others, same in rows_of(pairs):
        near = torch.stack([v @ one / 0.3 for one in (key, *others)])
        found.append((near.logsumexp(0) - near)[torch.tensor([True, *same])].mean())
    assert torch.allclose(loss_of(SupCon(0.3), pairs), torch.stack(found).mean())


def test_maskcon_is_the_cross_entropy_of_targets_by_the_other_view(pairs):
    weight, temperature, sharpness = 0.7, 0.3, 0.4
    found = []
    for v, key, _, others, same in rows_of(pairs):
        near = torch.stack([v @ one / temperature for one in (key, *others)])
        soft = [math.exp(key @ one / sharpness) * own for one, own in zip(others, same, strict=True)]
        soft = [1.0] + [one / max(soft) for one in soft]
        target = [weight * one / sum(soft) + (1 - weight) * (place == 0) for place, one in enumerate(soft)]
        found.append((torch.tensor(target) * (near.logsumexp(0) - near)).sum())
    loss = loss_of(MaskCon(weight, temperature, sharpness), pairs)
    assert torch.allclose(loss, torch.stack(found).mean())


def test_ancor_compares_directions_from_the_weight_of_the_class(pairs):
    center, found = normalize(WEIGHTS, dim=1), []
    for v, key, label, others, same in rows_of(pairs):
        keys = [key] + [one for one, own in zip(others, same, strict=True) if own]
        seen = [normalize(one - center[label], dim=0) for one in (v, *keys)]
        near = torch.stack([seen[0] @ one / 0.2 for one in seen[1:]])
        found.append(near.logsumexp(0) - near[0])
    loss, terms = Ancor(0.2)(pairs, WEIGHTS)
    assert torch.allclose(terms["contrast_loss"], torch.stack(found).mean())
    assert torch.allclose(terms["class_loss"], cross_entropy(pairs.v @ WEIGHTS.T, pairs.own.label))
    assert torch.allclose(loss, terms["class_loss"] + terms["contrast_loss"])


@pytest.mark.parametrize("objective", [*OBJECTIVES, MaskCon(1.0), MaskCon(0.0)], ids=str)
def test_embeddings_have_the_gradient_of_differences(pairs, objective):
    assert torch.autograd.gradcheck(lambda v: loss_of(objective, replace(pairs, v=v)), (pairs.v,))


def test_the_weights_of_ancor_learn_classes_alone(pairs):
    weights, v = WEIGHTS.clone().requires_grad_(), pairs.v.detach()
    Ancor()(pairs, weights)[0].backward()
    (alone,) = torch.autograd.grad(cross_entropy(v @ weights.T, pairs.own.label), weights)
    assert torch.allclose(weights.grad, alone)


def test_without_another_photo_of_the_class_it_is_info_nce(pairs):
    strange = replace(pairs, bank=replace(pairs.bank, label=torch.full((L,), C)))
    for objective in (SupCon(0.3), MaskCon(1.0, 0.3), MaskCon(0.5, 0.3)):
        assert torch.allclose(loss_of(objective, strange), info_nce(strange, 0.3))
    assert float(Ancor().within_classes(strange, WEIGHTS).detach().abs().max()) < 1e-12
    assert torch.allclose(loss_of(MaskCon(0.0, 0.3), pairs), info_nce(pairs, 0.3))  # whatever the classes


def test_maskcon_of_equal_targets_is_supcon(pairs):
    assert torch.allclose(loss_of(MaskCon(1.0, 0.3, 1e9), pairs), loss_of(SupCon(0.3), pairs))
    sharp = MaskCon(1.0, 0.3, 1e-4).targets(pairs.own, pairs.bank.all())
    assert torch.allclose(sharp.sum(1), torch.ones(N, dtype=torch.float64))
    assert torch.allclose(sharp.max(1).values, torch.full((N,), 0.5, dtype=torch.float64))  # own and nearest


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_the_order_of_rows_and_keys_and_the_length_of_embeddings_do_not_matter(pairs, objective):
    def picked(keys, places):
        return Keys(*(part[places] for part in vars(keys).values()))

    generator = torch.Generator().manual_seed(0)
    rows, keys = torch.randperm(N, generator=generator), torch.randperm(L, generator=generator)
    mixed = Pairs(pairs.v[rows], picked(pairs.own, rows), picked(pairs.bank, keys))
    assert torch.allclose(loss_of(objective, mixed), loss_of(objective, pairs))
    if isinstance(objective, Ancor):
        longer = replace(pairs, v=3 * pairs.v)
        assert torch.allclose(objective.within_classes(longer, WEIGHTS), objective.within_classes(pairs, 2 * WEIGHTS))
    else:
        assert torch.allclose(loss_of(objective, replace(pairs, v=3 * pairs.v)), loss_of(objective, pairs))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_a_row_of_no_weight_is_not_there_and_keys_of_the_photo_itself_are_no_others(pairs, objective):
    some = Pairs(pairs.v[:3], Keys(*(part[:3] for part in vars(pairs.own).values())), pairs.bank)
    weighted = replace(pairs, weight=(torch.arange(N) < 3).double())
    assert torch.allclose(loss_of(objective, weighted), loss_of(objective, some))
    one = Pairs(pairs.v[:1], Keys(*(part[:1] for part in vars(pairs.own).values())), pairs.bank)
    without = replace(one, bank=Keys(*(part[1:] for part in vars(pairs.bank).values())))
    assert torch.allclose(loss_of(objective, one), loss_of(objective, without))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_with_nothing_to_compare_there_is_no_loss_of_the_views(pairs, objective):
    alone = replace(pairs, bank=Keys(*(part[:0] for part in vars(pairs.bank).values())))
    loss = loss_of(objective, alone)
    wrong = cross_entropy(pairs.v.detach() @ WEIGHTS.T, pairs.own.label) if isinstance(objective, Ancor) else 0.0
    assert float(loss.detach()) == pytest.approx(float(wrong), abs=1e-12)
    loss.backward()
    assert bool(pairs.v.grad.isfinite().all())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("supcon", {"temperature": 0.0}, "temperature of 0"),
        ("ancor", {"temperature": math.inf}, "temperature of inf"),
        ("maskcon", {"target_temperature": -1.0}, "temperature of -1"),
        ("maskcon", {"target_weight": 1.5}, "weight of 1.5 is out of range. Give a share from 0 to 1"),
    ],
)
def test_what_is_out_of_range_is_refused(name, options, said):
    with pytest.raises(UsageError, match=said):
        find(PAIR_OBJECTIVES, name).from_options(**options)
