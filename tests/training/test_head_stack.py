"""Training: never below the start, no dead classes, one batch for several seeds, an end with a sentence."""

import copy
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn

from mixtura.core.covariance import Prior
from mixtura.errors import NonFinite, UsageError
from mixtura.heads.gaussian import GaussianHead
from mixtura.heads.linear import LinearHead
from mixtura.heads.online import OnlineGaussianHead
from mixtura.heads.sdgm import SDGMHead
from mixtura.heads.vmf import VonMisesFisherHead
from mixtura.objectives.classification import Conditional, Hybrid, LargeMargin
from mixtura.sections import FitSection
from mixtura.training.head_stack import train
from mixtura.training.optimizers import OPTIMIZERS
from mixtura.training.records import Hyperparameters, TrainingData
from mixtura.training_sections import TrainSection


def classes(n_classes=10, d=16, each=40, distance=1.0, length=None, seed=0):
    """Isotropic classes; ``length`` scales all rows to unit or other norm."""
    generator = torch.Generator().manual_seed(seed)
    means = distance * torch.randn(n_classes, d, generator=generator)
    labels = torch.arange(n_classes * each) % n_classes
    x = means[labels] + torch.randn(len(labels), d, generator=generator)
    return (x if length is None else length * nn.functional.normalize(x)), labels


def halves(x, labels):
    """The even half learns and the odd half judges; both have all classes, since labels run in turns."""
    order = torch.arange(len(x)) // int(labels.max() + 1) % 2 == 0
    return TrainingData(x[order], labels[order], x[~order], labels[~order])


SCENARIOS = {
    "unit norm, 100 classes in 128 dimensions": {"n_classes": 100, "d": 128, "each": 20, "length": 1.0},
    "unit norm, 100 classes in 164 dimensions, closer": {
        "n_classes": 100,
        "d": 164,
        "each": 20,
        "distance": 0.5,
        "length": 1.0,
    },
    "norm 10, 10 close classes in 768 dimensions": {
        "n_classes": 10,
        "d": 768,
        "each": 80,
        "distance": 0.1,
        "length": 10.0,
    },
}
"""Where the published training of DGMMC loses classes for good (spec, defect D1)."""


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("rate", [1e-3, 1e-2])
def test_no_class_dies_and_the_start_is_never_lost(name, rate):
    rows = halves(*classes(**SCENARIOS[name]))
    head = GaussianHead.from_rows(rows.x, rows.labels, SCENARIOS[name]["n_classes"])
    trained = train([head], [rows], Conditional(), Hyperparameters(epochs=8, batch_size=64, learning_rate=rate))[0]
    first, best = trained.epochs[0], trained.epochs[trained.best]
    assert best.val_nll <= first.val_nll
    assert all(epoch.dead <= first.dead for epoch in trained.epochs)
    assert best.dead == 0 or first.val_accuracy < 0.5  # where classes overlap most, chance alone may miss one
    variance = trained.head.mixture().covariance.variance.detach()
    assert float(variance.max() / variance.min()) < 50  # none ran away to the floor or the ceiling


def test_training_beats_its_start_where_the_closed_form_is_wrong():
    x, labels = classes(4, 6, each=200, seed=1)
    x = x * torch.tensor([1.0, 1, 1, 6, 6, 6])  # unequal scales, which spheres cannot see
    rows = halves(x, labels)
    head = GaussianHead.from_rows(rows.x, rows.labels, 4)
    trained = train([head], [rows], Conditional(), Hyperparameters(epochs=20, batch_size=64, learning_rate=1e-2))[0]
    assert trained.epochs[trained.best].val_nll < trained.epochs[0].val_nll - 0.03
    assert trained.best > 0


