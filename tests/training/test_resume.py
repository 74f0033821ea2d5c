"""A run that stops anywhere and goes on ends with the same bits as one that never stopped."""

import errno
import hashlib
import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch

from mixtura import files
from mixtura.errors import CannotWrite, CheckpointError, NoInput, NonFinite, OutOfSpace
from mixtura.training.checkpoint import Checkpoint, Checkpoints, Facts, set_aside
from mixtura.training.setup import Settings
from mixtura.training.state import State
from mixtura.training.trainer import train

VARIANTS = {
    "sgd": {},
    "adamw": {"kind": "adamw"},
    "adadelta": {"kind": "adadelta"},
    "average": {"average": True},
    "bf16": {"precision": "bf16"},
    "parts": {"accumulate": 3},
}


@pytest.fixture
def run(toy):
    """Train in ``folder``, at most ``stop`` steps; keys of settings and of the toy's setup."""

    def go(folder, stop=math.inf, setup=None, **options):
        known = {key: options.pop(key) for key in list(options) if key in Settings.__dataclass_fields__}
        asked = iter(range(10**6))
        settings = Settings(**({"epochs": toy.EPOCHS, "clip": 1.0} | known))
        return train(setup or toy.setup(**options), settings, folder, enough=lambda: next(asked) >= stop)

    return go


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_anywhere(toy, run, tmp_path, variant):
    options = VARIANTS[variant]
    whole = run(tmp_path / "whole", **options)
    for stop in range(toy.EPOCHS * toy.STEPS):
        run(tmp_path / str(stop), stop, **options)
        parted = run(tmp_path / str(stop), **options)
        assert toy.digest(tmp_path / str(stop)) == toy.digest(tmp_path / "whole"), stop
        assert [dict(epoch.validation) for epoch in parted.log.epochs] == [dict(e.validation) for e in whole.log.epochs]
        assert [epoch.loss for epoch in parted.log.epochs] == [epoch.loss for epoch in whole.log.epochs]


def test_stopped_after_every_step(toy, run, tmp_path):
    run(tmp_path / "whole", average=True)
    for _ in range(toy.EPOCHS * toy.STEPS - 1):
        assert run(tmp_path / "parted", 1, average=True).log.ended == "the time is up"
    assert run(tmp_path / "parted", average=True).log.ended == "all 3 epochs are done"
    assert toy.digest(tmp_path / "parted") == toy.digest(tmp_path / "whole")


@pytest.mark.parametrize("sizes", [(9, 4, 12), (20,)], ids=["by class", "one"])
def test_a_slow_encoder_and_its_queues_go_on(toy, run, tmp_path, sizes):
    run(tmp_path / "whole", setup=toy.contrastive(sizes, "batch"))
    for stop in (1, 4, 6):
        run(tmp_path / str(stop), stop, setup=toy.contrastive(sizes, "batch"))
        run(tmp_path / str(stop), setup=toy.contrastive(sizes, "batch"))
        assert toy.digest(tmp_path / str(stop)) == toy.digest(tmp_path / "whole")


def test_nothing_else_draws_from_what_dropout_draws(toy, run, tmp_path):
    run(tmp_path / "whole")

    def noisy(module):
        torch.rand(7)
        return toy.validate(module)

    noise = toy.setup(validate=noisy)
    before = torch.random.get_rng_state()
    run(tmp_path / "noisy", setup=noise)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert toy.digest(tmp_path / "noisy") == toy.digest(tmp_path / "whole")


