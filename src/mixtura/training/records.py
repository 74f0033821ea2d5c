"""What training by gradients is told, and what it tells: rows and a schedule in, epochs and a head out."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.heads.base import Head


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Args:
        epochs: passes over the training rows; 0 keeps the start.
        batch_size: rows in a step.
        learning_rate: the optimizer's, at the start of a half cosine; heads are in units of the data's spread.
        patience: epochs without a better validation loss before training ends; ``None`` for never.
        kl_weight: the weight of the head's own penalty relative to its Bayesian one, 1 / N; it rises to this over the
            first half of the epochs.
        l2: precision of a normal prior on the head's slopes, in units of the data's spread; what 1 / C is to
            logistic regression.
        optimizer: a name in :data:`mixtura.training.head_stack.OPTIMIZERS`.
        stop: the epoch to end after and to keep, whatever the validation rows say; ``None`` to let them pick it.
    """

    epochs: int = 30
    batch_size: int = 256
    learning_rate: float = 3e-3
    patience: int | None = None
    kl_weight: float = 1.0
    l2: float = 0.0
    optimizer: str = "adam"
    stop: int | None = None


@dataclass(frozen=True)
class TrainingData:
    """Rows to learn from and rows that say when to stop; they share no item. ``seed`` orders those that learn.

    ``weight`` and ``val_weight`` say how often each row counts; ``None`` for once.
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
        """How much the rows to learn from count."""
        return float(len(self.x) if self.weight is None else self.weight.sum(dtype=torch.float64))


@dataclass(frozen=True)
class Epoch:
    """One epoch: mean loss of its steps, then validation loss (nats), accuracy and classes never answered there.

    Epoch 0 is the start, before any step; its training loss is NaN. ``error`` is the standard error of the validation
    loss, ``sparsity`` the share of weights that are zero.
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
    """A head at its best epoch, what each epoch was like, and why it ended early if something went wrong."""

    head: Head
    epochs: tuple[Epoch, ...]
    best: int
    stopped: str | None = None