def test_the_head_that_comes_back_is_the_one_of_the_best_epoch():
    rows = halves(*classes(5, 8))
    head = GaussianHead.from_rows(rows.x, rows.labels, 5, family="full", prior=Prior(20.0))
    before = copy.deepcopy(head.state_dict())
    trained = train([head], [rows], Conditional(), Hyperparameters(epochs=6, batch_size=32, learning_rate=0.05))[0]
    loss = nn.functional.nll_loss(trained.head(rows.val_x), rows.val_labels)
    assert float(loss.detach()) == pytest.approx(min(epoch.val_nll for epoch in trained.epochs), abs=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_no_epochs_give_the_start():
    rows = halves(*classes(3, 4))
    head = GaussianHead.from_rows(rows.x, rows.labels, 3)
    trained = train([head], [rows], Conditional(), Hyperparameters(epochs=0))[0]
    assert trained.best == 0 and len(trained.epochs) == 1
    assert torch.equal(trained.head(rows.x), head(rows.x))


@pytest.mark.parametrize("family", ["spherical", "diagonal", "lowrank", "tied", "full"])
def test_seeds_trained_together_end_as_they_would_alone(family):
    rows = [halves(*classes(4, 6, seed=seed)) for seed in (0, 1, 2)]
    heads = [
        GaussianHead.from_rows(own.x, own.labels, 4, family=family, rank=2, prior=Prior(10.0)).double() for own in rows
    ]
    rows = [
        TrainingData(own.x.double(), own.labels, own.val_x.double(), own.val_labels, 7 + i)
        for i, own in enumerate(rows)
    ]
    settings = Hyperparameters(epochs=3, batch_size=32)
    together = train(heads, rows, Conditional(), settings)
    for i, (head, own) in enumerate(zip(heads, rows, strict=True)):
        alone = train([head], [own], Conditional(), settings)[0]
        assert alone.best == together[i].best
        torch.testing.assert_close(together[i].head(own.val_x), alone.head(own.val_x), rtol=1e-8, atol=1e-8)


def test_what_is_frozen_stays_in_a_stack_and_the_rest_learns():
    rows = [halves(*classes(3, 5, seed=seed)) for seed in (0, 1)]
    heads = [GaussianHead.from_rows(own.x, own.labels, 3, freeze=("spread", "prior")) for own in rows]
    for head, own in zip(heads, rows, strict=True):
        with torch.no_grad():
            head.mean.add_(torch.randn(head.mean.shape, generator=torch.Generator().manual_seed(own.seed)))
    for head, trained in zip(heads, train(heads, rows, Conditional(), Hyperparameters(epochs=3)), strict=True):
        before, after = head.state_dict(), trained.head.state_dict()
        assert trained.best > 0 and not torch.equal(before["mean"], after["mean"])
        assert all(torch.equal(before[name], after[name]) for name in ("free.log_variance", "prior_logit"))


def test_chance_is_drawn_anew_in_every_step_and_is_the_same_in_any_company():
    rows = [halves(*classes(3, 5, seed=0))] * 2
    heads = [GaussianHead.from_rows(rows[0].x, rows[0].labels, 3)] * 2

    def noisy(head, x, labels, weight):
        return 0.0 * head(x).sum() + torch.randn(())

    done = train(heads, rows, noisy, Hyperparameters(epochs=3)) + train(
        heads[:1], rows[:1], noisy, Hyperparameters(epochs=3)
    )
    losses = [[epoch.loss for epoch in one.epochs[1:]] for one in done]
    assert losses[0] == losses[1] == pytest.approx(losses[2]) and len(set(losses[0])) == 3


def test_sdgm_ends_as_it_would_alone():
    rows = [halves(*classes(4, 6, seed=seed)) for seed in (0, 1, 2)]
    heads = [SDGMHead.from_rows(own.x, own.labels, 4).double() for own in rows]
    rows = [
        TrainingData(own.x.double(), own.labels, own.val_x.double(), own.val_labels, 7 + i)
        for i, own in enumerate(rows)
    ]
    together = train(heads, rows, Conditional(), Hyperparameters(epochs=3, batch_size=32))
    for head, own, one in zip(heads, rows, together, strict=True):
        alone = train([head], [own], Conditional(), Hyperparameters(epochs=3, batch_size=32))[0]
        torch.testing.assert_close(one.head(own.val_x), alone.head(own.val_x), rtol=1e-8, atol=1e-8)


def test_heads_that_learn_other_parts_or_in_other_precision_are_trained_apart():
    rows = [halves(*classes(3, 4))] * 3
    heads = [LinearHead(4, 3) for _ in rows]
    heads[1].bias.requires_grad_(False)
    heads[2] = heads[2].double()
    with torch.no_grad():  # training has gradients wherever it is called
        done = train(heads, rows, Conditional(), Hyperparameters(epochs=3, learning_rate=0.1))
    assert [one.head.bias.dtype for one in done] == [torch.float32, torch.float32, torch.float64]
    assert torch.equal(done[1].head.bias, heads[1].bias) and not torch.equal(done[1].head.weight, heads[1].weight)
    assert not torch.equal(done[0].head.bias, heads[0].bias)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": torch.zeros(60, 5), "val_x": torch.zeros(60, 5)}, "width 5 .* 4 features"),
        ({"labels": torch.full((60,), 3)}, "labels 0 to 3 .* 3 classes"),
        ({"val_x": torch.full((60, 4), torch.nan)}, "60 of 60 rows that judge"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change, says):
    rows = halves(*classes(3, 4))
    head = LinearHead.from_rows(rows.x, rows.labels, 3)
    with pytest.raises((UsageError, NonFinite), match=says):
        train([head], [replace(rows, **change)], Conditional(), Hyperparameters())
    with pytest.raises(UsageError, match="batch of 0 rows"):
        train([head], [rows], Conditional(), Hyperparameters(batch_size=0))


def test_heads_of_other_shapes_are_trained_apart():
    rows = [halves(*classes(3, d)) for d in (4, 5)]
    heads = [GaussianHead.from_rows(own.x, own.labels, 3) for own in rows]
    heads.append(LinearHead.from_rows(rows[0].x, rows[0].labels, 3))
    done = train(heads, [*rows, rows[0]], Conditional(), Hyperparameters(epochs=2))
    assert [type(one.head) for one in done] == [GaussianHead, GaussianHead, LinearHead]
    assert [one.head.dimension for one in done] == [4, 5, 4]


def test_a_loss_that_is_not_finite_stops_that_head_and_says_which_batch():
    rows = [halves(*classes(3, 4, seed=seed)) for seed in (0, 1)]
    heads = [GaussianHead.from_rows(own.x, own.labels, 3) for own in rows]
    rows[1].x[17] = torch.inf
    sick, well = (train(heads, rows, Conditional(), Hyperparameters(epochs=4, batch_size=16))[i] for i in (1, 0))
    assert sick.stopped is not None and "was not finite in batch" in sick.stopped and "of epoch 1" in sick.stopped
    assert sick.best == 0 and sick.head(rows[1].val_x).isfinite().all()
    assert well.stopped is None and len(well.epochs) == 5


def test_a_head_that_only_absorbs_learns_too():
    rows = halves(*classes(3, 6, each=100))
    head = OnlineGaussianHead.from_rows(rows.x, rows.labels, 3, components=2)
    trained = train([head], [rows], Conditional(), Hyperparameters(epochs=2, batch_size=32))[0]
    assert len(trained.epochs) == 3 and trained.epochs[-1].val_nll != trained.epochs[0].val_nll


def test_patience_ends_training_early():
    rows = halves(*classes(3, 4))
    head = GaussianHead.from_rows(rows.x, rows.labels, 3)
    trained = train(
        [head], [rows], Conditional(), Hyperparameters(epochs=50, batch_size=16, learning_rate=0.3, patience=2)
    )[0]
    assert len(trained.epochs) - 1 == trained.best + 2 < 50


def test_hybrid_training_keeps_the_density_where_conditional_training_loses_it():
    x, labels = classes(4, 6, each=200, seed=1)
    rows = halves(x * torch.tensor([1.0, 1, 1, 6, 6, 6]), labels)
    head = GaussianHead.from_rows(rows.x, rows.labels, 4)
    settings = Hyperparameters(epochs=20, batch_size=64, learning_rate=1e-2)
    density = {
        name: float(trained.head.log_prob(rows.val_x).mean().detach())
        for name, objective in {"conditional": Conditional(), "hybrid": Hybrid(generative_weight=1.0)}.items()
        for trained in train([head], [rows], objective, settings)
    }
    assert density["hybrid"] > density["conditional"]


def test_the_penalty_of_sdgm_prunes():
    x, labels = classes(4, 10, each=200, distance=0.3)
    rows = halves(x * (1 + labels[:, None]), labels)  # squares tell the classes apart, which no linear start can
    head = SDGMHead.from_rows(rows.x, rows.labels, 4)
    settings = [
        Hyperparameters(epochs=60, batch_size=50, learning_rate=1e-2, kl_weight=weight) for weight in (0.0, 1.0)
    ]
    share = [train([head], [rows], Conditional(), one)[0].head.sparsity for one in settings]
    assert share[1] > share[0] + 0.1


def test_a_step_of_a_large_spherical_head_takes_little_memory():
    script = """
import resource, torch
from mixtura.heads.gaussian import GaussianHead
torch.manual_seed(0)
head = GaussianHead(1024, 1000); adam = torch.optim.SGD(head.parameters(), 1e-3)
x, y = torch.randn(128, 1024), torch.randint(1000, (128,))
small = GaussianHead(8, 4)(torch.randn(4, 8)).sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
torch.nn.functional.nll_loss(head(x), y).backward(); adam.step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) * 1024 < 100e6


@pytest.mark.parametrize("l2", [3.0, 100.0])
def test_l2_is_that_of_logistic_regression(l2):
    from sklearn.linear_model import LogisticRegression

    x, labels = classes(n_classes=4, d=6, each=60)
    head = LinearHead.from_rows(x.double(), labels, 4)
    z = head.standard(x.double()).numpy()
    model = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000).fit(z, labels.numpy())
    rows = TrainingData(x.double(), labels, x.double(), labels)
    settings = Hyperparameters(epochs=1500, batch_size=len(x), learning_rate=0.03, l2=l2)
    made = train([head], [rows], Conditional(), settings)[0]
    # the kept epoch is the best on the rows themselves, so what is compared is the loss that the last one ends at
    expected = -model.predict_log_proba(z)[torch.arange(len(x)).numpy(), labels.numpy()].mean()
    assert made.epochs[-1].val_nll == pytest.approx(expected, abs=1e-5)
    free = train([head], [rows], Conditional(), Hyperparameters(epochs=1500, batch_size=len(x), learning_rate=0.03))[0]
    assert free.epochs[-1].val_nll < made.epochs[-1].val_nll - 0.005


@pytest.mark.parametrize("family", ["spherical", "diagonal", "lowrank", "tied", "full"])
def test_l2_keeps_slopes_small_in_every_family_and_in_a_stack(family):
    rows = halves(*classes(n_classes=5, d=6, distance=0.6))
    heads = [GaussianHead.from_rows(rows.x, rows.labels, 5, family=family, rank=2, seed=seed) for seed in (0, 1)]
    settings = Hyperparameters(epochs=30, batch_size=50, learning_rate=0.02, l2=0.0)
    free = train(heads, [rows, rows], Conditional(), settings)
    held = train(
        heads, [rows, rows], Conditional(), Hyperparameters(epochs=30, batch_size=50, learning_rate=0.02, l2=30.0)
    )
    for plain, small in zip(free, held, strict=True):
        assert small.head.input_gradients().square().sum() < 0.8 * plain.head.input_gradients().square().sum()


def test_a_head_without_slopes_takes_no_l2():
    x, labels = classes(n_classes=3, d=4)
    head = VonMisesFisherHead.from_rows(x, labels, 3)
    with pytest.raises(UsageError, match="'vmf' takes no l2"):
        train([head], [halves(x, labels)], Conditional(), Hyperparameters(epochs=1, l2=1.0))


NAMED = get_args(FitSection.model_fields["optimizer"].annotation)


@pytest.mark.parametrize("name", NAMED)
def test_each_optimizer_takes_its_own_steps(name):
    """An epoch of one batch is one step, which has a formula of its own in each optimizer."""
    rows = halves(*classes(3, 4))
    head = LinearHead.from_rows(rows.x, rows.labels, 3)
    with torch.no_grad():
        head.weight.mul_(0.1)  # too unsure, so that a step surely helps and is kept
    slope = torch.autograd.grad(Conditional()(head, rows.x, rows.labels), head.weight)[0]
    settings = Hyperparameters(epochs=1, batch_size=len(rows.x), learning_rate=0.01, optimizer=name)
    trained = train([head], [rows], Conditional(), settings)[0]
    decay = 0.01 * 0.01 * head.weight.detach()
    expected = {"adam": -0.01 * slope.sign(), "adamw": -0.01 * slope.sign() - decay, "sgd": -0.01 * slope}
    expected["nesterov"] = -0.01 * 1.9 * slope  # the gradient, and 0.9 times the first momentum, which is the gradient
    assert trained.best == 1
    torch.testing.assert_close((trained.head.weight - head.weight).detach(), expected[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("name", "last"), [("sgd", 0.0), ("nesterov", 0.005)])
def test_sgd_has_momentum_and_a_rate_that_falls_as_far_as_asked(name, last):
    rows = halves(*classes(3, 4))
    head = LinearHead(4, 3)
    settings = Hyperparameters(4, len(rows.x), 0.02, optimizer=name, final_learning_rate=last)
    trained = train([head], [rows], Conditional(), settings)[0]
    by_hand = copy.deepcopy(head)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.02, momentum=0.9, nesterov=name == "nesterov")
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4, last)
    for _ in range(4):
        optimizer.zero_grad()
        Conditional()(by_hand, rows.x, rows.labels).backward()
        optimizer.step()
        cosine.step()
    torch.testing.assert_close(trained.head.weight, by_hand.weight, rtol=1e-5, atol=1e-7)


def test_recipes_name_the_optimizers_there_are():
    head, rows, settings = LinearHead(4, 3), halves(*classes(3, 4)), Hyperparameters(epochs=1)
    assert set(NAMED) < set(get_args(TrainSection.model_fields["optimizer"].annotation)) == set(OPTIMIZERS)
    with pytest.raises(UsageError, match=r"no optimizer 'lbfgs'\. .*Known: adadelta, adam, adamw, nesterov, sgd"):
        train([head], [rows], Conditional(), replace(settings, optimizer="lbfgs"))


def repeated(rows, times, val_times):
    """The rows as often as their weights say, and with these weights."""
    again, val_again = torch.arange(len(rows.x)).repeat_interleave(times), torch.arange(len(rows.val_x))
    val_again = val_again.repeat_interleave(val_times)
    more = (rows.x[again], rows.labels[again], rows.val_x[val_again], rows.val_labels[val_again])
    return TrainingData(*more, rows.seed), replace(rows, weight=times.double(), val_weight=val_times.double())


@pytest.mark.parametrize("objective", [Conditional(), Conditional(label_smoothing=0.1), Hybrid(), LargeMargin()])
@pytest.mark.parametrize("heads", [1, 3])
def test_a_row_of_weight_two_teaches_and_judges_as_two_rows(objective, heads):
    given = [halves(*classes(4, 5, each=24, seed=seed)) for seed in range(heads)]
    given = [TrainingData(rows.x.double(), rows.labels, rows.val_x.double(), rows.val_labels, seed=7) for rows in given]
    generator = torch.Generator().manual_seed(0)
    times = torch.randint(1, 4, (len(given[0].x),), generator=generator)
    val_times = torch.randint(1, 4, (len(given[0].val_x),), generator=generator)
    pairs = [repeated(rows, times, val_times) for rows in given]
    begun = [GaussianHead.from_rows(rows.x, rows.labels, 4, family="diagonal") for rows in given]
    settings = Hyperparameters(epochs=5, batch_size=1000, learning_rate=0.01, l2=3.0)
    often, weighted = (train(begun, [pair[i] for pair in pairs], objective, settings) for i in (0, 1))
    for one, other, rows in zip(often, weighted, given, strict=True):
        assert other.best == one.best > 0
        assert torch.allclose(one.head(rows.x), other.head(rows.x), atol=1e-9)
        for a, b in zip(one.epochs, other.epochs, strict=True):
            assert (b.val_nll, b.val_accuracy) == pytest.approx((a.val_nll, a.val_accuracy), rel=1e-9)


def test_no_row_to_learn_from_or_to_judge_by_is_one_sentence():
    rows = halves(*classes(3, 4))
    head = GaussianHead.from_rows(rows.x, rows.labels, 3)
    for empty in ({"x": rows.x[:0], "labels": rows.labels[:0]}, {"val_x": rows.x[:0], "val_labels": rows.labels[:0]}):
        with pytest.raises(UsageError, match="cannot be trained on"):
            train([head], [replace(rows, **empty)], Conditional(), Hyperparameters())


def test_weights_count_in_batches_of_one_row():
    rows = halves(*classes(3, 4, each=40, distance=0.7))
    weight = torch.where(torch.arange(len(rows.x)) % 2 == 0, 3.9, 0.1)
    head = LinearHead.from_rows(rows.x, rows.labels, 3)
    settings = Hyperparameters(epochs=3, batch_size=1, learning_rate=1e-3, stop=3)
    bare, weighted, scaled = (
        train([head], [replace(rows, weight=given)], Conditional(), settings)[0].head
        for given in (None, weight, 100 * weight)
    )
    even = rows.x[::2]
    assert not torch.allclose(bare(even), weighted(even), atol=0.01)
    assert torch.allclose(weighted(even), scaled(even), atol=1e-5)