def forked(work):
    """Do something in a child process; returns the signal that has ended it, or 0."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return status & 0x7F


def dying(toy, step, number):
    """An objective that sends its own process a signal in a step, counted from the start of the process."""
    calls = iter(range(10**6))

    def loss(module, batch):
        if next(calls) == step:
            os.kill(os.getpid(), number)
        return toy.objective(module, batch)

    return loss


@pytest.mark.parametrize("variant", ["adamw", "average", "bf16"])
def test_killed_and_run_again(toy, run, tmp_path, variant):
    options = VARIANTS[variant]
    run(tmp_path / "whole", **options)
    for step in (0, 1, 4, 3):  # of each try; so in steps 1, 2, 6 and 9 of the run, two of them the first of an epoch
        died = forked(
            lambda step=step: run(
                tmp_path / "killed", commit_minutes=0.0, objective=dying(toy, step, signal.SIGKILL), **options
            )
        )
        assert died == signal.SIGKILL
    assert generations(tmp_path / "killed") == ["00000007", "00000008"]
    run(tmp_path / "killed", **options)
    assert toy.digest(tmp_path / "killed") == toy.digest(tmp_path / "whole")


@pytest.mark.parametrize("moment", range(24))
def test_killed_while_it_writes(toy, run, tmp_path, monkeypatch, moment):
    run(tmp_path / "whole")
    write, written = files._write_through, iter(range(10**6))

    def die(path, data):
        write(path, data if next(written) < moment else data[: len(data) // 2])
        if path.stat().st_size < len(data):
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_through", die)
        assert forked(lambda: run(tmp_path / "killed", commit_minutes=0.0)) == signal.SIGKILL
    log = run(tmp_path / "killed").log
    assert not any("damaged" in note for note in log.notes)
    assert toy.digest(tmp_path / "killed") == toy.digest(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob(f"{files.STAGED_PREFIX}*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [0, 3, 5])  # the first of an epoch, the last, and another
def test_a_signal_commits_the_step(toy, run, tmp_path, number, step):
    def work():
        signal.signal(number, signal.SIG_DFL)
        run(tmp_path / "ended", objective=dying(toy, step, number))

    assert forked(work) == number
    assert generations(tmp_path / "ended")[-1] == f"{step + 1:08d}"
    run(tmp_path / "ended")
    run(tmp_path / "whole")
    assert toy.digest(tmp_path / "ended") == toy.digest(tmp_path / "whole")


def test_a_second_signal_acts_at_once(toy, run, tmp_path):
    def work():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        first = dying(toy, 2, signal.SIGTERM)
        second = dying(toy, 2, signal.SIGTERM)
        run(tmp_path, objective=lambda module, batch: (first(module, batch), second(module, batch))[0])

    assert forked(work) == signal.SIGTERM
    assert generations(tmp_path) == ["00000000"]


def generations(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_two_generations_are_kept(run, tmp_path):
    run(tmp_path, commit_minutes=0.0)
    assert generations(tmp_path) == ["00000011", "00000012"]
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "00000012").iterdir()) == [
        "COMMIT",
        "state.json",
        "state.safetensors",
    ]


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "COMMIT"])
@pytest.mark.parametrize("harm", ["byte", "cut", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(toy, run, tmp_path, name, harm):
    run(tmp_path / "whole")
    folder = tmp_path / "harmed"
    run(folder, 7, commit_minutes=0.0)
    path = folder / "checkpoints" / "00000007" / name
    data = bytearray(path.read_bytes())
    if harm == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data if harm == "byte" else data[:-1])
    log = run(folder).log
    assert f"{path.parent} is damaged" in log.notes[0] and "An earlier one is used" in log.notes[0]
    assert log.notes[1] == "Training goes on after step 6 of 12."
    assert toy.digest(folder) == toy.digest(tmp_path / "whole")


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "COMMIT"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
def test_a_checkpoint_that_the_disk_does_not_give_now_is_kept(toy, run, tmp_path, monkeypatch, name, code):
    run(tmp_path, 7, commit_minutes=0.0)
    before, read = toy.digest(tmp_path), Path.read_bytes

    def failing(path):
        if (path.parent.name, path.name) == ("00000007", name):
            raise OSError(code, os.strerror(code))
        return read(path)

    with monkeypatch.context() as patch, pytest.raises(NoInput, match=r"Cannot read .*00000007: .*same command again"):
        patch.setattr(Path, "read_bytes", failing)
        run(tmp_path)
    assert generations(tmp_path) == ["00000006", "00000007"] and toy.digest(tmp_path) == before
    assert run(tmp_path).log.notes == ("Training goes on after step 7 of 12.",)


def test_no_whole_checkpoint_is_an_error_and_changes_nothing(run, tmp_path):
    run(tmp_path, 3)
    for path in (tmp_path / "checkpoints").iterdir():
        (path / "COMMIT").unlink()
    before = generations(tmp_path)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole\. Start again with --fresh"):
        run(tmp_path)
    assert generations(tmp_path) == before


def test_what_a_killed_writer_left_is_collected(run, tmp_path):
    run(tmp_path, 3)
    left = tmp_path / "checkpoints" / f"{files.STAGED_PREFIX}1-abc"
    left.mkdir()
    (left / "state.safetensors").write_bytes(b"half")
    run(tmp_path, 1)
    assert not left.exists()


def test_a_newer_layout_is_refused(run, tmp_path):
    run(tmp_path, 3)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    path = tmp_path / "checkpoints" / "00000003"
    text = (path / "state.json").read_text().replace('"layout": 1', '"layout": 2').encode()
    (path / "state.json").write_bytes(text)
    (path / "COMMIT").write_bytes(hashlib.sha256(text).hexdigest().encode())
    with pytest.raises(CheckpointError, match="has layout 2, and this mixtura reads 1"):
        checkpoints.newest()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("moment", range(4))
def test_a_full_disk_keeps_the_commits_before(toy, run, tmp_path, monkeypatch, code, moment):
    run(tmp_path / "whole")
    folder = tmp_path / "full"
    write, written = files._write_through, []

    def fill(path, data):
        written.append(path)
        if len(written) > 8 + moment:  # two commits of a log and three files each
            path.write_bytes(data[: len(data) // 2])
            raise OSError(code, os.strerror(code))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_through", fill)
        with pytest.raises(OutOfSpace, match="what was saved before is intact") as caught:
            run(folder, commit_minutes=0.0)
    assert caught.value.exit_code == 74
    assert generations(folder) == ["00000000", "00000001"]
    assert not list(folder.rglob(f"{files.STAGED_PREFIX}*")) and not list(folder.rglob(f"{files.TEMPORARY_PREFIX}*"))
    run(folder)
    assert toy.digest(folder) == toy.digest(tmp_path / "whole")


def test_two_runs_in_one_folder(run, tmp_path):
    with files.only_writer(tmp_path), pytest.raises(CannotWrite, match=f"pid {os.getpid()}") as caught:
        run(tmp_path)
    assert caught.value.exit_code == 73


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "adamw"}, "recipe was 'sgd' and is 'adamw' now"),
        ({"size": 10}, "steps was 4 and is 3 now"),
        ({"accumulate": 2}, "accumulate was 1 and is 2 now"),
        ({"precision": "bf16"}, "precision was 'float32' and is 'bf16' now"),
        ({"seed": 5}, "seed was 0 and is 5 now"),
    ],
)
def test_another_run_is_refused(toy, run, tmp_path, options, words):
    run(tmp_path, 5)
    before = toy.digest(tmp_path)
    with pytest.raises(CheckpointError, match=words) as caught:
        run(tmp_path, **options)
    assert caught.value.exit_code == 65 and toy.digest(tmp_path) == before


@pytest.mark.parametrize("options", [{"norm": "none"}, {"average": True}, {"setup": "foreign"}])
def test_a_foreign_network_is_refused(toy, run, tmp_path, options):
    run(tmp_path, 5)
    if options == {"setup": "foreign"}:
        wide = torch.nn.Sequential(torch.nn.Linear(toy.WIDTH, toy.CLASSES))
        groups = toy.parameter_groups(wide, 0.1)
        options = {"setup": toy.setup(module=wide, optimizer=toy.optimizer("sgd", groups, momentum=0.9))}
    with pytest.raises(CheckpointError, match="--fresh"):
        run(tmp_path, **options)


def test_what_may_differ_is_said(toy, run, tmp_path):
    run(tmp_path, 5, setup=toy.setup(facts=Facts({"recipe": "sgd"}, {"timm": "1.0"})))
    log = run(tmp_path, setup=toy.setup(facts=Facts({"recipe": "sgd"}, {"timm": "1.1"}))).log
    assert log.notes[0] == (
        "Training goes on with the same rows in the same order, but timm was '1.0' and is '1.1' now: the last bits may "
        "differ."
    )


def test_more_epochs_go_on(toy, run, tmp_path):
    run(tmp_path / "whole")
    run(tmp_path / "grown", epochs=1)
    run(tmp_path / "grown", epochs=3)
    assert toy.digest(tmp_path / "grown") == toy.digest(tmp_path / "whole")


def test_a_run_that_has_ended_trains_no_more(toy, run, tmp_path):
    first = run(tmp_path)

    def refuse(epoch, first):
        raise AssertionError("no batch is asked for")

    again = run(tmp_path, setup=toy.setup(batches=refuse))
    assert again.log.epochs == first.log.epochs and again.log.best == first.log.best
    for name, tensor in first.weights.tensors.items():
        assert torch.equal(again.weights.tensors[name], tensor)


def test_the_log_has_a_line_for_each_epoch_and_no_more(run, tmp_path):
    for stop in (5, 1, math.inf):
        run(tmp_path, stop)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2, 3] and lines[0]["loss"] is None
    assert lines[3]["step"] == 12 and set(lines[3]["validation"]["raw"]) == {"loss", "accuracy", "rows"}


def test_an_earlier_run_is_moved_aside(toy, run, tmp_path):
    assert set_aside(tmp_path / "training") is None
    run(tmp_path / "training")
    before = toy.digest(tmp_path / "training")
    assert set_aside(tmp_path / "training") == tmp_path / "training-1"
    assert not (tmp_path / "training").exists() and toy.digest(tmp_path / "training-1") == before


def poisoned(toy, step):
    """A loss that is NaN at a step."""
    calls = iter(range(10**6))

    def loss(module, batch):
        made, logged = toy.objective(module, batch)
        return (made * math.nan if next(calls) == step else made), logged

    return toy.setup(objective=loss)


def test_a_loss_that_is_not_finite_ends_the_run(toy, run, tmp_path):
    words = "not finite in step 7, batch 3 of 4 of epoch 2. The last commit is kept"
    with pytest.raises(NonFinite, match=words) as caught:
        run(tmp_path / "poisoned", setup=poisoned(toy, 6), commit_minutes=0.0)
    assert caught.value.exit_code == 65 and generations(tmp_path / "poisoned") == ["00000005", "00000006"]
    run(tmp_path / "poisoned")
    run(tmp_path / "whole")
    assert toy.digest(tmp_path / "poisoned") == toy.digest(tmp_path / "whole")


def test_weights_that_are_not_finite_are_not_committed(toy, run, tmp_path):
    def explode(step, losses):
        return math.inf if step == 2 else 1.0

    with pytest.raises(NonFinite, match=r"are not finite after step 3\. The last commit is kept"):
        run(tmp_path, setup=toy.setup(rate=explode), commit_minutes=0.0)
    assert generations(tmp_path) == ["00000001", "00000002"]


def test_a_validation_loss_that_is_not_finite_ends_the_run(toy, run, tmp_path):
    with pytest.raises(NonFinite, match="validation loss of the raw weights is nan after epoch 0"):
        run(tmp_path / "never", setup=toy.setup(validate=lambda module: {"loss": math.nan}))
    assert not (tmp_path / "never").exists()


def test_a_checkpoint_holds_tensors_that_share_memory(tmp_path):
    both = torch.arange(6.0)
    tensors = {"a": both[:3], "b": both[1:5], "c": both.expand(2, 6), "d": torch.ones(2, 3).T}
    Checkpoints(tmp_path).commit(Checkpoint(3, tensors, {"x": [0.1, None]}, Facts({"a": 1})))
    found, notes = Checkpoints(tmp_path).newest()
    assert notes == [] and found.values == {"x": [0.1, None]} and found.facts == Facts({"a": 1})
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())


def test_moments_of_weights_in_another_memory_order_keep_their_places():
    """Fused optimizers walk through a weight and its moments in one order, whatever their strides say."""

    def run(steps, tensors=None):
        torch.manual_seed(0)
        module = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(module.parameters(), fused=True)
        state = State(module, optimizer, {})
        if tensors is not None:
            state.restore(tensors)
        for _ in range(steps):
            optimizer.zero_grad()
            module(torch.arange(75.0).reshape(1, 3, 5, 5).sin()).square().sum().backward()
            optimizer.step()
        return {name: tensor.detach().clone().contiguous() for name, tensor in state.tensors().items()}

    whole, parted = run(4), run(2, run(2))
    assert all(torch.equal(whole[name], parted[name]) for name in whole)
