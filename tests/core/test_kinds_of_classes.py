"""Kinds within classes: one Gaussian stays whole, separated kinds are found, and nothing depends on the order."""

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from mixtura.core.subclasses import held_out, one_gaussian, search, spaces, stability
from mixtura.core.subclasses.search import Rules, kinds_of
from mixtura.core.subclasses.tied_mixtures import Problems, fit, seeds


def draw(sizes, apart=8.0, dimension=24, seed=0):
    """Rows of classes, a list of kind sizes for each; all kinds of a class are equally far apart."""
    generator = torch.Generator().manual_seed(seed)
    spread = (1 + torch.arange(dimension)).pow(-0.25)
    x, labels, kinds = [], [], []
    for c, parts in enumerate(sizes):
        axes = torch.linalg.qr(torch.randn(dimension, len(parts), generator=generator))[0].T
        middle = 3 * torch.randn(dimension, generator=generator)
        for k, n in enumerate(parts):
            x.append(torch.randn(n, dimension, generator=generator) * spread + middle + apart / 2**0.5 * axes[k])
            labels += [c] * n
            kinds += [k] * n
    return torch.cat(x), torch.tensor(labels), torch.tensor(kinds)


def found_in(x, labels, groups=None, rules=Rules()):  # noqa: B008 - a frozen value
    groups = torch.arange(len(x)) if groups is None else groups
    rows = spaces.class_rows(x, labels, groups, int(labels.max()) + 1)
    return [(own, kinds_of(own, rules)) for own in rows]


def whole_labels(found, count):
    label = torch.full((count,), -1)
    for own, answer in found:
        label[own.row] = answer.kind
    return label


def test_one_gaussian_is_one_kind():
    x, labels, _ = draw([[60]] * 100)
    assert sum(answer.count == 1 for _, answer in found_in(x, labels)) >= 95


def test_separated_kinds_are_found():
    sizes = [[30, 30], [25, 25, 25], [20, 60], [20] * 4, [60], [15, 15, 15]]
    x, labels, kinds = draw(sizes)
    found = found_in(x, labels, rules=Rules(draws=99))
    assert [answer.count for _, answer in found] == [len(parts) for parts in sizes]
    for own, answer in found:
        pairs = set(zip(kinds[own.row].tolist(), answer.kind.tolist(), strict=True))
        assert len(pairs) == answer.count  # each kind found is one that is there
        sizes_found = torch.bincount(answer.kind).tolist()
        assert sizes_found == sorted(sizes_found, reverse=True)
        assert answer.reason == (search.SPLIT if answer.count > 1 else search.ONE_IS_LIKELIER)
        assert answer.count == 1 or (min(answer.stability) > 0.9 and answer.p_value == 1 / 100)


def test_every_count_is_tried():
    """Three kinds in an equilateral triangle: two kinds are hardly likelier than one, and the search goes on."""
    x, labels, _ = draw([[25, 25, 25]])
    ((own, answer),) = found_in(x, labels, rules=Rules(draws=19, level=0.05))
    assert len(answer.gain) == search.most_kinds(own, Rules()) - 1 == 6
    assert answer.count == answer.likeliest == 3
    assert max(range(6), key=lambda i: answer.gain[i]) == 1


def test_rows_of_one_group_do_not_judge_each_other():
    """Twelve products of one kind, twelve pictures each: apart, the pictures of a product look like a kind."""
    middle, labels, _ = draw([[12]], dimension=8)
    group = torch.arange(12).repeat_interleave(12)
    x = middle[group] + 0.05 * torch.randn(144, 8, generator=torch.Generator().manual_seed(1))
    labels = labels[group]
    ((_, together),), ((_, apart),) = (found_in(x, labels, own, Rules(draws=19)) for own in (group, None))
    assert together.count == 1 < apart.likeliest
    rows = spaces.class_rows(x, labels, group, 1)[0]
    fold = held_out.folds_of(rows.unit)[rows.row.argsort()]
    assert len(set(zip(group.tolist(), fold.tolist(), strict=True))) == 12


