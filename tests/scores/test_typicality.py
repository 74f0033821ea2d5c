"""Laws of typicality: the stated false-reject rate holds, and more known never means less typical."""

import math
from dataclasses import replace

import pytest
import torch

from mixtura.errors import LabelError
from mixtura.scores.typicality import FAR_SPREADS, MIN_HELD_OUT, POOLED_ITEMS, Typicality, limits

ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def draw(count, generator, classes=8):
    """Exchangeable rows: classes of unequal size whose scores lie and spread differently."""
    share = torch.arange(1.0, classes + 1)
    predicted = torch.multinomial(share, count, replacement=True, generator=generator)
    noise = torch.randn(2, count, generator=generator, dtype=torch.float64)
    log_density = 5.0 * predicted + (1 + predicted % 3) * noise[0] - 40
    return log_density, log_density + 3 * noise[1] - predicted, predicted


def fitted(count, seed, classes=8):
    generator = torch.Generator().manual_seed(seed)
    return Typicality.fit(*draw(count, generator, classes)), generator


def of(typicality, log_density, background, predicted):
    return typicality(typicality.score(log_density, background), predicted)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("classes", [1, 2, 8, 100])
def test_genuine_items_are_rejected_at_the_stated_rate(seed, classes):
    held, new = 4000, 20_000
    typicality, generator = fitted(held, seed, classes)
    values = of(typicality, *draw(new, generator, classes))
    for alpha in ALPHAS:
        sigma = math.sqrt(alpha * (1 - alpha) * (1 / held + 1 / new))
        assert abs(float((values < alpha).double().mean()) - alpha) < 3 * sigma, alpha


@pytest.mark.parametrize("held", [3, 12, 30])
def test_the_rate_holds_with_a_handful_of_held_out_items(held):
    """One new item for each of many calibrations: with few items the rate may be below the stated one, never above."""
    generator = torch.Generator().manual_seed(held)
    rounds = 800
    values = []
    for _ in range(rounds):
        typicality = Typicality.fit(*draw(held, generator, 4))
        values.append(float(of(typicality, *draw(1, generator, 4))))
    for alpha in (0.1, 0.25, 0.5):
        sigma = math.sqrt(alpha * (1 - alpha) / rounds)
        attainable = (math.ceil(alpha * (held + 1)) - 1) / (held + 1)  # values are multiples of 1 / (held + 1)
        rate = sum(value < alpha for value in values) / rounds
        assert rate < alpha + 3 * sigma
        assert rate > attainable - 3 * sigma - 1 / (held + 1)


def test_a_large_class_has_the_stated_rate_of_its_own():
    held, new, alpha = 6000, 20_000, 0.1
    typicality, generator = fitted(held, 0, 3)
    log_density, background, predicted = draw(new, generator, 3)
    values = of(typicality, log_density, background, predicted)
    for c in range(3):
        rows = predicted == c
        own = int((typicality.predicted == c).sum())
        sigma = math.sqrt(alpha * (1 - alpha) * (1 / own + 1 / int(rows.sum())))
        assert abs(float((values[rows] < alpha).double().mean()) - alpha) < 3 * sigma + 0.02


@pytest.mark.parametrize("held", [2, 5, 300])
def test_values_are_probabilities_and_never_zero(held):
    typicality, _ = fitted(held, 4)
    extremes = torch.tensor([-math.inf, -1e30, -1.0, 0.0, 1.0, 1e30, math.inf], dtype=torch.float64)
    for c in range(8):
        values = typicality(extremes, torch.full((7,), c))
        assert (values > 0).all()
        assert (values <= 1).all()
        assert float(values[0]) <= 5 / (held + 1)
        assert float(values[-1]) == 1.0


@pytest.mark.parametrize("small", [0, 1, 2, 10, 50])
def test_what_lies_below_everything_can_be_rejected_in_a_class_of_any_size(small):
    generator = torch.Generator().manual_seed(small)
    predicted = torch.tensor([0] * small + [1] * 1000)
    log_density, background, _ = draw(len(predicted), generator)
    typicality = Typicality.fit(log_density, background, predicted)
    far = typicality(torch.tensor([-1e9]).double(), torch.tensor([0]))
    assert float(far) < 0.005


@pytest.mark.parametrize("held", [2, 7, 500])
def test_more_known_is_never_less_typical(held):
    typicality, _ = fitted(held, 5)
    scores = torch.linspace(-12, 6, 2000, dtype=torch.float64)
    for c in range(8):
        assert (typicality(scores, torch.full((2000,), c)).diff() >= 0).all()


