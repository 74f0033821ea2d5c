"""What a run computes: against plain loops, parts of batches, and several processes."""

import json
import math
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mixtura.errors import UsageError
from mixtura.training import distributed
from mixtura.training.hooks import WeightAverage
from mixtura.training.optimizers import OPTIMIZERS, optimizer, parameter_groups
from mixtura.training.setup import Settings, parts
from mixtura.training.trainer import train

FAR = 1e-6  # of sums in another order; one process or several: 1e-5


def distance(ours, theirs):
    """The largest difference between two sets of tensors."""
    assert set(ours) == set(theirs)
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)


@pytest.fixture
def trained(toy, tmp_path_factory):
    """The run, and the network after its last step."""

    def go(setup, epochs=3, **settings):
        run = train(setup, Settings(epochs, **settings), tmp_path_factory.mktemp("run") / "training")
        return run, {name: tensor.detach().clone() for name, tensor in setup.module.state_dict().items()}

    return go


@pytest.mark.parametrize("kind", ["sgd", "adamw", "adadelta"])
def test_it_is_a_plain_loop(toy, trained, kind):
    run, found = trained(toy.setup(kind, dropout=0.0))
    other = toy.setup(kind, dropout=0.0)
    rates = [group["lr"] for group in other.optimizer.param_groups]
    other.module.train()
    losses, step = [], 0
    for epoch in range(3):
        total = 0.0
        for batch in other.batches(epoch, 0):
            for group, rate in zip(other.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * other.rate(step, [])
            other.optimizer.zero_grad()
            loss, _ = other.objective(other.module, batch)
            loss.backward()
            other.optimizer.step()
            total, step = total + float(loss.detach()) * len(batch["x"]), step + 1
        losses.append(total / toy.ROWS)
    assert distance(found, other.module.state_dict()) == 0
    assert [epoch.loss for epoch in run.log.epochs[1:]] == pytest.approx(losses, abs=1e-12)


def plain(toy, **options):
    """The toy without batch norm and dropout, whose results depend on how a batch is divided."""
    return toy.setup(norm="group", dropout=0.0, **options)


@pytest.mark.parametrize("number", [2, 3, 5])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_batch_in_parts_is_the_batch(toy, trained, number, clip):
    whole, parted = trained(plain(toy), clip=clip), trained(plain(toy), accumulate=number, clip=clip)
    assert distance(parted[1], whole[1]) < FAR
    for ours, theirs in zip(parted[0].log.epochs, whole[0].log.epochs, strict=True):
        assert ours.logged == pytest.approx(theirs.logged, abs=FAR)


def test_parts_hold_each_row_once():
    batch = {"x": torch.arange(7), "row": torch.arange(7)}
    assert [len(part["x"]) for part in parts(batch, 3)] == [3, 2, 2]
    assert torch.cat([part["row"] for part in parts(batch, 9)]).tolist() == list(range(7))
    empty = {"x": torch.zeros(0, 2)}
    assert parts(empty, 3) == [empty]


def test_a_batch_without_rows_takes_no_step(toy, trained):
    def with_a_hole(epoch, first):
        for place, batch in enumerate(toy.batches()(epoch, first), start=first):
            yield {name: tensor[:0] for name, tensor in batch.items()} if place == 1 else batch

    def without_a_step(epoch, first):
        return (batch for place, batch in enumerate(toy.batches()(epoch, first), start=first) if place != 1)

    run, found = trained(plain(toy, batches=with_a_hole, rate=toy.constant), epochs=1)
    _, other = trained(plain(toy, batches=without_a_step, steps=toy.STEPS - 1, rate=toy.constant), epochs=1)
    assert distance(found, other) == 0 and run.log.epochs[1].step == toy.STEPS


def test_clipping_bounds_the_step(toy, trained):
    setup = plain(toy, rate=lambda step, losses: 1.0)
    for group in setup.optimizer.param_groups:
        group |= {"lr": 1.0, "momentum": 0.0}
    before = {name: tensor.clone() for name, tensor in setup.module.state_dict().items()}
    _, after = trained(setup, epochs=1, clip=1e-3)
    moved = torch.cat([(after[name] - before[name]).reshape(-1) for name in before])
    assert 0 < float(moved.norm()) <= toy.STEPS * 1e-3 * 1.001


def test_the_best_epoch_is_kept_not_the_last(toy, trained):
    losses = iter([3.0, 1.0, 2.0, 0.5, 0.6])
    setup = toy.setup(validate=lambda module: {"loss": next(losses)})
    run, last = trained(setup, epochs=4)
    assert run.weights.epoch == 3 and run.weights.loss == 0.5 and run.log.best == {"raw": 3}
    _, third = trained(toy.setup(), epochs=3)
    assert distance(run.weights.tensors, third) == 0 and distance(run.weights.tensors, last) > 0


def test_the_start_is_the_incumbent(toy, trained):
    start = {name: tensor.clone() for name, tensor in toy.setup().module.state_dict().items()}
    losses = iter([1.0, 2.0, 3.0])
    run, _ = trained(toy.setup(validate=lambda module: {"loss": next(losses)}), epochs=2)
    assert run.weights.epoch == 0 and distance(run.weights.tensors, start) == 0
    losses = iter([2.0, 3.0])
    run, _ = trained(toy.setup(validate=lambda module: {"loss": next(losses)}), epochs=2, incumbent=False)
    assert run.weights.epoch == 1 and [epoch.number for epoch in run.log.epochs] == [1, 2]


def test_patience(toy, trained):
    losses = iter([3.0, 2.0, 1.0, 1.0, 1.5, 0.1])
    run, _ = trained(toy.setup(validate=lambda module: {"loss": next(losses)}), epochs=9, patience=2)
    assert [epoch.number for epoch in run.log.epochs] == [0, 1, 2, 3, 4] and run.weights.epoch == 2
    assert run.log.ended == "no epoch after 2 has had a better validation loss"


def test_the_rate_is_told_the_losses_of_the_epochs_before(toy, trained):
    told = []

    def rate(step, losses):
        told.append((step, len(losses)))
        return 1.0

    run, _ = trained(toy.setup(rate=rate), epochs=2)
    assert told == [(step, step // toy.STEPS) for step in range(2 * toy.STEPS)]
    assert run.log.epochs[1].learning_rate == pytest.approx(0.05)


def test_parts_in_evaluation_mode_stay_so(toy, trained):
    setup = toy.setup()
    norm = setup.module[1].eval().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    setup = toy.setup(module=setup.module, optimizer=optimizer("sgd", parameter_groups(setup.module, 0.1)))
    trained(setup)
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
    moving = toy.setup()
    trained(moving)
    assert float(moving.module[1].running_mean.abs().sum()) > 0


def test_a_network_can_be_trained_again(toy, tmp_path):
    again, once = toy.setup(), toy.setup()
    for epochs in (1, 2, 3):
        train(again, Settings(epochs), tmp_path / "again")
    train(once, Settings(3), tmp_path / "once")
    assert toy.digest(tmp_path / "again") == toy.digest(tmp_path / "once")
    assert all(part.training for part in again.module.modules())


def test_averaged_weights_follow_their_formula(toy, trained):
    setup = toy.setup(average=True, dropout=0.0)
    first, seen = {}, []
    for name, tensor in setup.module.state_dict().items():
        first[name] = tensor.double().clone()

    class Watch:
        def tensors(self):
            return {}

        def averaged(self):
            return {}

        def after_step(self, step):
            seen.append({name: tensor.double().clone() for name, tensor in setup.module.state_dict().items()})

    setup.hooks["watch"] = Watch()
    trained(setup, epochs=1)
    for step, weights in enumerate(seen, start=1):
        share = min(0.9, (1 + step) / (10 + step))
        first = {name: share * first[name] + (1 - share) * weights[name] for name in first}
    found = setup.hooks["average"].averaged()
    assert distance(found, {name: first[name] for name in found}) < FAR
    assert set(found) == set(first) - {"1.num_batches_tracked"}


def test_averaged_weights_are_validated_and_leave_the_raw_ones_alone(toy, trained):
    run, raw = trained(toy.setup(average=True))
    _, plain = trained(toy.setup())
    assert distance(raw, plain) == 0
    assert set(run.best) == {"raw", "average"} == set(run.log.epochs[1].validation)
    found = toy.network()
    found.load_state_dict(run.best["average"].tensors)
    with torch.no_grad():
        loss = toy.validate(found.eval())["loss"]
    assert loss == pytest.approx(run.best["average"].loss)


def test_bf16_computes_in_bf16_and_keeps_weights_in_float32(toy, trained):
    seen = set()

    def objective(module, batch):
        scores = module(batch["x"])
        seen.add(scores.dtype)
        return nn.functional.cross_entropy(scores.float(), batch["label"])

    run, last = trained(toy.setup(objective=objective, norm="none"), precision="bf16")
    assert seen == {torch.bfloat16} and {tensor.dtype for tensor in last.values()} == {torch.float32}
    assert run.log.epochs[-1].validation["raw"]["loss"] < run.log.epochs[0].validation["raw"]["loss"]


def test_groups_have_their_rate_and_only_weights_decay(toy):
    module = toy.network()
    groups = parameter_groups(module, 0.1, 0.01, factor=lambda name: 0.5 if name.startswith("0.") else 1.0)
    held = {name: group for group in groups for p in group["params"] for name, q in module.named_parameters() if p is q}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in held.items()} == {
        "0.weight": (0.05, 0.01),
        "0.bias": (0.05, 0.0),
        "1.weight": (0.1, 0.0),
        "1.bias": (0.1, 0.0),
        "4.weight": (0.1, 0.01),
        "4.bias": (0.1, 0.0),
    }
    module[0].requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(module, 0.1)) == 4
    with pytest.raises(UsageError, match="no parameter that can be trained"):
        parameter_groups(module.requires_grad_(False), 0.1)


def test_optimizers_have_names(toy):
    groups = parameter_groups(toy.network(), 0.1)
    for name in OPTIMIZERS:
        assert optimizer(name, groups).param_groups[0]["lr"] == 0.1
    with pytest.raises(UsageError, match=r"no optimizer 'sdg'\. Did you mean 'sgd'"):
        optimizer("sdg", groups)
    with pytest.raises(UsageError, match="adam has no momentum"):
        optimizer("adam", groups, momentum=0.9)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": -1}, "epochs = -1"),
        ({"accumulate": 0}, "accumulate = 0"),
        ({"patience": 0}, "patience = 0"),
        ({"clip": 0.0}, "norm of 0.0"),
    ],
)
def test_settings_out_of_range(toy, trained, settings, words):
    with pytest.raises(UsageError, match=words):
        trained(toy.setup(), **settings)


