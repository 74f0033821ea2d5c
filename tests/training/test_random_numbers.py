"""Random numbers of the program leave those of its caller alone, and touch no device that has no part in the work."""

import numpy as np
import pytest
import torch

from mixtura.features.records import Rows, to_features
from mixtura.features.store import FeatureStore
from mixtura.recipe import resolve
from mixtura.tasks import fit, sweep
from mixtura.training.state import own_random_numbers, seed_random_numbers


@pytest.fixture
def many_devices(monkeypatch):
    """A machine with eight GPUs, none of which may be asked for anything."""

    def asked(*arguments, **options):
        raise AssertionError("the state of a GPU was asked for")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_rng_state", asked)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", asked)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("store")
    number = np.arange(120)
    x = rng.standard_normal((3, 6))[number % 3] + 0.5 * rng.standard_normal((len(number), 6))
    ids, none, identity = [*map(str, number)], [None] * len(number), {"name": "tiny", "size": "32 px", "weights": "w"}
    rows = Rows(x, ids, ids, [f"c{i % 3}" for i in number], none, none, none, np.ones(len(x)), [""] * len(x))
    FeatureStore.create(folder / "features", identity, 6, "float32").append(to_features(rows, identity))
    return folder / "features"


@pytest.mark.parametrize(
    ("task", "keys"),
    [
        (fit.run, {"head.name": "softmax", "fit.solver": "gradient", "fit.epochs": 2}),
        (sweep.run, {"sweep.heads": ["softmax"], "sweep.n_seeds": 2, "sweep.jobs": 1, "fit.epochs": 2}),
    ],
)
def test_heads_trained_on_a_cpu_ask_no_gpu_and_leave_the_callers_numbers(store, tmp_path, many_devices, task, keys):
    torch.default_generator.manual_seed(5)
    before = torch.get_rng_state()
    given = {"data.kind": "features", "data.root": store, "output": tmp_path / "out", "encoder.device": "cpu"}
    task(resolve(given | keys))
    assert torch.equal(torch.get_rng_state(), before)


def test_apples_graphics_follow_the_seed_and_are_given_back(many_devices, monkeypatch):
    state = {"now": "the caller's"}
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state["now"])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda kept: state.update(now=kept))
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: state.update(now=seed))
    with pytest.raises(KeyError), own_random_numbers(torch.device("mps"), 7):
        assert state["now"] == 7
        raise KeyError
    assert state["now"] == "the caller's"
    with own_random_numbers(torch.device("mps")):
        seed_random_numbers(torch.device("mps"), 9)
        assert state["now"] == 9
    assert state["now"] == "the caller's"


def test_a_seed_counts_for_the_block_alone(many_devices):
    torch.default_generator.manual_seed(5)
    with own_random_numbers(torch.device("cpu"), 7):
        inside = torch.rand(3)
    after = torch.rand(3)
    assert torch.equal(after, torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(inside, torch.rand(3, generator=torch.Generator().manual_seed(7)))
