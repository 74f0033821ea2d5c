"""Records of network training: what each epoch gave, and how the run ended."""

from collections.abc import Mapping
from dataclasses import dataclass

TRAINED_FROM_FACT, TRAINED_PART_FACT = "trained_from", "trained_part"
"""Keys, among a model's facts, of the encoder whose weights training began with, and of the part that was trained."""


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
    ``epochs`` are those that are done.
    """

    done: int
    total: int
    seconds: float
    rate: float
    remaining: float
    epoch: int
    loss: float
    message: str = ""
    epochs: tuple[TrainingEpoch, ...] = ()

    @property
    def doing(self) -> str:
        """What a progress bar shows beside the numbers."""
        return f"Training, epoch {self.epoch}, loss {self.loss:.3f}" if self.loss == self.loss else "Training"


@dataclass(frozen=True)
class Gain:
    """A figure of the model with the frozen encoder, and of that with the trained one.

    ``name`` is ``accuracy``, ``auroc_unknown`` (of strangers in the test part) or ``auroc_left_out`` (of classes left
    out in turn), shares in [0, 1], or ``nll``, in nats. ``before`` is ``None`` from scratch.
    """

    name: str
    before: float | None
    after: float


@dataclass(frozen=True)
class NetworkTraining:
    """What training of an encoder's network has come to.

    ``part`` was trained, ``share`` of the way from the start was taken, and ``replaced`` says whether the trained
    network took the place of the frozen one. ``outcome`` says it in a sentence. ``gains`` are on the test part, but for
    the AUROC of classes left out in turn. ``epochs`` were done.
    """

    outcome: str
    replaced: bool
    part: str = ""
    share: float = 0.0
    epochs: int = 0
    gains: tuple[Gain, ...] = ()