def test_the_score_rises_with_the_density_and_falls_with_the_background():
    typicality, generator = fitted(200, 6)
    log_density, background, _ = draw(100, generator)
    here = typicality.score(log_density, background)
    assert (typicality.score(log_density + 1, background) > here).all()
    assert (typicality.score(log_density, background + 1) <= here).all()


def test_scale_and_shift_of_the_evidence_change_nothing():
    """Only ranks matter: nats or bits, one offset or another."""
    generator = torch.Generator().manual_seed(7)
    held, new = draw(150, generator), draw(50, generator)
    plain = of(Typicality.fit(*held), *new)
    bits = [(3.7 * rows[0] + 11, 3.7 * rows[1] + 11, rows[2]) for rows in (held, new)]
    torch.testing.assert_close(of(Typicality.fit(*bits[0]), *bits[1]), plain, rtol=0, atol=1e-12)


def test_the_order_of_held_out_items_changes_nothing():
    generator = torch.Generator().manual_seed(8)
    held, new = draw(150, generator), draw(50, generator)
    order = torch.randperm(150, generator=generator)
    again = Typicality.fit(*(column[order] for column in held))
    assert torch.equal(of(again, *new), of(Typicality.fit(*held), *new))


def test_a_class_without_held_out_items_is_judged_by_all():
    typicality, _ = fitted(100, 9, classes=3)
    scores = torch.linspace(-4, 4, 9, dtype=torch.float64)
    pooled = typicality.pooled(scores)
    values = typicality(scores, torch.full((9,), 77))
    assert (values.diff() >= 0).all()
    assert (values - pooled).abs().max() < 0.2


def test_equal_scores_are_equally_and_fully_typical():
    same = torch.zeros(10, dtype=torch.float64)
    typicality = Typicality.fit(same, same, torch.arange(10) % 2)
    values = of(typicality, torch.tensor([0.0, -1.0]).double(), torch.zeros(2).double(), torch.tensor([0, 1]))
    assert float(values[0]) == 1.0
    assert float(values[1]) == pytest.approx(1 / 11)


def test_many_ties_keep_the_rate_below_the_stated_one():
    generator = torch.Generator().manual_seed(10)

    def coarse(count):
        log_density, background, predicted = draw(count, generator, 3)
        return (log_density / 8).round(), (background / 8).round(), predicted

    typicality = Typicality.fit(*coarse(2000))
    values = of(typicality, *coarse(10_000))
    for alpha in ALPHAS:
        assert float((values < alpha).double().mean()) < alpha + 3 * math.sqrt(alpha * (1 - alpha) * (1 / 2000 + 1e-4))


def test_what_lies_far_from_everything_is_told_by_the_plain_evidence():
    """Where classes and background fall together, their ratio says nothing: the second part decides."""
    typicality, generator = fitted(500, 11)
    log_density, background, predicted = draw(500, generator)
    near, lifted = typicality.parts(log_density - 1000, background - 1000)
    assert (lifted < near).all()
    assert torch.equal(typicality.score(log_density - 1000, background - 1000), lifted)
    assert float(of(typicality, log_density - 1000, background - 1000, predicted).max()) < 0.01
    here, there = typicality.parts(log_density, background)
    assert float((there < here).double().mean()) < 0.2
    assert FAR_SPREADS > 0


def test_a_density_that_is_no_number_any_more_is_the_least_typical():
    typicality, _ = fitted(50, 12)
    gone = torch.tensor([-math.inf, math.nan], dtype=torch.float64)
    values = of(typicality, gone, torch.tensor([-math.inf, 0.0], dtype=torch.float64), torch.tensor([0, 1]))
    assert max(values.tolist()) <= 2 / 51


@pytest.mark.parametrize("count", range(MIN_HELD_OUT))
def test_too_few_held_out_items_are_refused(count):
    rows = torch.zeros(count, dtype=torch.float64)
    with pytest.raises(LabelError, match=f"Only {count} items can be held out"):
        Typicality.fit(rows, rows, torch.zeros(count, dtype=torch.int64))


def test_state_gives_the_same_bits_back():
    typicality, generator = fitted(300, 13)
    rows = draw(200, generator)
    again = Typicality(**{name: tensor.clone() for name, tensor in typicality.state().items()})
    assert torch.equal(of(again, *rows), of(typicality, *rows))


def test_single_precision_input_is_judged_in_double():
    typicality, generator = fitted(300, 14)
    log_density, background, predicted = draw(50, generator)
    low = of(typicality, log_density.float(), background.float(), predicted)
    assert low.dtype == torch.float64
    torch.testing.assert_close(low, of(typicality, log_density, background, predicted), rtol=0, atol=0.01)


