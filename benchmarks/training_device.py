"""A network trained on a device: pictures a second, bfloat16 beside float32, and three heads at equal budget.

ResNet-18 with a small stem, from drawn weights, on the pictures of a pack, which lie on the device together with their
random views (shifts of up to 4 pixels, mirrored or not; keyed by seed and epoch). Every run has the same weights at the
start, order, views, optimizer (SGD, Nesterov 0.9, cosine after a warmup) and number of epochs, through the loop that
``mixtura train`` uses. The heads are a linear layer (softmax), a diagonal Gaussian a class trained jointly, and
``online``, which follows the network by EM without a gradient. The last epoch is measured on held-out pictures, which
choose nothing.

    python benchmarks/training_device.py --data PACK.npz --device cuda [--epochs 20] [--seeds 1]

With 30,000 pictures and 20 epochs it is meant to end within 8 minutes on a GPU. Writes
benchmarks/results/training_on_DEVICE.json.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
from common import write
from torch import Tensor, nn

from mixtura.datasets.npz import load
from mixtura.encoders.stages import stages_of
from mixtura.encoders.timm import Timm
from mixtura.fitting import network_head
from mixtura.fitting.network_objective import class_results
from mixtura.heads.base import Head
from mixtura.heads.gaussian import GaussianHead
from mixtura.heads.linear import LinearHead
from mixtura.heads.online import OnlineGaussianHead
from mixtura.training.classifier import Classifier, cross_entropy, scored
from mixtura.training.order import Order
from mixtura.training.schedule import Schedule
from mixtura.training.setup import RAW, Batch, Settings, Setup
from mixtura.training.trainer import train

Figures = dict[str, float]
SIDE, SHIFT, BATCH = 32, 4, 128
RATE, DECAY, WARMUP = 0.05, 5e-4, 1.0
HELD_OUT = 5  # one picture in so many
RUNS: dict[str, tuple[type[Head], Literal["float32", "bf16"]]] = {
    "softmax, float32": (LinearHead, "float32"),
    "softmax": (LinearHead, "bf16"),
    "gaussian": (GaussianHead, "bf16"),
    "online": (OnlineGaussianHead, "bf16"),
}


class Pictures:
    """All pictures of a pack on a device, those to learn from and those held out."""

    def __init__(self, pack: Path, device: str, limit: int | None) -> None:
        dataset = load(pack)
        rows = np.random.default_rng(0).permutation(len(dataset.items))[:limit]
        names = sorted({str(dataset.items[row].label) for row in rows})
        pixels = np.stack([np.asarray(dataset.image(int(row)).convert("RGB").resize((SIDE, SIDE))) for row in rows])
        self.x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
        self.label = torch.tensor([names.index(str(dataset.items[row].label)) for row in rows], device=device)
        self.classes, held = len(names), len(rows) // HELD_OUT
        self.held, self.learned = torch.arange(held), torch.arange(held, len(rows))

    def batch(self, rows: Tensor, x: Tensor) -> Batch:
        """A batch as the loop takes it."""
        return {"x": x, "label": self.label[rows], "weight": torch.ones(len(rows), device=self.x.device)}

    def batches(self, order: Order, epoch: int, first: int) -> Iterator[Batch]:
        """The batches of an epoch, each picture in a view of its own."""
        drawn = torch.Generator().manual_seed(2**20 * order.seed + epoch)
        count = len(self.learned)
        shifts = torch.randint(2 * SHIFT + 1, (count, 2), generator=drawn).to(self.x.device)
        mirrored = (torch.rand(count, generator=drawn) < 0.5).to(self.x.device)
        rows = torch.from_numpy(order.rows(epoch))
        for piece in order.slices(first):
            chosen = rows[piece]
            x = nn.functional.pad(self.x[self.learned[chosen]], [SHIFT] * 4)
            down, right = shifts[chosen].T[:, :, None] + torch.arange(SIDE, device=x.device)
            right = torch.where(mirrored[chosen][:, None], right.flip(1), right)
            each = torch.arange(len(x), device=x.device)[:, None, None]
            yield self.batch(self.learned[chosen], x[each, :, down[:, :, None], right[:, None]].permute(0, 3, 1, 2))


def run(pictures: Pictures, kind: type[Head], precision: Literal["float32", "bf16"], epochs: int, seed: int) -> Figures:
    """What one head comes to after the last epoch, and how fast the network is trained with it."""
    encoder = Timm("resnet18", size=SIDE, stem="small", seed=seed)
    network = encoder.network()
    torch.manual_seed(seed)
    module = Classifier(network, kind(encoder.dimension, pictures.classes), stages_of(encoder, network))
    module.to(pictures.x.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    order = Order(seed, len(pictures.learned), BATCH)
    schedule = Schedule(steps_per_epoch=order.steps, epochs=epochs, warmup=min(WARMUP, epochs / 2))
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    held = [pictures.batch(rows, pictures.x[rows]) for rows in pictures.held.split(1000)]
    seconds: list[float] = []

    def timed(epoch: int, first: int) -> Iterator[Batch]:
        began = time.perf_counter()
        try:
            yield from pictures.batches(order, epoch, first)
        finally:  # closed after the last step, whose loss the loop has read
            seconds.append(time.perf_counter() - began)

    setup = Setup(
        module,
        cross_entropy,
        torch.optim.SGD(trained, RATE, momentum=0.9, weight_decay=DECAY, nesterov=True),
        timed,
        order.steps,
        lambda module: class_results(*scored(module, held)),
        schedule.factor,
        network_head.hooks_of(module),
    )
    settings = Settings(epochs, clip=1.0, precision=precision, incumbent=False, seed=seed)
    with TemporaryDirectory() as folder:
        last = train(setup, settings, Path(folder)).log.epochs[-1]
    results = last.validation[RAW]
    return {
        "accuracy": 100 * results["accuracy"],
        "nll": results["loss"],
        "pictures a second": len(pictures.learned) / statistics.median(seconds[1:] or seconds),  # the first warms up
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a pack of pictures")
    parser.add_argument("--pictures", type=int, help="so many of them")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    pictures = Pictures(given.data, given.device, given.pictures)
    found: dict[str, list[Figures]] = {}
    for seed in range(given.seeds):
        for name, (kind, precision) in RUNS.items():
            found.setdefault(name, []).append(run(pictures, kind, precision, given.epochs, seed))
            print(seed, name, {key: round(value, 3) for key, value in found[name][-1].items()}, flush=True)
    record = {
        "device": torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else given.device,
        "pictures": {"learned from": len(pictures.learned), "held out": len(pictures.held)},
        "epochs": given.epochs,
        "batch": BATCH,
        "runs": found,
    }
    write(f"training_on_{given.device.partition(':')[0]}", record)


if __name__ == "__main__":
    main()
