"""Records of network training: what each epoch gave, and how the run ended."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingEpoch:
    """What one epoch gave; epoch 0 is the start, with no training loss.

    ``step`` counts the steps done. ``loss`` is the mean over the training rows as they were met, ``learning_rate`` the
    largest of the last step, ``logged`` the means of what the objective reports. ``validation`` has
    the results of each set of weights: ``raw``, and those that hooks average, by the hook's name. ``seconds`` is the
    time of the epoch, validation included.
    """

    number: int
    step: int
    loss: float | None
    learning_rate: float
    logged: Mapping[str, float]
    validation: Mapping[str, Mapping[str, float]]
    seconds: float


@dataclass(frozen=True)
class TrainingLog:
    """A run of training: its epochs, the best epoch of each set of weights, why it ended, and sentences to show."""

    epochs: tuple[TrainingEpoch, ...]
    best: Mapping[str, int]
    ended: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingProgress:
    """How far training is: ``done`` of ``total`` steps, at ``rate`` steps a second, with ``remaining`` seconds to go.

    ``epoch`` counts from 1. ``loss`` is the mean of the epoch so far. ``message`` is a sentence to show once, or empty.
    """

    done: int
    total: int
    seconds: float
    rate: float
    remaining: float
    epoch: int
    loss: float
    message: str = ""
