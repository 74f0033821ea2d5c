"""Training by two processes: the network of one, errors said once, and nothing lost when one of them ends."""

import json
import math
import os
import signal
import socket
import sys
import time
import traceback

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mixtura.cli.app import run as command
from mixtura.encoders.stages import stages_of
from mixtura.errors import NoInput
from mixtura.fitting import network, network_head
from mixtura.fitting.network import PLAN_FILE, Material, train_part
from mixtura.heads import HEADS
from mixtura.heads.linear import LinearHead
from mixtura.pipeline import factory, network_setup, training_photos
from mixtura.recipe import resolve
from mixtura.training import processes, trainer
from mixtura.training.classifier import Classifier
from mixtura.training_sections import TrainSection

SIDE, CLASSES, EACH = 16, 3, 18
FAR = 1e-5  # of sums in another order, after some steps
KEYS = {
    "encoder.name": "tiny",
    "encoder.size": SIDE,
    "extract.workers": 0,
    "split.fractions": [0.6, 0.2, 0.2],
    "train.optimizer": "sgd",
    "train.learning_rate": 0.02,
    "train.batch_size": 7,  # odd, and the last step has one row, so one process has none
    "train.epochs": 1,
    "train.trainable": "all",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("together") / "photos", np.random.default_rng(0)
    for c in range(CLASSES):
        (folder / f"c{c}").mkdir(parents=True)
        for number in range(EACH):
            pixels = np.full((SIDE, SIDE, 3), 60 + 60 * c) + rng.normal(0, 40, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"c{c}" / f"{number:03}.png")
    return folder


def together(folder, work):
    """Call ``work(rank)`` in two processes with what torchrun sets; the exit code of each, and what it has said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    children = [_child(folder, rank, address, work) for rank in range(2)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return codes, [(folder / f"said{rank}").read_text() for rank in range(2)]


def _child(folder, rank, address, work):
    if child := os.fork():
        return child
    code = 99
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(200)
        os.environ |= address | {"RANK": str(rank)}
        sys.stdout = sys.stderr = (folder / f"said{rank}").open("w", buffering=1)
        code = work(rank)
    except BaseException:
        traceback.print_exc()
    os._exit(code)


CASES = {
    "refit": ("all", {}),
    "parts": ("all", {"train.accumulate": 3, "train.head": "joint", "head.name": "vmf"}),
    "average": ("all", {"train.ema": 0.9}),
    "last": ("last", {}),
    "norm": ("norm", {}),
    "rate": ("last", {"train.learning_rate": "auto"}),
    "alone": ("head", {"train.head": "joint", "head.name": "full"}),
    "time": ("last", {"train.epochs": 2}),
    "subclasses": ("all", {"train.objective": "scgm-g", "coarse": {"subclasses": 5, "init": "kmeans"}}),
    "views": ("all", {"train.objective": "ancor", "coarse": {"dimension": 8, "queue_size": 9}}),
    "views of parts": ("last", {"train.objective": "supcon", "train.accumulate": 3, "coarse": {"dimension": 8}}),
    "steps": ("all", {"train.objective": "scgm-a", "coarse": {"subclasses": 5, "assign": "steps", "queue_size": 6}}),
    "no queue": ("all", {"train.objective": "scgm-a", "coarse": {"subclasses": 5, "assign": "steps", "queue": "none"}}),
    "queues": ("all", {"train.objective": "scgm-a", "coarse": {"subclasses": 5, "init": "kmeans", "queue_size": 6}}),
} | {name: ("all", {"train.head": "joint", "head.name": name}) for name in (*HEADS, "diagonal", "tied", "full")}
OTHER = {"units of parts": ("all", {"train.accumulate": 3}), "sdgm": CASES.pop("sdgm")}
"""Cases that end with another network: by parts of other rows, or by what a head draws for each row."""


def train_all(root, folder):
    """Train each case, in this process or with the others."""
    for name, (part, more) in (CASES | OTHER).items():
        recipe = resolve({"data.root": root, "output": folder} | KEYS | more)
        if recipe.head.name == "random_projection":
            recipe = recipe.model_copy(update={"head": recipe.head.model_copy(update={"options": {"width": 64}})})
        chosen = training_photos.of_dataset(recipe, factory.dataset_of(recipe.data))
        encoder = factory.trainable_of(recipe.encoder)
        pictures = [encoder.prepare(chosen.dataset.image(int(row))) for row in chosen.training]
        head = network_head.head_spec(recipe, encoder.dimension)
        assert recipe.train is not None
        material = Material(
            recipe.train, encoder, chosen, encoder.encode(torch.stack(pictures)), 0, 0, None, head, recipe.coarse
        )
        seconds = 1e6 if name == "time" else math.inf
        assert train_part(material, part, folder / name, lambda seconds=seconds: seconds) is not None


def last_weights(folder):
    """The name and the tensors of the newest checkpoint of a run."""
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: path.name)
    return newest.name, load_file(newest / "state.safetensors")


def assert_same(ours, theirs):
    """Two runs have ended after the same step, with the same network, optimizer and averages but for rounding."""
    (one, alone), (two, both) = last_weights(ours), last_weights(theirs)
    assert one == two
    assert alone.keys() == both.keys()
    for name, tensor in alone.items():
        np.testing.assert_allclose(both[name].double(), tensor.double(), atol=FAR, err_msg=name)


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """All cases, by one process and by two."""
    folder = tmp_path_factory.mktemp("law")
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    train_all(photos, folder / "one")

    def work(rank):
        with processes.connected(torch.device("cpu")):
            train_all(photos, folder / "two")
        return 0

    codes, said = together(folder, work)
    assert codes == [0, 0], said
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_the_network_of_one(trained, name):
    """Their batches are halves of those of one; the network has no batch norm."""
    assert_same(trained / "one" / name, trained / "two" / name)
    plans = [json.loads((trained / where / name / PLAN_FILE).read_text()) for where in ("one", "two")]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("name", OTHER)
def test_two_processes_take_the_steps_of_one(trained, name):
    (one, alone), (two, both) = (last_weights(trained / where / name) for where in ("one", "two"))
    assert one == two
    assert all(tensor.isfinite().all() and tensor.shape == alone[name].shape for name, tensor in both.items())


def words(photos, output, more=(), *flags):
    settings = {key: json.dumps(value) if isinstance(value, list) else value for key, value in KEYS.items()}
    pairs = [f"{key}={value}" for key, value in (settings | dict(more)).items()]
    return ["train", str(photos), "-o", str(output), *(word for pair in pairs for word in ("--set", pair)), *flags]


def test_the_command_ends_as_in_one_process(photos, tmp_path):
    """With a search, a joint head, and late unfreezing; the first process alone speaks."""
    (tmp_path / "search.yaml").write_text("search: {train.momentum: {low: 0.1, high: 0.8}}\n")
    more = {"train.head": "joint", "head.name": "full", "train.unfreeze": 1}
    flags = ("-r", str(tmp_path / "search.yaml"), "--search", "2", "--json")
    assert command(words(photos, tmp_path / "one", more, *flags)) == 0
    codes, said = together(tmp_path, lambda rank: command(words(photos, tmp_path / "two", more, *flags)))
    assert codes == [0, 0], said
    assert said[1] == ""
    for trial in ("0", "1"):
        ours, theirs = (tmp_path / name / "training" / "search" / trial for name in ("one", "two"))
        assert_same(ours, theirs)
        assert_same(ours / "head", theirs / "head")


def test_a_reconstruction_ends_as_in_one_process(photos, tmp_path):
    """Its loss is a mean over pixels; the decoder is trained and stored with the network."""
    more = {"encoder.name": "autoencoder", "train.objective": "reconstruction"}
    assert command(words(photos, tmp_path / "one", more, "-q")) == 0
    codes, said = together(tmp_path, lambda rank: command(words(photos, tmp_path / "two", more, "-q")))
    assert codes == [0, 0], said
    assert_same(tmp_path / "one" / "training", tmp_path / "two" / "training")
    ours, theirs = (load_file(tmp_path / name / "decoder.safetensors") for name in ("one", "two"))
    for name, tensor in ours.items():
        np.testing.assert_allclose(theirs[name], tensor, atol=FAR, err_msg=name)


def test_an_error_is_said_once(photos, tmp_path):
    line = words(photos, tmp_path / "shop", {"train.learning_rate": 1e30, "train.clip": 0})
    codes, said = together(tmp_path, lambda rank: command(line))
    assert codes == [65, 65], said
    assert said[0].count("mixtura: ") == 1
    assert "not finite" in said[0]
    assert said[1] == ""


def test_a_fault_of_another_process_is_said_by_the_first(photos, tmp_path, monkeypatch):
    def broken(self, batch, rows):
        raise KeyError("lost")

    def work(rank):
        if rank:
            trainer._Run._step = broken
        return command(words(photos, tmp_path / "shop"))

    codes, said = together(tmp_path, work)
    assert codes[0] == codes[1] != 0
    assert "KeyError: 'lost'" in said[0]
    assert said[1] == ""


@pytest.mark.parametrize("environment", [{"RANK": "0"}, {"WORLD_SIZE": "2"}, {"RANK": "1", "WORLD_SIZE": "2"}])
def test_half_an_environment_is_refused(photos, tmp_path, monkeypatch, capsys, environment):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert command(words(photos, tmp_path / "shop")) == 2
    assert "torchrun" in capsys.readouterr().err
    assert command(["doctor", "-q"]) == 0


def test_batch_norm_is_synchronized_on_gpus_only(photos, tmp_path, capsys):
    line = words(photos, tmp_path / "shop", {"train.norm": "synced", "encoder.device": "cpu"})
    assert command(line) == 2
    said = capsys.readouterr().err
    assert "on GPUs only, not on cpu" in said
    assert "averaged before every evaluation" in said
    assert not (tmp_path / "shop").exists()


def norms(monkeypatch, value, pretrained=False):
    """The batch norms of a network that is prepared for training, in training mode."""
    monkeypatch.setattr(network_setup.distributed, "synced", torch.nn.SyncBatchNorm.convert_sync_batchnorm)
    network = factory.trainable_of(resolve({"encoder.name": "cnn", "encoder.size": SIDE}).encoder, 0)
    built = network.network()
    made = Classifier(built, LinearHead(network.dimension, CLASSES), stages_of(network, built))
    network_setup.prepare(made, "all", TrainSection(norm=value), pretrained)
    made.train()
    kept = [one for one in made.network.modules() if isinstance(one, torch.nn.modules.batchnorm._BatchNorm)]
    assert kept
    return kept


def test_batch_norm_is_trained_as_asked(monkeypatch):
    assert all(type(one) is not torch.nn.SyncBatchNorm for one in norms(monkeypatch, None))
    assert all(not one.weight.requires_grad for one in norms(monkeypatch, "frozen"))
    assert all(not one.weight.requires_grad for one in norms(monkeypatch, None, pretrained=True))
    for one in norms(monkeypatch, "synced", pretrained=True):
        assert type(one) is torch.nn.SyncBatchNorm
        assert one.weight.requires_grad


STEP, TWICE = 7, {"train.epochs": 2}  # after the commit of the first epoch


def ending_itself(number):
    """A step in which the process sends itself a signal, once."""
    step = trainer._Run._step

    def stopped(self, batch, rows):
        if self.course.step == STEP:
            os.kill(os.getpid(), number)
        step(self, batch, rows)

    return stopped


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "shop"
    assert command(words(photos, output, TWICE, "-q")) == 0
    return output / "training"


def test_no_process_leaves_before_the_first_has_written(photos, tmp_path):
    """A job that ends with its first process to end would end the first one while it writes."""
    last, commit = tmp_path / "shop" / "training" / "checkpoints" / f"{STEP + 1:08d}", trainer.Checkpoints.commit

    def slow(self, checkpoint):
        if checkpoint.step > STEP:
            time.sleep(1)
        commit(self, checkpoint)

    def work(rank):
        if rank:
            trainer._Run._step = ending_itself(signal.SIGTERM)
        else:
            trainer.Checkpoints.commit = slow
        code = command(words(photos, tmp_path / "shop", TWICE))
        return code if last.exists() else 0

    codes, said = together(tmp_path, work)
    assert codes == [143, 143], said


def test_a_process_that_can_read_none_of_its_first_photos_trains_on(photos, tmp_path):
    batches = network._Run.batches

    def without_first(self, epoch, first):
        for number, batch in enumerate(batches(self, epoch, first), first):
            yield batch if epoch or number else {name: rows[:0] for name, rows in batch.items()}

    def work(rank):
        if rank:
            network._Run.batches = without_first
        return command(words(photos, tmp_path / "shop"))

    codes, said = together(tmp_path, work)
    assert codes == [0, 0], said


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_restart_is_known(monkeypatch, name):
    for count, known in (("0", False), ("2", True)):
        monkeypatch.setenv(name, count)
        assert processes.restarted() is known


ENDS = {"stop": (signal.SIGTERM, 1), "kill 0": (signal.SIGKILL, 0), "kill 1": (signal.SIGKILL, 1)}


@pytest.mark.parametrize(("number", "rank"), ENDS.values(), ids=ENDS)
def test_a_run_of_which_one_process_ends_goes_on(photos, tmp_path, undisturbed, number, rank):
    """A process that is told to stop takes the others with it; who outlives one says so. No commit is lost."""

    def work(own):
        if own == rank:
            trainer._Run._step = ending_itself(number)
        return command(words(photos, tmp_path / "shop", TWICE))

    codes, said = together(tmp_path, work)
    newest = last_weights(tmp_path / "shop" / "training")[0]
    if number == signal.SIGTERM:
        assert codes == [143, 143], said
        assert int(newest) == STEP + 1
        assert said[0].count("Run the same command again") == 1
        assert said[rank].count("terminated") <= 1
    else:
        assert codes[rank] == -signal.SIGKILL
        assert codes[1 - rank] == 1, said
        assert said[1 - rank].splitlines()[-1].startswith(f"mixtura: {processes.LOST} PyTorch says: ")
        assert 0 < int(newest) <= STEP
    os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"  # in a restart, --fresh has been followed already
    try:
        codes, said = together(tmp_path, lambda rank: command(words(photos, tmp_path / "shop", TWICE, "--fresh")))
    finally:
        del os.environ["TORCHELASTIC_RESTART_COUNT"]
    assert codes == [0, 0], said
    assert f"goes on after step {int(newest)} of" in said[0]
    assert_same(undisturbed, tmp_path / "shop" / "training")


def test_a_plan_that_the_disk_does_not_give_now_is_not_called_damaged(tmp_path):
    (tmp_path / PLAN_FILE).mkdir()
    with pytest.raises(NoInput, match=r"Cannot read .*plan\.json: .*same command again"):
        network._plan_in(tmp_path / PLAN_FILE)
