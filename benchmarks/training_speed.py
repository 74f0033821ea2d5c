"""How fast is training beside what it could be?  Three ratios, each of turns in one process.

    python benchmarks/training_speed.py                              # about three minutes on 2 idle cores
    python benchmarks/training_speed.py --only loop                  # or photos, or last
    python benchmarks/training_speed.py --photos 64 --rounds 1       # a short try

``photos``: the step rate of lite0 at 128 px, all of it trained, from JPEG files (500 x 375 pixels, two threads, the
default views), over the rate with the same batches in memory. The first epoch decodes the files, later ones have the
photos in memory. ``loop``: a step of the training loop over one of a bare PyTorch loop with the same small network,
optimizer and batches, on one thread: forward, cross-entropy, backward, SGD with momentum, and the loss of each step is
read. Measured is the thread's time on the processor, since nothing there waits. Commits and validation are left out of
both: their cost is a matter of how often one wants them. ``last``: seconds of an epoch that trains all of lite0, over
those of one that trains its last block on activations that are kept, validation included.

Writes benchmarks/results/training_speed.json; with --only, the other parts stay as they are in it.
"""

import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, arguments, write
from PIL import Image
from torch import Tensor, nn

from mixtura.encoders.lite0 import Lite0
from mixtura.fitting.network import Material, train_part
from mixtura.pipeline import factory, network_setup, training_photos
from mixtura.recipe import resolve
from mixtura.training.classifier import cross_entropy
from mixtura.training.optimizers import optimizer, parameter_groups
from mixtura.training.order import Order
from mixtura.training.setup import Settings, Setup
from mixtura.training.trainer import train
from mixtura.training_sections import TrainSection

SIZE, WORKERS, CLASSES, PHOTO = 128, 2, 8, (500, 375)
AIMS = {"photos": 0.9, "loop": 1.05, "last": 5.0}
RUN_EPOCHS = 10  # of which the first decodes
SMALL_BATCH, SMALL_STEPS, SMALL_SIDE = 32, 20, 32

Batches = Callable[[int, int], Iterator[Mapping[str, Tensor]]]


def timed(batches: Batches, clock: Callable[[], float], told: list[float]) -> Batches:
    """The batches, and the time from their first being asked for to the end of the last step."""

    def of_epoch(epoch: int, first: int) -> Iterator[Mapping[str, Tensor]]:
        began = clock()
        try:
            yield from batches(epoch, first)
        finally:  # the trainer closes it after its last step
            told.append(clock() - began)

    return of_epoch


def nothing(module: nn.Module) -> dict[str, float]:
    return {"loss": 0.0}


# photos


def shoot(folder: Path, count: int) -> Path:
    """Photos of soft shapes with some grain, about 60 KB each."""
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"c{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(
            PHOTO, Image.Resampling.BICUBIC
        )
        grain = np.asarray(coarse) + rng.normal(0, 6, (*PHOTO[::-1], 3))
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(place / f"{number:04}.jpg", quality=90)
    return folder


def material_of(work: Path, count: int) -> Material:
    """Made photos, about two thirds of them to train on, and lite0."""
    recipe = resolve({"data.root": str(shoot(work / "photos", count)), "output": str(work)})
    photos = training_photos.of_dataset(recipe, factory.dataset_of(recipe.data))
    encoder = Lite0(size=SIZE)
    start = [encoder.encode(encoder.prepare(photos.dataset.image(row))[None]) for row in photos.training]
    return Material(TrainSection(), encoder, photos, torch.cat(start), seed=0, workers=WORKERS)


def whole_network(material: Material, batches: Batches, steps: int) -> Setup:
    """The training of all of a network, without validation."""
    classifier = material.classifier()
    network_setup.prepare(classifier, "all", material.section, True)
    made = network_setup.optimizer_of(classifier, material.section, True)
    return Setup(classifier, cross_entropy, made, batches, steps, nothing)


def photos_part(material: Material, work: Path, rounds: int) -> dict[str, Any]:
    """Epochs with the batches in memory, with files to decode, and with photos that are kept, in turns."""
    labels = material.photos.labels[material.photos.training]
    order = Order(0, len(labels), material.section.batch_size, labels)
    kept = list(material.training.batches(order, 1))
    loaders = [material.training]
    memory, disk = list[float](), list[float]()

    def from_disk(epoch: int, first: int) -> Iterator[Mapping[str, Tensor]]:
        if epoch % 2 == 0:
            loaders[0] = replace(material).training  # it has nothing in memory
        return loaders[0].batches(order, epoch, first)

    setups = {
        "memory": whole_network(
            material, timed(lambda epoch, first: iter(kept[first:]), time.perf_counter, memory), order.steps
        ),
        "disk": whole_network(material, timed(from_disk, time.perf_counter, disk), order.steps),
    }
    for turn in range(1, rounds + 2):
        for name, epochs in (("memory", turn), ("disk", 2 * turn - 1), ("disk", 2 * turn)):
            train(setups[name], Settings(epochs, clip=1.0, incumbent=False), work / name)
    memory, first, later = memory[1:], disk[2::2], disk[3::2]  # the first round warms up
    run = [a + (RUN_EPOCHS - 1) * b for a, b in zip(first, later, strict=True)]
    return {
        "steps": order.steps,
        "step_ms": {
            "memory": 1e3 * statistics.median(memory) / order.steps,
            "first epoch": 1e3 * statistics.median(first) / order.steps,
            "later epochs": 1e3 * statistics.median(later) / order.steps,
        },
        "ratio": {
            "first epoch": ratio(memory, first),
            "later epochs": ratio(memory, later),
            f"{RUN_EPOCHS} epochs": ratio([RUN_EPOCHS * one for one in memory], run),
        },
    }