def test_neither_the_order_of_rows_nor_the_numbers_of_classes_matter():
    x, labels, _ = draw([[30, 30], [40], [20, 20, 20]])
    rules = Rules(draws=39, level=0.03)
    kind = whole_labels(found_in(x, labels, rules=rules), len(x))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    turned = whole_labels(found_in(x[order], torch.tensor([2, 0, 1])[labels[order]], rules=rules), len(x))
    assert torch.equal(turned, kind[order]) and int(kind.max()) == 2


def test_classes_that_cannot_be_judged_stay_whole():
    x, labels, _ = draw([[19], [40], [1], [30]])
    group = torch.arange(len(x))
    group[labels == 1] = 1000 + torch.arange(40) // 5  # eight products
    found = [answer for _, answer in found_in(x, labels, group)]
    assert [answer.reason for answer in found][:3] == [search.FEW_ROWS] * 3
    assert [answer.count for answer in found] == [1, 1, 1, 1]
    same = found_in(torch.ones(40, 5), torch.zeros(40, dtype=torch.int64))[0][1]
    assert same.reason == search.FEW_ROWS


def test_a_count_that_is_asked_for_is_kept_and_checked():
    x, labels, _ = draw([[60], [40, 40], [25]])
    rows = spaces.class_rows(x, labels, torch.arange(len(x)), 3)
    one, two, few = [kinds_of(own, Rules(), 3) for own in rows]
    assert one.count == two.count == 3 and one.reason == search.ASKED and len(one.stability) == 3
    assert one.p_value > 0.2 and two.p_value <= 0.05
    assert few.count == 1 and few.reason == search.FEW_ROWS


def test_samples_of_one_gaussian_have_the_moments_of_the_rows():
    x, _, _ = draw([[20, 20]], dimension=3)
    x = x - x.mean(0)
    for unit in (torch.arange(40), torch.arange(40) // 2):
        drawn = one_gaussian.samples(x, unit, 5, torch.Generator().manual_seed(0)).double()
        torch.testing.assert_close(drawn.mean(1), torch.zeros(5, 3, dtype=torch.float64), atol=1e-5, rtol=0)
        scatter = (x.double().T @ x.double()).expand(5, 3, 3)
        torch.testing.assert_close(drawn.mT @ drawn, scatter, atol=1e-2, rtol=1e-4)
    twins = torch.arange(20).repeat_interleave(2)
    close = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))[twins]
    close = close - close.mean(0)
    drawn = one_gaussian.samples(close, twins, 5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn[:, ::2], drawn[:, 1::2], atol=1e-4, rtol=0)  # equal rows stay equal


def test_p_values_are_uniform_under_one_gaussian():
    """Of rows of any one Gaussian, the gain of two kinds exceeds that of its draws as often as a rank would."""
    fold, least = torch.arange(30) % 5, 0

    def gain(x, seed=0):
        return held_out.trials(x, fold, (2,), least, torch.Generator().manual_seed(seed))[0].gain

    generator, p_values = torch.Generator().manual_seed(5), []
    mix = torch.randn(3, 3, generator=generator)
    for trial in range(100):
        x = torch.randn(30, 3, generator=generator) @ mix
        x = x - x.mean(0)
        drawn = one_gaussian.draws_reaching(x, torch.arange(30), float(gain(x[None])), lambda y: gain(y, 1), 19, trial)
        p_values.append(one_gaussian.p_value(drawn, 19, 19))
    p = torch.tensor(p_values)
    for level in (0.1, 0.25, 0.5, 0.75):  # within four standard errors of a share of 100
        assert abs(float((p <= level + 1e-9).double().mean()) - level) < 4 * math.sqrt(level * (1 - level) / 100)