@pytest.mark.parametrize("classes", [1, 7, 200])
def test_ranks_of_all_classes_at_once_are_those_of_each_in_turn(classes):
    generator = torch.Generator().manual_seed(classes)
    draw = lambda n: torch.randn(n, generator=generator, dtype=torch.float64).round(decimals=1)  # noqa: E731
    label = lambda n: torch.randint(classes, (n,), generator=generator)  # noqa: E731
    fitted = replace(Typicality.fit(torch.zeros(300), draw(300), label(300)), stand_in=draw(40), stand_for=label(40))
    score, predicted = draw(50), label(50)
    blended = []
    for s, c in zip(score, predicted, strict=True):
        own = torch.cat([fitted.scores[fitted.predicted == c], fitted.stand_in[fitted.stand_for == c]])
        pooled = (1 + (fitted.scores <= s).sum()) / (1 + len(fitted.scores))
        blended.append(((own <= s).sum() + POOLED_ITEMS * pooled) / (len(own) + POOLED_ITEMS))
    others = []
    for i, (s, c) in enumerate(zip(fitted.scores, fitted.predicted, strict=True)):
        left = torch.arange(len(fitted.scores)) != i
        own = fitted.scores[left & (fitted.predicted == c)]
        pooled = (fitted.scores <= s).sum() / len(fitted.scores)
        others.append(((own <= s).sum() + POOLED_ITEMS * pooled) / (len(own) + POOLED_ITEMS))
    held = torch.stack(others).double()
    expected = [(1 + int((held <= t).sum())) / (1 + len(held)) for t in torch.stack(blended).double()]
    assert fitted(score, predicted).tolist() == pytest.approx(expected, abs=1.01 / len(held))  # ties by rounding


@pytest.mark.parametrize("count", [20, 72, 1000])
@pytest.mark.parametrize("copies", [1, 3])
def test_rounding_changes_no_rank_of_a_calibration_item(count, copies):
    """Batches of another size change the last digits of a score; some items are there more than once."""
    generator = torch.Generator().manual_seed(count)
    rows = [column.repeat(copies) for column in draw(count, generator, 3)]
    rounding = lambda: 1e-5 * torch.randn(copies * count, generator=generator, dtype=torch.float64)  # noqa: E731
    typicality = Typicality.fit(rows[0] + rounding(), *rows[1:])
    again = [of(typicality, rows[0] + rounding(), *rows[1:]) for _ in range(5)]
    assert all(torch.equal(one, again[0]) for one in again)


def test_limits_are_below_their_scores_and_ties_have_one():
    held = torch.tensor([-math.inf, -math.inf, 0.0, 1e-9, 1.0, 1.001, 5.0], dtype=torch.float64)
    found = limits(held)
    assert found[0] == found[1] == -math.inf
    assert found[2] == found[3]
    assert (found[2:] < held[2:]).all()
    assert (found[4:] > held[3:-1]).all()
    assert (held[2:] - found[2:]).max() < 1e-3
    assert len(limits(held[:0])) == 0


@pytest.mark.parametrize("held", [2, 3, 5, 19])
@pytest.mark.parametrize("kind", ["normal", "exponential", "squares"])
def test_few_genuine_items_lie_beyond_everything(held, kind):
    """Also where the spread of a handful of held-out items is small by chance."""
    generator, rounds = torch.Generator().manual_seed(held), 3000
    noise = torch.randn(rounds, held + 1, generator=generator, dtype=torch.float64)
    drawn = {"normal": 10 * noise, "exponential": -20 * noise.abs(), "squares": -20 * noise.square()}[kind]
    beyond = [
        bool(Typicality.fit(rows[1:], torch.zeros(held), torch.zeros(held).long()).beyond(rows[:1])) for rows in drawn
    ]
    assert sum(beyond) / rounds < 0.01


@pytest.mark.parametrize("held", [2, 3, 19, 500])
def test_what_lies_beyond_everything_is_so_with_any_number_of_held_out_items(held):
    typicality, generator = fitted(held, held)
    log_density, background, _ = draw(100, generator)
    assert not typicality.beyond(log_density).any()
    least = float(typicality.scores[0].clamp_max(-1))
    down = 2000 * abs(least) * float(typicality.spread[1].clamp_min(1))
    gone = torch.tensor([-math.inf, math.nan])
    for rows in (log_density - down, log_density - 1e12, gone):
        assert typicality.beyond(rows).all()
        assert typicality.far(rows, background[: len(rows)]).all()