def ratio(these: list[float], those: list[float]) -> float:
    """The median of the ratios of turns."""
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


# loop


def small_network() -> nn.Module:
    """A small convolutional network: four blocks, as for pictures of 32 pixels."""
    torch.manual_seed(0)
    widths = [3, 16, 32, 64, 64]
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
        for a, b in pairwise(widths)
    ]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * (SMALL_SIDE // 16) ** 2, CLASSES))


def loss_of(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(module(batch["x"]), batch["label"])


def bare(data: list[dict[str, Tensor]], told: list[float]) -> Callable[[], None]:
    """An epoch of the plain loop; it reads the loss of each step, as every loop that reports one does."""
    module = small_network()
    made = torch.optim.SGD(module.parameters(), 0.01, momentum=0.9, fused=True)

    def epoch() -> None:
        module.train()
        began, total = time.thread_time(), 0.0
        for batch in data:
            made.zero_grad(set_to_none=True)
            loss = loss_of(module, batch)
            loss.backward()
            made.step()
            total += loss.item()
        told.append(time.thread_time() - began)

    return epoch


def loop_part(work: Path, rounds: int) -> dict[str, Any]:
    """Epochs of our loop and of the bare one, in turns."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    data = [
        {
            "x": torch.randn(SMALL_BATCH, 3, SMALL_SIDE, SMALL_SIDE, generator=generator),
            "label": torch.randint(CLASSES, (SMALL_BATCH,), generator=generator),
        }
        for _ in range(SMALL_STEPS)
    ]
    ours, theirs = list[float](), list[float]()
    module, plain = small_network(), bare(data, theirs)
    made = optimizer("sgd", parameter_groups(module, 0.01), momentum=0.9)
    batches = timed(lambda epoch, first: iter(data[first:]), time.thread_time, ours)
    setup = Setup(module, loss_of, made, batches, len(data), nothing)
    for epoch in range(1, rounds + 3):
        train(setup, Settings(epoch, incumbent=False), work / "loop")
        plain()
    ours, theirs = ours[2:], theirs[2:]  # the first two warm up
    return {
        "batch": SMALL_BATCH,
        "steps": SMALL_STEPS,
        "rounds": rounds,
        "step_ms": {
            "trainer": 1e3 * statistics.median(ours) / SMALL_STEPS,
            "bare": 1e3 * statistics.median(theirs) / SMALL_STEPS,
        },
        "ratio": ratio(ours, theirs),
    }


# last


def last_part(material: Material, work: Path, rounds: int) -> dict[str, Any]:
    """Epochs of both trainings, in turns; the first of a run, which may decode, does not count."""
    seconds: dict[str, list[float]] = {"last": [], "all": []}
    for turn in range(rounds):
        for part, epochs in (("last", 5), ("all", 2)):
            section = material.section.model_copy(update={"epochs": epochs})
            made = train_part(material.with_section(section), part, work / f"{part}-{turn}", lambda: float("inf"))
            assert made is not None
            seconds[part].append(statistics.median(epoch.seconds for epoch in made.log.epochs[1:]))
    return {
        "photos": {"training": len(material.photos.training), "validation": len(material.photos.validation)},
        "epoch_seconds": {part: statistics.median(one) for part, one in seconds.items()},
        "ratio": ratio(seconds["all"], seconds["last"]),
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--only", choices=AIMS)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3, help="of photos and last; ten times as many of the loop")
    given = parser.parse_args()
    work, asked = given.work / "training-speed", (given.only,) if given.only else tuple(AIMS)
    shutil.rmtree(work, ignore_errors=True)
    path = RESULTS / "training_speed.json"
    record = json.loads(path.read_text()) if given.only and path.is_file() else {}
    record.pop("machine", None)
    threads = torch.get_num_threads()
    material = None if asked == ("loop",) else material_of(work, given.photos)
    for part in asked:
        torch.set_num_threads(threads)
        if part == "loop":
            made = loop_part(work, 10 * given.rounds)
        else:
            assert material is not None
            made = {"photos": photos_part, "last": last_part}[part](material, work / part, given.rounds)
        record[part] = made | {"aim": AIMS[part]}
        print(part, record[part], flush=True)
    write("training_speed", record)


if __name__ == "__main__":
    main()