def test_drawing_stops_after_enough_samples():
    asked = []
    flags = (asked.append(one) or one for one in [False, True, False, True, True])
    assert one_gaussian.p_value(flags, 199, 2) == 0.5 and len(asked) == 4


def test_mixtures_are_those_of_torch():
    x, _, _ = draw([[20, 15, 25]], dimension=4)
    x = x - x.mean(0)
    weight = torch.ones(2, 60)
    weight[1, ::3] = 0
    generator = torch.Generator().manual_seed(0)
    made = fit(Problems.of(x[None], weight), seeds(x[None], weight.repeat(4, 1), 3, generator))
    for p in range(2):
        normal = MultivariateNormal(made.mean[0, p], precision_matrix=made.precision[0, p])
        oracle = MixtureSameFamily(Categorical(logits=made.log_weight[0, p]), normal)
        torch.testing.assert_close(made.log_prob(x[None])[0, p], oracle.log_prob(x), atol=1e-3, rtol=1e-4)
        mine = weight[p] > 0
        own = float(oracle.log_prob(x[mine]).mean()) + 2 * math.log(2 * math.pi)
        assert float(made.log_likelihood[0, p]) == pytest.approx(own, abs=1e-3)
    changed = x.clone()
    changed[::3] += 5  # rows of weight zero are not learned from
    again = fit(Problems.of(changed[None], weight[1:]), seeds(x[None], weight[1:].repeat(4, 1), 3, generator)[:, :4])
    assert float(again.log_likelihood[0, 0]) == pytest.approx(float(made.log_likelihood[0, 1]), abs=0.2)


def test_starts_are_rows_of_the_problem():
    x = torch.randn(3, 30, 2, generator=torch.Generator().manual_seed(0))
    weight = torch.zeros(2, 30)
    weight[0, :10], weight[1, 10:] = 1, 1
    chosen = seeds(x, weight, 5, torch.Generator().manual_seed(0))
    assert (chosen[:, 0] < 10).all() and (chosen[:, 1] >= 10).all()
    assert all(len(set(one.tolist())) == 5 for one in chosen.flatten(0, 1))


def test_jaccard_is_that_of_sets():
    generator = torch.Generator().manual_seed(0)
    kind, halves = torch.randint(3, (40,), generator=generator), torch.randint(4, (7, 40), generator=generator)
    weight = (torch.rand(7, 40, generator=generator) < 0.5).float()
    expected = []
    for k in range(3):
        best = []
        for half, own in zip(halves.tolist(), weight.tolist(), strict=True):
            mine = {i for i in range(40) if own[i] and kind[i] == k}
            others = [{i for i in range(40) if own[i] and half[i] == j} for j in range(4)]
            best.append(max(len(mine & other) / len(mine | other) for other in others))
        expected.append(sorted(best)[3])
    assert stability.jaccard(kind, halves, weight, 3).tolist() == pytest.approx(expected)


def test_halves_keep_units_together():
    unit = torch.arange(30) // 3
    weight = stability.half_samples(unit, 20, torch.Generator().manual_seed(0))
    assert (weight.sum(1) == 15).all()
    assert all(len(set(one[unit == u].tolist())) == 1 for one in weight for u in range(10))


def test_leading_axes_are_those_of_the_decomposition():
    x = torch.randn(300, 90, generator=torch.Generator().manual_seed(0)) * (1 + torch.arange(90)).pow(-0.7)
    x = x - x.mean(0)
    exact = torch.linalg.svd(x, full_matrices=False)[2][:8]
    assert (exact @ spaces.leading_axes(x, 8)).diagonal().abs().min() > 0.999
    narrow = x[:, :10] - x[:, :10].mean(0)
    basis = spaces.leading_axes(narrow, 10)
    torch.testing.assert_close(basis @ basis.T, torch.eye(10), atol=1e-4, rtol=0)
    assert [spaces.axes_for(n) for n in (10, 64, 100, 10_000)] == [2, 4, 6, 32]
