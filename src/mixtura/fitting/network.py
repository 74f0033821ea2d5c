"""Train a part of an encoder's network on photos, and mix the result with the weights that it began with."""

import copy
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from mixtura import files
from mixtura.errors import CheckpointError
from mixtura.fitting import network_head
from mixtura.fitting.network_angular import AngularTraining
from mixtura.fitting.network_material import Material
from mixtura.fitting.network_objective import objective_of
from mixtura.pipeline import network_setup
from mixtura.records.training import TrainingLog, TrainingProgress
from mixtura.training import distributed
from mixtura.training.activations import KeptViews, chunks, with_activations
from mixtura.training.checkpoint import Facts, cannot_read
from mixtura.training.classifier import without_rows
from mixtura.training.embedding import EmbeddingClassifier
from mixtura.training.loaders import Batch
from mixtura.training.range_test import suitable_rate
from mixtura.training.setup import Setup, count
from mixtura.training.state import copied, evaluating, of_module, own_random_numbers, replaced
from mixtura.training.steps import Steps
from mixtura.training.subclasses import SubclassClassifier
from mixtura.training.trainer import train

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How far the weights go from the start to the trained ones; validation photos choose."""

PLAN_FILE = "plan.json"
PROBE_STEPS = 3  # the first one warms up


@dataclass(frozen=True)
class TrainedPart:
    """A network of which a part was trained: ``share`` of the way from the start, where it has a validation ``loss``.

    ``start_loss`` is that of the start, NaN where the head was new; ``blocks`` are the names of the blocks that were
    trained; ``head`` are the tensors of the head, or of the decoder, and ``accuracy`` is that of the validation photos,
    NaN without classes. ``subclasses`` has the subclass of each photo of the material, where some were found.
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
    subclasses: Int[np.ndarray, " N"] | None = None


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
    classifier = material.module()
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
    settings = network_setup.settings_of(material.section, epochs, material.seed, material.keeps_last)
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
        copied(classifier.head.state_dict()), found[share].get("accuracy", math.nan),
        None if run.subclasses is None else material.settled_subclasses(run.subclasses),
    )  # fmt: skip


