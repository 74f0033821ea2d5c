"""Inputs and results of training: samples and hyperparameters in, epochs and a head or a network out."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.heads.base import Head
from mixtura.records.training import TrainingLog


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of gradient training.

    Args:
        epochs: passes over the training samples; 0 keeps the initialization.
        batch_size: samples per mini-batch.
        learning_rate: initial learning rate of a half-cosine decay; heads are in units of the data's spread.
        patience: epochs without a better validation loss before training stops; ``None`` for never.
        kl_weight: weight of the head's penalty relative to the Bayesian 1 / N; warms up to this value over the
            first half of the epochs.
        l2: precision of a normal prior on the head's input gradients, in units of the data's spread; like 1 / C in
            logistic regression.
        optimizer: a name in :data:`mixtura.training.optimizers.OPTIMIZERS`.
        stop: the epoch to stop after and keep, whatever the validation loss; ``None`` to select by validation.
        final_learning_rate: the learning rate at the end of the last epoch.
    """

    epochs: int = 30
    batch_size: int = 256
    learning_rate: float = 3e-3
    patience: int | None = None
    kl_weight: float = 1.0
    l2: float = 0.0
    optimizer: str = "adam"
    stop: int | None = None
    final_learning_rate: float = 0.0


@dataclass(frozen=True)
class TrainingData:
    """Disjoint training and validation samples; ``seed`` shuffles the training samples.

    ``weight`` and ``val_weight`` are sample weights; ``None`` for 1 each.
    """

    x: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"]
    val_x: Float[Tensor, "M D"]
    val_labels: Int[Tensor, " M"]
    seed: int = 0
    weight: Float[Tensor, " N"] | None = None
    val_weight: Float[Tensor, " M"] | None = None

    @property
    def total(self) -> float:
        """Total weight of the training samples."""
        return float(len(self.x) if self.weight is None else self.weight.sum(dtype=torch.float64))


@dataclass(frozen=True)
class Epoch:
    """Metrics of one epoch: mean training loss, validation loss (nats), validation accuracy and ``dead`` classes.

    A dead class occurs in the validation samples but is never predicted. Epoch 0 is the initialization; its training
    loss is NaN. ``error`` is the standard error of the validation loss, ``sparsity`` the share of zero weights.
    """

    number: int
    loss: float
    val_nll: float
    val_accuracy: float
    dead: int
    error: float = 0.0
    sparsity: float = 0.0


@dataclass(frozen=True)
class Trained:
    """A head at its best epoch, the metrics of each epoch, and why training stopped if the loss was not finite."""

    head: Head
    epochs: tuple[Epoch, ...]
    best: int
    stopped: str | None = None


@dataclass(frozen=True)
class Weights:
    """The parameters and buffers of a network by name, on the CPU, after ``epoch``, with its validation loss."""

    tensors: Mapping[str, Tensor]
    epoch: int
    loss: float


@dataclass(frozen=True)
class TrainedNetwork:
    """What training gave: the best weights by validation loss, ``raw`` and by the name of each hook that averages.

    The network itself holds the weights of the last step.
    """

    best: Mapping[str, Weights]
    log: TrainingLog

    @property
    def weights(self) -> Weights:
        """The best of all."""
        return min(self.best.values(), key=lambda weights: weights.loss)
