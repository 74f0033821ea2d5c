"""What does the training loop cost beside a bare PyTorch loop on the same network and batches, on one thread?

Both train in turns, epoch by epoch, in one process: forward, cross-entropy, backward, SGD with momentum, and the loss
of each step is read. Measured is the thread's time on the processor, since nothing here waits. Commits and validation
are left out: their cost is a matter of how often one wants them.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import torch
from common import write
from torch import Tensor, nn

from mixtura.training.optimizers import optimizer, parameter_groups
from mixtura.training.setup import Settings, Setup
from mixtura.training.trainer import train

BATCH, STEPS, EPOCHS, SIDE, CLASSES = 32, 20, 12, 32, 10
AIM = 1.05


def network() -> nn.Module:
    """A small convolutional network: four blocks, as for pictures of 32 pixels."""
    torch.manual_seed(0)
    widths = [3, 16, 32, 64, 64]
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
        for a, b in pairwise(widths)
    ]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * (SIDE // 16) ** 2, CLASSES))


def loss_of(module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(module(batch["x"]), batch["label"])


def setup(data: list[dict[str, Tensor]], told: list[float]) -> Setup:
    module = network()

    def batches(epoch: int, first: int) -> Iterator[dict[str, Tensor]]:
        began = time.thread_time()
        try:
            yield from data[first:]
        finally:  # the trainer closes it after its last step
            told.append(time.thread_time() - began)

    groups = parameter_groups(module, 0.01)
    made = optimizer("sgd", groups, momentum=0.9)
    return Setup(module, loss_of, made, batches, len(data), lambda module: {"loss": 0.0})


def bare(data: list[dict[str, Tensor]]) -> Callable[[], float]:
    """An epoch of the plain loop; it reads the loss of each step, as every loop that reports one does."""
    module = network()
    made = torch.optim.SGD(module.parameters(), 0.01, momentum=0.9, fused=True)

    def epoch() -> float:
        module.train()
        began, total = time.thread_time(), 0.0
        for batch in data:
            made.zero_grad(set_to_none=True)
            loss = loss_of(module, batch)
            loss.backward()
            made.step()
            total += loss.item()
        return time.thread_time() - began

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    data = [
        {
            "x": torch.randn(BATCH, 3, SIDE, SIDE, generator=generator),
            "label": torch.randint(CLASSES, (BATCH,), generator=generator),
        }
        for _ in range(STEPS)
    ]
    plain, ours, theirs = bare(data), [], []
    made = setup(data, ours)
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(1, given.epochs + 3):
            train(made, Settings(epoch, incumbent=False), Path(folder))
            theirs.append(plain())
    ours, theirs = ours[2:], theirs[2:]  # the first two warm up
    record = {
        "batch": BATCH,
        "steps_per_epoch": STEPS,
        "epochs": given.epochs,
        "step_ms": {
            "trainer": 1e3 * statistics.median(ours) / STEPS,
            "bare": 1e3 * statistics.median(theirs) / STEPS,
        },
        "ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "aim": AIM,
    }
    print(record)
    write("training_loop", record)


if __name__ == "__main__":
    main()