class _Run:
    """The run of one part: its batches in both roles, and what they cost."""

    def __init__(self, material: Material, classifier: network_setup.Trained, part: str) -> None:
        self.material, self.classifier, self.part = material, classifier, part
        self.section, self.order, episodes = material.section, material.order, material.episodes
        network, stages, first = classifier.network, classifier.stages, classifier.first
        self.subclasses = None
        if isinstance(classifier, SubclassClassifier):
            self.subclasses = material.subclasses(classifier, self._say)
        self.contrast = material.contrast(classifier) if isinstance(classifier, EmbeddingClassifier) else None
        validation = () if episodes is None else episodes.validation.episodes
        self.objective = objective_of(self.section, validation, self.subclasses, self.contrast)
        own, size = np.asarray(distributed.own_rows(len(material.used.validation))), self.section.batch_size
        rows = [own[part] for part in chunks(len(own), size)]
        below = partial(with_activations, network=network, stages=stages, first=first)
        self.kept = [below(batch) for batch in material.validation.read(rows)] if first else None
        self.rows = rows
        self.views = KeptViews(material.training, network, stages, first, size) if first else None

    def batches(self, epoch: int, first: int) -> Any:
        """The training batches of an epoch; of their rows, this process's share."""
        if self.subclasses is not None and not first:
            self.subclasses.before(epoch)
        place = distributed.rank(), distributed.processes()
        if self.views is not None:
            return self.views.batches(self.order, epoch, first, *place)
        return self.material.training.batches(self.order, epoch, first, *place)

    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """The results of the validation photos."""
        batches: Iterable[Batch] = self.material.validation.read(self.rows) if self.kept is None else self.kept
        return self.objective.results(module, batches)

    def results_of(self, tensors: Mapping[str, Tensor]) -> Mapping[str, float]:
        """The validation results of other weights."""
        with replaced(self.classifier, tensors), evaluating(self.classifier):
            return self.validate(self.classifier)

    def mixed_results(self, start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[float, Mapping[str, float]]:
        """The validation results of the weights that may be taken, by their share of the way from start to end.

        The start itself is left out where its linear head is new and knows nothing: the models of both networks are
        compared later, once the usual fit is made.
        """
        material = self.material
        if material.section.keeps_kinds_apart:
            return {1.0: self.results_of(end)}
        if material.start is None or (material.head is None and self.part == "head"):
            return {1.0: self.results_of(end)}
        new = material.head is None and material.episodes is None
        return {share: self.results_of(_mixed(start, end, share)) for share in SHARES if share or not new}

    def setup(self, classifier: network_setup.Trained, epochs: int) -> Setup:
        """What the loop takes."""
        schedule = network_setup.schedule_of(self.section, self.order.steps, epochs)
        same = network_setup.facts_of(self.section, self.part, epochs)
        same |= {"encoder": self.material.encoder.fingerprint} | self.material.facts
        same |= network_head.facts_of(self.material.head)
        hooks = network_head.hooks_of(classifier) | network_setup.hooks_of(classifier, self.section)
        for own in (self.subclasses, self.contrast):
            same, hooks = (same, hooks) if own is None else (same | own.facts, hooks | own.hooks)
        return Setup(
            classifier,
            self.objective.loss,
            network_setup.optimizer_of(classifier, self.section, self.material.pretrained),
            self.batches,
            self.order.steps,
            self.validate,
            schedule.factor,
            hooks,
            Facts(same),
            self.subclasses.without_rows if isinstance(self.subclasses, AngularTraining) else without_rows,
            self.objective.logged,
        )

    def planned(self, folder: Path, left: Callable[[], float]) -> int:
        """The epochs of the run: as many as fit into the time, as measured; later calls give the same number."""
        path, asked = folder / PLAN_FILE, self.section.epochs
        plan = distributed.of_first(lambda: _plan_in(path))
        rate = self._settled_rate(plan.get("learning_rate"))
        if plan.get("asked") == asked and plan.get("learning_rate") == rate and "epochs" in plan:
            epochs = int(plan["epochs"])
            if epochs < asked:
                self._say(
                    f"This run keeps the {epochs} of {asked} epochs that it was given first. For more, use --fresh."
                )
            return epochs
        epochs = asked
        if distributed.of_first(left) < math.inf:
            seconds = self._seconds_an_epoch()
            epochs = distributed.of_first(lambda: min(epochs, int(left() / seconds)))
        for own in (self.contrast, self.subclasses):
            if own is not None:
                own.forget()
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
        self._say(f"The learning rate is {rate:g}, by a range test.")
        return rate

    def _say(self, message: str) -> None:
        """Tell the user something before a step."""
        if self.material.progress is not None:
            self.material.progress(TrainingProgress(0, self.order.steps, 0.0, 0.0, math.inf, 1, math.nan, message))

    def _seconds_an_epoch(self) -> float:
        """How long an epoch takes with its validation, measured on a copy of the network."""
        trial = copy.deepcopy(self.classifier)
        settings = network_setup.settings_of(self.section, 1, self.material.seed)
        times = [time.perf_counter()]
        with (
            own_random_numbers(next(trial.parameters()).device),
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
        if self.subclasses is not None:
            self.subclasses.rehearse()
        return step * self.order.steps + time.perf_counter() - began


def _plan_in(path: Path) -> dict[str, float]:
    """What an earlier call has planned, if any.

    Raises:
        CheckpointError: the file is damaged.
        NoInput: it is there and cannot be read.
    """
    try:
        return {key: float(value) for key, value in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise cannot_read(path, error) from error
    except (ValueError, TypeError, AttributeError) as error:
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
