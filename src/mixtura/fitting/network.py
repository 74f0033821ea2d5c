"""Train a part of an encoder's network on photos, and mix the result with the weights that it began with."""

import copy
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura import files
from mixtura.core import temperature
from mixtura.encoders.common import drawn
from mixtura.encoders.stages import stages_of
from mixtura.errors import CheckpointError
from mixtura.features.records import Unreadable
from mixtura.fitting import network_head
from mixtura.fitting.heads import HeadSpec
from mixtura.heads.base import Head
from mixtura.heads.linear import LinearHead
from mixtura.interfaces import TrainableEncoder
from mixtura.pipeline import network_setup
from mixtura.pipeline.training_photos import TrainingPhotos
from mixtura.records.training import TrainingLog, TrainingProgress
from mixtura.training import distributed
from mixtura.training.activations import KeptViews, chunks, with_activations
from mixtura.training.checkpoint import Facts
from mixtura.training.classifier import Classifier, cross_entropy, scored, vectors, without_rows
from mixtura.training.loaders import Batch, Loader
from mixtura.training.order import Order
from mixtura.training.range_test import suitable_rate
from mixtura.training.setup import Setup, count
from mixtura.training.state import copied, evaluating, of_module, replaced
from mixtura.training.steps import Steps
from mixtura.training.trainer import train
from mixtura.training_sections import TrainSection

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How far the weights go from the start to the trained ones; validation photos choose."""

PLAN_FILE = "plan.json"
FIRST_PHOTOS = 100  # of each class, to which a head is fitted before its network has learned anything
PROBE_STEPS = 3  # the first one warms up


@dataclass(frozen=True)
class Material:
    """What every part of a network is trained with.

    Args:
        section: how.
        encoder: whose network it is. One with weights has no taps here: by these, the head would know the photos by
            heart before the network has learned anything from them.
        photos: training and validation photos.
        start: the vectors of the training photos by the encoder as it is; ``None`` for an encoder whose weights are
            drawn, which then has no incumbent.
        seed: of order, views, and drawn weights.
        workers: threads that decode.
        progress: called after each step.
        head: that is trained jointly; ``None`` for a linear one.
    """

    section: TrainSection
    encoder: TrainableEncoder
    photos: TrainingPhotos
    start: Float[Tensor, "T D"] | None
    seed: int
    workers: int
    progress: Callable[[TrainingProgress], None] | None = None
    head: HeadSpec | None = None

    @property
    def pretrained(self) -> bool:
        """Whether the weights at the start are worth something."""
        return self.start is not None

    def classifier(self) -> Classifier:
        """The network as it begins, with its head."""
        network = self.encoder.network()
        device = next(network.parameters()).device
        head = distributed.of_first(lambda: self._first_head(network))
        return Classifier(network, head.to(device), stages_of(self.encoder, network))

    def _first_head(self, network: nn.Module) -> Head:
        """The head as it begins: fitted to the vectors of the network as it is, if it is trained jointly.

        A linear head that only serves for training starts from zero where the network comes with weights. One that is
        fitted to the training photos is steep where it errs on another view of them, and in two epochs the network
        loses what it knew.
        """
        labels, count = torch.from_numpy(self.photos.labels[self.photos.training]), len(self.photos.classes)
        if self.head is None and self.start is not None:
            return LinearHead.from_rows(self.start, labels, count, start="zeros")
        if self.head is None:
            return drawn(self.seed, lambda: LinearHead(self.encoder.dimension, count))
        if self.start is not None:
            return network_head.fitted_head(self.head, self.start, labels, count)
        x, labels = network_head.drawn_vectors(network, self._first_batches(labels), self.seed)
        return network_head.fitted_head(self.head, x, labels, count)

    def _first_batches(self, labels: Tensor) -> list[Batch]:
        """Some photos of each class, without random views, to which the head of a drawn network is fitted."""
        mixed = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed))
        own = nn.functional.one_hot(labels[mixed])
        few = mixed[(own.cumsum(0) * own).amax(1) <= FIRST_PHOTOS].numpy()
        rows = [few[part] for part in chunks(len(few), self.section.batch_size)]
        loader = self._loader(self.photos.training, False)
        batches = [batch for batch in loader.read(rows) if len(batch["row"])]
        return [batch for batch in batches if len(batch["row"]) > 1] or batches  # one row has no statistics

    @cached_property
    def training(self) -> Loader:
        """The training photos, each time in another view."""
        return self._loader(self.photos.training, True)

    @cached_property
    def validation(self) -> Loader:
        """The validation photos, as they are encoded in prediction."""
        return self._loader(self.photos.validation, False)

    def _loader(self, rows: Any, views: bool) -> Loader:
        augmentation = network_setup.augmentation_of(self.section, self.seed) if views else None
        dataset = self.photos.dataset.subset(rows)
        weights = torch.tensor([item.weight for item in dataset.items], dtype=torch.float64).numpy()
        return Loader(
            dataset, self.encoder, self.photos.labels[rows], weights=weights if views else None,
            augmentation=augmentation, workers=self.workers,
        )  # fmt: skip

    def with_section(self, section: TrainSection) -> "Material":
        """The same photos for another training; what was decoded is kept, where the views stay."""
        made = replace(self, section=section)
        made.__dict__["validation"] = self.validation
        if section.augment == self.section.augment:
            made.__dict__["training"] = self.training
        return made

    @property
    def problems(self) -> tuple[Unreadable, ...]:
        """The photos that could not be read."""
        return (*self.training.problems, *self.validation.problems)


@dataclass(frozen=True)
class TrainedPart:
    """A network of which a part was trained: ``share`` of the way from the start, where it has a validation ``loss``.

    ``start_loss`` is that of the start, in nats; ``blocks`` are the names of the blocks that were trained; ``head`` are
    the tensors of the head, and ``accuracy`` is that of the validation photos.
    """

    part: str
    share: float
    loss: float
    start_loss: float
    network: nn.Module
    blocks: tuple[str, ...]
    log: TrainingLog
    head: Mapping[str, Tensor]
    accuracy: float


def train_part(
    material: Material,
    part: str,
    folder: Path,
    left: Callable[[], float],
    head: Mapping[str, Tensor] | None = None,
) -> TrainedPart | None:
    """Train a part of the network, or go on with that; ``None`` if the time does not suffice for one epoch.

    Args:
        material: what it is trained with.
        part: ``head``, ``last``, ``norm`` or ``all``.
        folder: of the run.
        left: seconds that are left for it; asked before each step.
        head: tensors of a head that was trained alone, to go on with; the way back leads to the start before that.

    Raises:
        NonFinite, CheckpointError, CannotWrite, OutOfSpace: see :func:`mixtura.training.trainer.train`.
    """
    if distributed.of_first(left) <= 0:
        return None
    classifier = material.classifier()
    blocks = len(classifier.stages)
    classifier.first = {"last": blocks - 1, "head": blocks}.get(part, 0)
    network_setup.prepare(classifier, part, material.section, material.pretrained)
    start = copied(of_module(classifier))
    if head is not None:
        classifier.head.load_state_dict(head)
    run = _Run(material, classifier, part)
    epochs = run.planned(folder, left)
    if epochs < 1:
        return None
    settings = network_setup.settings_of(material.section, epochs, material.seed)
    made = train(run.setup(classifier, epochs), settings, folder, material.progress, lambda: left() <= 0)
    if not made.best:
        return None
    end = made.weights.tensors
    found = run.mixed_results(start, end)
    losses = {share: one["loss"] for share, one in found.items()}
    share = min(losses, key=lambda share: (losses[share], share))
    _assign(classifier, _mixed(start, end, share))
    trained = tuple(name for name, held in classifier.stages.blocks(classifier.network) if _any_trained(held))
    return TrainedPart(
        part, share, losses[share], losses.get(0.0, math.nan), classifier.network, trained, made.log,
        copied(classifier.head.state_dict()), found[share]["accuracy"],
    )  # fmt: skip


class _Run:
    """The run of one part: its batches in both roles, and what they cost."""

    def __init__(self, material: Material, classifier: Classifier, part: str) -> None:
        self.material, self.classifier, self.part = material, classifier, part
        self.section, photos = material.section, material.photos
        labels, size = photos.labels[photos.training], self.section.batch_size
        self.order = Order(material.seed, len(labels), min(size, len(labels)), labels, self.section.balance)
        network, stages, first = classifier.network, classifier.stages, classifier.first
        own = np.asarray(distributed.own_rows(len(photos.validation)))
        rows = [own[part] for part in chunks(len(own), size)]
        below = partial(with_activations, network=network, stages=stages, first=first)
        self.kept = [below(batch) for batch in material.validation.read(rows)] if first else None
        self.rows = rows
        self.views = KeptViews(material.training, network, stages, first, size) if first else None

    def batches(self, epoch: int, first: int) -> Any:
        """The training batches of an epoch; of their rows, this process's share."""
        place = distributed.rank(), distributed.processes()
        if self.views is not None:
            return self.views.batches(self.order, epoch, first, *place)
        return self.material.training.batches(self.order, epoch, first, *place)

    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """Mean loss in nats, at its best temperature, and accuracy of the validation photos.

        The fit that follows finds a temperature of its own, so how sure the head is counts for nothing.
        """
        batches: Iterable[Batch] = self.material.validation.read(self.rows) if self.kept is None else self.kept
        scores, labels = scored(module, batches)
        return _results(scores, labels)

    def results_of(self, tensors: Mapping[str, Tensor]) -> Mapping[str, float]:
        """The validation results of other weights."""
        with replaced(self.classifier, tensors), evaluating(self.classifier):
            return self.validate(self.classifier)

    def mixed_results(self, start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[float, Mapping[str, float]]:
        """The validation results of the weights that may be taken, by their share of the way from start to end."""
        material = self.material
        if material.start is None or (material.head is None and self.part == "head"):
            return {1.0: self.results_of(end)}
        found = {share: self.results_of(_mixed(start, end, share)) for share in SHARES}
        return found if material.head is not None else found | {0.0: self.start_results(material.start, start)}

    @torch.no_grad()
    def start_results(self, known: Float[Tensor, "T D"], tensors: Mapping[str, Tensor]) -> Mapping[str, float]:
        """The validation results of the weights at the start, under a head fitted to the training photos' vectors.

        It takes the place of the head that is there, which knows nothing yet.
        """
        photos = self.material.photos
        with replaced(self.classifier, tensors), evaluating(self.classifier):
            held, labels = vectors(self.classifier.network, self.material.validation.read(self.rows))
        learned = torch.from_numpy(photos.labels[photos.training])
        scores = LinearHead.from_rows(known, learned, len(photos.classes)).class_scores(held).double()
        return _results(scores, labels)

    def setup(self, classifier: Classifier, epochs: int) -> Setup:
        """What the loop takes."""
        schedule = network_setup.schedule_of(self.section, self.order.steps, epochs)
        same = network_setup.facts_of(self.section, self.part, epochs) | {
            "encoder": self.material.encoder.fingerprint,
            "data": self.material.photos.digest,
        }
        same |= network_head.facts_of(self.material.head)
        return Setup(
            classifier,
            cross_entropy,
            network_setup.optimizer_of(classifier, self.section, self.material.pretrained),
            self.batches,
            self.order.steps,
            self.validate,
            schedule.factor,
            network_head.hooks_of(classifier) | network_setup.hooks_of(classifier, self.section),
            Facts(same),
            without_rows,
        )

    def planned(self, folder: Path, left: Callable[[], float]) -> int:
        """The epochs of the run: as many as fit into the time, as measured; later calls give the same number."""
        path, asked = folder / PLAN_FILE, self.section.epochs
        plan = distributed.of_first(lambda: _plan_in(path))
        rate = self._settled_rate(plan.get("learning_rate"))
        if plan.get("asked") == asked and plan.get("learning_rate") == rate and "epochs" in plan:
            return int(plan["epochs"])
        epochs = asked
        if distributed.of_first(left) < math.inf:
            seconds = self._seconds_an_epoch()
            epochs = distributed.of_first(lambda: min(epochs, int(left() / seconds)))
        if epochs and not distributed.rank():
            plan = {"asked": asked, "epochs": epochs} | ({} if rate is None else {"learning_rate": rate})
            files.make_folder(folder)
            files.write(path, json.dumps(plan).encode())
        return epochs

    def _settled_rate(self, known: float | None) -> float | None:
        """The rate of a range test, which earlier calls have made or this one makes; ``None`` if another is given."""
        if self.section.learning_rate != network_setup.AUTO:
            return None
        rate, settings = known, network_setup.settings_of(self.section, 1, self.material.seed)
        if rate is None:
            rate = suitable_rate(self.setup(copy.deepcopy(self.classifier), 1), settings)
            rate = distributed.of_first(lambda: rate)
        self.section = self.section.model_copy(update={"learning_rate": rate})
        if self.material.progress is not None:
            said = f"The learning rate is {rate:g}, by a range test."
            self.material.progress(TrainingProgress(0, self.order.steps, 0.0, 0.0, math.inf, 1, math.nan, said))
        return rate

    def _seconds_an_epoch(self) -> float:
        """How long an epoch takes with its validation, measured on a copy of the network."""
        trial = copy.deepcopy(self.classifier)
        settings = network_setup.settings_of(self.section, 1, self.material.seed)
        times = [time.perf_counter()]
        with (
            torch.random.fork_rng(),
            closing(Steps(self.setup(trial, 1), settings)) as steps,
            closing(iter(self.batches(0, 0))) as batches,
        ):
            for batch in itertools.islice(batches, PROBE_STEPS):
                if steps.gradient(batch, distributed.total([float(count(batch))])[0]):
                    steps.move()
                times.append(time.perf_counter())
        step = (times[-1] - times[1]) / (len(times) - 2) if len(times) > 2 else times[-1] - times[0]
        began = time.perf_counter()
        with evaluating(trial):
            self.validate(trial)
        return step * self.order.steps + time.perf_counter() - began


def _results(scores: Float[Tensor, "N C"], labels: Int[Tensor, " N"]) -> dict[str, float]:
    """Mean loss in nats, at its best temperature, and accuracy."""
    loss = temperature.nll(scores, labels, temperature.best(scores, labels))
    return {"loss": loss, "accuracy": float((scores.argmax(1) == labels).double().mean())}


def _plan_in(path: Path) -> dict[str, float]:
    """What an earlier call has planned, if any.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        return {key: float(value) for key, value in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is damaged. Restore it, or start again with --fresh, which moves this run aside."
        ) from error


def _mixed(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The weights a share of the way from one set to another; at 0 and 1 they are these, to the bit."""
    ends = {0.0: start, 1.0: end}
    if share in ends:
        return dict(ends[share])
    return {name: torch.lerp(a, end[name], share) if a.is_floating_point() else end[name] for name, a in start.items()}


@torch.no_grad()
def _assign(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, live in of_module(module).items():
        live.copy_(tensors[name])


def _any_trained(held: Mapping[str, nn.Parameter]) -> bool:
    return any(parameter.requires_grad for parameter in held.values())
