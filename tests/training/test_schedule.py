"""Learning rates: those of torch's schedulers, as a function of the step alone."""

import math
import random
import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from mixtura.errors import UnknownName, UsageError
from mixtura.training.schedule import SCHEDULES, Schedule, layer_factors


def rates(make, count):
    """The learning rate at each step of a scheduler of torch, from 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SequentialLR passes an epoch, which torch itself has deprecated
            scheduler.step()
    return found


def factors(schedule, count):
    return [schedule.factor(step) for step in range(count)]


PAIRS = {
    "step": (Schedule("step", step=7, gamma=0.3), lambda o: lr_scheduler.StepLR(o, 7, 0.3)),
    "milestones": (
        Schedule("milestones", milestones=(5, 6, 20)),
        lambda o: lr_scheduler.MultiStepLR(o, [5, 6, 20], 0.1),
    ),
    "cosine": (Schedule("cosine", period=10), lambda o: lr_scheduler.CosineAnnealingLR(o, 10)),
    "restarts": (Schedule("restarts", period=10), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10)),
    "constant": (Schedule("constant"), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_factors_are_those_of_torch(name):
    schedule, make = PAIRS[name]
    assert factors(schedule, 45) == pytest.approx(rates(make, 45), abs=1e-12)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("warmup", [1, 4])
def test_a_warmup_is_linear_and_comes_before(name, warmup):
    plain, make = PAIRS[name]
    schedule = Schedule(**(vars(plain) | {"warmup": warmup}))

    def warm(optimizer):
        linear = lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=max(1, warmup - 1))
        return lr_scheduler.SequentialLR(optimizer, [linear, make(optimizer)], [warmup])

    assert factors(schedule, 45) == pytest.approx(rates(warm, 45), abs=1e-12)


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_a_plateau_is_that_of_torch(patience):
    """ReduceLROnPlateau falls after more than ``patience`` epochs without a gain; here ``step`` counts them."""
    generator = random.Random(patience)
    losses = [generator.choice([1.0, 0.9, 0.8, 1 / (1 + epoch), math.nan]) for epoch in range(40)]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, threshold=0, eps=0)
    schedule = Schedule("plateau", steps_per_epoch=3, step=patience + 1, gamma=0.5)
    for epoch, loss in enumerate(losses):
        for step in range(3 * epoch, 3 * epoch + 3):
            expected = optimizer.param_groups[0]["lr"]
            assert schedule.factor(step, losses[:epoch]) == expected == schedule.factor(step, losses)
        scheduler.step(loss)
    assert optimizer.param_groups[0]["lr"] < 0.1


@pytest.mark.parametrize("name", ["cosine", "restarts"])
def test_a_period_follows_from_the_length_of_the_training(name):
    plain = Schedule(name, steps_per_epoch=10, epochs=25, warmup=1, cycles=3)
    assert factors(plain, 250) == pytest.approx(factors(Schedule(name, 10, period=8, warmup=1), 250), abs=1e-12)
    assert plain.depends_on_epochs and not Schedule(name, 10, 25, period=8).depends_on_epochs
    whole = factors(Schedule(name, steps_per_epoch=10, epochs=25), 250)
    assert whole == sorted(whole, reverse=True) and whole[0] == 1 and 0 < whole[-1] < 1e-3


def test_a_step_counts_in_epochs_of_any_number_of_steps():
    """Also where floats do not hit the boundary: 0.3 / 0.1 is below 3."""
    coarse, fine = Schedule("step", 1, step=3, gamma=0.5), Schedule("step", 10, step=3, gamma=0.5)
    assert factors(fine, 120)[::10] == factors(coarse, 12)
    assert factors(Schedule("step", 10, step=0.1, gamma=0.5), 8) == [0.5**k for k in range(8)]
    tenth = Schedule("restarts", 10, period=0.3)
    assert factors(tenth, 30) == pytest.approx([tenth.factor(k % 3) for k in range(30)], abs=1e-6)


def test_the_rate_of_a_step_does_not_depend_on_the_way_there():
    for schedule, _ in PAIRS.values():
        expected = factors(schedule, 30)
        assert [schedule.factor(step) for step in reversed(range(30))] == expected[::-1]


def test_layers_have_rates_that_fall_towards_the_input():
    assert layer_factors(4, 0.5) == (0.125, 0.25, 0.5, 1.0)
    assert layer_factors(3, 1.0) == (1.0, 1.0, 1.0)
    for decay in (0.0, 1.1, math.nan):
        with pytest.raises(UsageError, match="layer decay"):
            layer_factors(3, decay)


def test_what_a_schedule_needs_is_said():
    assert {name for name in SCHEDULES if SCHEDULES[name].uses_losses} == {"plateau"}
    assert Schedule("plateau", step=2).uses_losses and not Schedule("plateau", step=2).depends_on_epochs
    with pytest.raises(UsageError, match="needs 2 validation losses, and there are 1"):
        Schedule("plateau", step=2).factor(2, [0.1])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"name": "cosine"}, "needs a period or the number of epochs"),
        ({"name": "step"}, "needs step, in epochs"),
        ({"name": "milestones"}, "needs milestones"),
        ({"name": "plateau"}, "needs step"),
        ({"name": "step", "step": 0}, "step of the schedule 'step' is 0"),
        ({"name": "step", "step": math.inf}, "is inf"),
        ({"name": "step", "step": 1, "gamma": -1.0}, "gamma"),
        ({"name": "step", "step": 1, "period": 3}, "has no period. Its keys: step, gamma"),
        ({"name": "constant", "gamma": 0.1}, "Its keys: none but warmup"),
        ({"name": "milestones", "milestones": (3, 2)}, "out of order"),
        ({"name": "milestones", "milestones": (-1, 2)}, "numbers above 0"),
        ({"name": "constant", "warmup": -1}, "warmup of -1"),
        ({"name": "constant", "warmup": math.nan}, "warmup of nan"),
        ({"name": "constant", "steps_per_epoch": 0}, "0 steps"),
    ],
)
def test_what_cannot_be_is_refused(keys, said):
    with pytest.raises(UsageError, match=said):
        Schedule(**keys)


def test_an_unknown_schedule_lists_the_nearest():
    with pytest.raises(UnknownName, match="cosine"):
        Schedule("cosin")
