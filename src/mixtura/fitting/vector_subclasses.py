"""SCGM-G on vectors that are there already: an embedder in which the subclasses of known classes come apart."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.coarse_sections import CoarseSection
from mixtura.encoders.common import drawn
from mixtura.errors import NonFinite
from mixtura.fitting.network_subclasses import SubclassTraining
from mixtura.training.classifier import LABEL, ROW, VECTOR, WEIGHT
from mixtura.training.optimizers import optimizer, parameter_groups
from mixtura.training.order import Order
from mixtura.training.schedule import Schedule
from mixtura.training.setup import Batch, Settings, Setup
from mixtura.training.steps import Steps
from mixtura.training.subclasses import SubclassHead, VectorClassifier

BATCH_ROWS, STEP_ROWS = 64, 4096  # of a step of training; of a pass over all rows
RATE, DECAY = 0.03, 1e-4


@dataclass(frozen=True)
class VectorTraining:
    """How an embedder is trained.

    Args:
        embedder: ``linear``, one layer, or ``mlp``, two with a rectifier between them.
        epochs: passes over the rows.
        starts: trainings from other subclass means, of which the one with the lowest loss is kept.
        width: length of the embeddings.
    """

    embedder: Literal["linear", "mlp"] = "linear"
    epochs: int = 30
    starts: int = 3
    width: int = 128


@dataclass(frozen=True)
class LearnedSubclasses:
    """The subclass of each of N rows, numbered through all classes in their order, and what has told them apart.

    ``loss`` is that of the rows after training, in nats; ``shift`` and ``scale`` are taken off vectors before the head.
    """

    subclass: Int[np.ndarray, " N"]
    head: SubclassHead
    loss: float
    shift: Float[Tensor, " D"]
    scale: float

    @torch.no_grad()
    def class_log_prob(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Log-probability of each class through the subclasses, in nats."""
        return self.head((x - self.shift) / self.scale)


def learned(
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    counts: Sequence[int],
    training: VectorTraining = VectorTraining(),
    seed: int = 0,
) -> LearnedSubclasses:
    r"""Train an embedder on the classes of vectors, and return the subclasses that come apart in it.

    .. math:: \mathcal L_{CE} + \tfrac12 \left[ -\log p(z \mid v) - \log p(y \mid z) \right]

    Every class has subclasses of its own, of equal sizes as far as vectors allow. They begin at centers of k-means
    within the class. Assignments are renewed before each epoch. Equal arguments give equal results, and the rows are
    taken in their order.

    Args:
        x: vectors.
        labels: class of each, from 0.
        counts: subclasses of each class, one or more, at most as many as rows.
        training: how.
        seed: of the drawn weights, of k-means, and of the order in training.

    Raises:
        NonFinite: a vector is not finite, or the loss.

    Source: Ni et al., Superclass-Conditional Gaussian Mixture Model for Learning Fine-Grained Embeddings, ICLR 2022.
    """
    if not x.isfinite().all():
        raise NonFinite("The vectors hold NaN or infinity. Check the features.")
    shift = x.mean(0)
    centered = x - shift
    scale = max(float(centered.square().mean().sqrt()), torch.finfo(x.dtype).tiny)
    section = CoarseSection(
        subclasses=tuple(counts), mask=True, init="kmeans", every=1,
        dimension=training.width, embedder=training.embedder,
    )  # fmt: skip
    runs = [_Run(centered / scale, labels, section, training.epochs, seed + start) for start in range(training.starts)]
    best = min((run.made() for run in runs), key=lambda made: made[2])
    return LearnedSubclasses(*best, shift, scale)


class _Run:
    """One training."""

    def __init__(
        self, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], section: CoarseSection, epochs: int, seed: int
    ) -> None:
        assert isinstance(section.subclasses, tuple)
        self.x, self.labels, self.epochs, counts = x, labels, epochs, section.subclasses
        owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        head = drawn(
            seed,
            lambda: SubclassHead(
                x.shape[1], len(counts), sum(counts), section.dimension, section.embedder, subclass_class=owner,
                variance=section.variance, class_variance=section.class_variance,
            ),
        )  # fmt: skip
        self.classifier = VectorClassifier(head)
        self.order = Order(seed, len(x), min(BATCH_ROWS, len(x)))
        self.training = SubclassTraining.of(
            section, self.classifier, labels.numpy(), self._plain, seed, lambda said: warnings.warn(said, stacklevel=2)
        )

    def made(self) -> tuple[Int[np.ndarray, " N"], SubclassHead, float]:
        """The subclasses, the head, and the loss of all rows."""
        groups = parameter_groups(self.classifier, RATE, DECAY)
        setup = Setup(
            self.classifier, self.training.loss, optimizer("sgd", groups), lambda epoch, first: iter(()),
            self.order.steps, lambda module: {},
        )  # fmt: skip
        steps, schedule = Steps(setup, Settings(self.epochs)), Schedule("cosine", self.order.steps, self.epochs)
        for epoch in range(self.epochs):
            self.training.before(epoch)
            for place, rows in enumerate(self.order.batches(epoch)):
                steps.set_rate(schedule.factor(epoch * self.order.steps + place))
                told = steps.gradient(self._batch(torch.from_numpy(rows)), float(len(rows)))
                if not math.isfinite(told[0]["loss"]):
                    raise NonFinite(f"The loss of epoch {epoch + 1} is not finite. Check the features for huge values.")
                steps.move()
        found = self.training.settled(self._plain(), self.labels.numpy(), np.ones(len(self.x), dtype=bool))
        self.training.assignment.set(torch.from_numpy(found), torch.arange(len(found)))
        with torch.no_grad():
            sums = [len(batch[ROW]) * float(self._loss(batch)) for batch in self._plain()]
        return found, self.classifier.head, sum(sums) / len(self.x)

    def _loss(self, batch: Batch) -> Tensor:
        made = self.training.loss(self.classifier, batch)
        return made[0] if isinstance(made, tuple) else made

    def _plain(self) -> Iterator[Batch]:
        return map(self._batch, torch.arange(len(self.x)).split(STEP_ROWS))

    def _batch(self, rows: Int[Tensor, " B"]) -> Batch:
        return {VECTOR: self.x[rows], LABEL: self.labels[rows], WEIGHT: torch.ones(len(rows)), ROW: rows}
