"""The examples run: on small data, through their own functions."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mixtura.heads.gaussian import GaussianHead

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gmml():
    return example("gmml_mnist")


@pytest.fixture(scope="module")
def digits():
    """1,200 small digits at the size of MNIST's."""
    found = load_digits()
    pixels = np.pad(np.kron(found.images / 16, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2)))
    order = np.random.default_rng(0).permutation(len(pixels))[:1200]
    x, y = torch.from_numpy(pixels[order]).float()[:, None], torch.from_numpy(found.target[order])
    return {"train": (x[:700], y[:700]), "validation": (x[700:900], y[700:900]), "test": (x[900:], y[900:])}


@pytest.fixture(scope="module")
def settings(gmml):
    return gmml.Settings(epochs=3, batch_size=64, start_batches=5)


def test_the_gaussian_network_learns_as_the_softmax_network_does(gmml, digits, settings):
    runs = [gmml.run(name, digits, replace(settings, epochs=6), 0) for name in gmml.NETWORKS]
    accuracy = {made["network"]: made["test"]["accuracy"] for made in runs}
    assert min(accuracy.values()) > 90
    assert abs(accuracy["gaussian"] - accuracy["softmax"]) < 5
    written = json.loads(json.dumps(gmml.record(settings, runs), allow_nan=False))
    assert written["test"]["gaussian"]["accuracy"] == {"mean": accuracy["gaussian"], "half_width": None}
    assert written["settings"]["family"] == "full"


def test_both_networks_start_from_the_same_layers(gmml, digits, settings):
    below = [made(digits["train"], settings, 3)[0] for made in gmml.NETWORKS.values()]
    names = [name for name, _ in below[0].named_parameters()]
    assert all(torch.equal(below[0].get_parameter(name), below[1].get_parameter(name)) for name in names)


def test_the_epoch_with_the_lowest_validation_loss_is_kept(gmml, digits, settings):
    network = gmml.with_gaussians(digits["train"], settings, 0)
    history = gmml.train(network, digits, replace(settings, rate=0.3), 0)  # much too fast: the last is not the best
    assert gmml.measure(network, digits["validation"])["nll"] == min(epoch["nll"] for epoch in history)


def test_what_is_frozen_stays_and_the_input_is_projected(gmml, digits, settings):
    options = replace(settings, projection="pca", width=16, freeze=("spread", "prior"), epochs=1, family="tied")
    network = gmml.with_gaussians(digits["train"], options, 0)
    head = network[1]
    assert isinstance(head, GaussianHead) and head.project.shape == (gmml.FEATURES, 16)
    before = {name: tensor.clone() for name, tensor in head.named_parameters()}
    gmml.train(network, digits, options, 0)
    changed = {name for name, tensor in head.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed == {"mean", "log_temperature"}


def test_the_command_takes_the_options_of_training_and_prints_one_seed_without_a_spread(
    gmml, digits, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(gmml, "splits", lambda folder: digits)
    words = ["--batch-size", "100", "--epochs", "1", "--lr", "0.004", "--json", str(tmp_path / "made.json")]
    gmml.main([*words, "--seed", "7"])
    said = capsys.readouterr().out
    assert "nan" not in said and "±" not in said and said.count("seed 7") == 3
    written = json.loads((tmp_path / "made.json").read_text())
    assert {name: written["settings"][name] for name in ("batch_size", "epochs", "rate")} == {
        "batch_size": 100,
        "epochs": 1,
        "rate": 0.004,
    }
    assert [run["seed"] for run in written["runs"]] == [7, 7]
    gmml.main([*words, "--seeds", "2"])
    said = capsys.readouterr().out
    assert "nan" not in said and "mean of 2 seeds" in said and said.count("±") == 1 + 2 * 3
    for bad in (["--seed", "1", "--seeds", "2"], ["--seeds", "0"], ["--batch-size", "0"]):
        with pytest.raises(SystemExit):
            gmml.main(bad)