def test_a_short_epoch_is_an_error(toy, trained):
    with pytest.raises(UsageError, match="Epoch 1 gave fewer than its 9 batches"):
        trained(toy.setup(steps=9))


def test_parameters_outside_the_network_are_refused(toy, trained):
    other = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="holds a parameter that the network lacks"):
        trained(toy.setup(optimizer=optimizer("sgd", parameter_groups(other, 0.1))))


def test_progress_is_told_after_each_step(toy, tmp_path):
    told = []
    train(toy.setup(), Settings(2), tmp_path, told.append)
    assert [one.done for one in told] == list(range(1, 9)) and told[-1].total == 8 and told[-1].remaining == 0
    assert [one.epoch for one in told] == [1, 1, 1, 2, 2, 2, 2, 2]
    told.clear()
    train(toy.setup(), Settings(3), tmp_path, told.append)
    assert told[0].message == "Training goes on after step 8 of 12." and told[1].done == 9


def together(toy, folder, *pairs, restarts=0):
    """The toy in two processes; the record that the first one prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}"]
    arguments = [sys.executable, *run, toy.__file__, str(folder), *pairs]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 7])  # the last batch has 6 rows, or 2 rows and odd batches before
def test_two_processes_are_one_with_the_doubled_batch(toy, tmp_path, size):
    options = {"norm": "group", "dropout": 0.0, "average": True, "size": size}
    pairs = [f"{key}={json.dumps(value)}" for key, value in options.items()]
    record = together(toy, tmp_path / "two", *pairs)
    run = train(toy.setup(**options), Settings(toy.EPOCHS), tmp_path / "one")
    last = f"checkpoints/{toy.EPOCHS * -(-toy.ROWS // size):08d}/state.safetensors"
    two, one = load_file(tmp_path / "two" / last), load_file(tmp_path / "one" / last)
    assert distance(two, one) < 1e-5
    for ours, theirs in zip(record["validation"], run.log.epochs, strict=True):
        assert ours == pytest.approx(dict(theirs.validation["raw"]), abs=1e-5) and ours["rows"] == toy.ROWS
    assert record["trained"][1:] == pytest.approx([epoch.loss for epoch in run.log.epochs[1:]], abs=1e-5)


@pytest.mark.slow
def test_two_processes_have_the_queues_and_losses_of_one(toy, tmp_path):
    record = together(toy, tmp_path / "two", "contrastive=true")
    run = train(toy.contrastive(), Settings(toy.EPOCHS), tmp_path / "one")
    last = f"checkpoints/{toy.EPOCHS * toy.STEPS:08d}/state.safetensors"
    two, one = load_file(tmp_path / "two" / last), load_file(tmp_path / "one" / last)
    assert distance(two, one) < 1e-5
    for name in ("label", "row", "place", "filled"):
        assert torch.equal(two[f"hook.queues.{name}"], one[f"hook.queues.{name}"]), name
    assert record["trained"] == pytest.approx([epoch.loss for epoch in run.log.epochs], abs=1e-5)


@pytest.mark.slow
def test_a_killed_process_is_restarted_and_goes_on(toy, tmp_path):
    pairs = ['norm="group"', "dropout=0.0"]
    together(toy, tmp_path / "whole", *pairs)
    mark = tmp_path / "died"
    record = together(toy, tmp_path / "killed", *pairs, "die=6", "rank=1", f'once="{mark}"', restarts=1)
    assert mark.exists() and record["notes"][0].startswith("Training goes on after step")
    assert toy.digest(tmp_path / "killed") == toy.digest(tmp_path / "whole")


@pytest.mark.slow
def test_one_process_that_is_told_to_stop_stops_all(toy, tmp_path):
    pairs = ["die=6", f"signal={int(signal.SIGTERM)}", "rank=1", "commit_minutes=60"]
    with pytest.raises(AssertionError):
        together(toy, tmp_path, *pairs)
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == "00000006"
    record = together(toy, tmp_path)
    assert record["notes"][0] == "Training goes on after step 6 of 12."
    assert "Each process trains batch norm on its own rows" in record["notes"][1]
    assert record["ended"] == "all 3 epochs are done" and all(
        math.isfinite(one["loss"]) for one in record["validation"]
    )


def test_one_process_alone():
    assert distributed.rank() == 0 and distributed.processes() == 1 and list(distributed.own_rows(3)) == [0, 1, 2]
    assert distributed.totals({"b": 2.0, "a": 1.0}) == {"a": 1.0, "b": 2.0}
    rows = torch.rand(3, 2, requires_grad=True)
    assert torch.equal(distributed.gathered(rows), rows) and not distributed.gathered(rows).requires_grad
    with pytest.raises(UsageError, match="synchronized on GPUs only"):
        distributed.synced(nn.BatchNorm1d(3))
    assert distributed.own_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"would share the GPU cuda:1\. Use cuda"):
        distributed.own_device("cuda:1")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="The device cuda needs GPU 0, and there are 0"):
            distributed.own_device("cuda")


def test_frozen_statistics_are_not_averaged():
    module = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2).eval(), nn.BatchNorm1d(2, track_running_stats=False))
    assert distributed.own_statistics(module) == ["0.running_mean", "0.running_var"]


def test_an_average_of_a_network_whose_buffer_is_replaced():
    module = nn.BatchNorm1d(2)
    average = WeightAverage(module, 0.5)
    module.running_mean = torch.ones(2)
    average.after_step(1)
    assert average.averaged()["running_mean"].tolist() == pytest.approx([1 - 2 / 11] * 2)
