"""The section ``train`` of a recipe: how ``mixtura train`` trains the network of an encoder."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mixtura.coarse_sections import CONTRASTS, FINDS_SUBCLASSES
from mixtura.sections import Count, Flag, Location, Section, Share

Epochs = Annotated[float, Field(gt=0, le=10**6)]
"""A number of epochs, fractions included."""


RECONSTRUCTION = "reconstruction"
"""The objective that draws photos again from their vectors."""

PROTOTYPICAL = "prototypical"
"""The objective that classifies queries by the mean of a few photos of each class."""

DIRECTIONS = {"validation_loss": "minimize", "validation_accuracy": "maximize"}
"""Metric of a search -> which way it is better."""


class ScheduleSection(Section):
    """How the learning rate changes from step to step; all lengths are in epochs."""

    name: Literal["constant", "cosine", "restarts", "step", "milestones", "plateau"] = Field(
        default="cosine", description="Shape of the learning rate over the epochs."
    )
    period: Epochs | None = Field(
        default=None, description="cosine, restarts: epochs of one fall. Default: what remains after the warmup."
    )
    cycles: Count | None = Field(default=None, description="cosine, restarts: number of falls, without a period.")
    step: Epochs | None = Field(default=None, description="step, plateau: epochs after which the rate falls.")
    milestones: tuple[Epochs, ...] | None = Field(
        default=None, description="milestones: the epochs at which the rate falls, in order."
    )
    gamma: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="step, milestones, plateau: factor of each fall. Default: 0.1."
    )
    warmup: Annotated[float, Field(ge=0, le=10**6)] = Field(
        default=0.5, description="Epochs in which the rate rises from zero."
    )


class ViewSection(Section):
    """One random view of a photo; a bare name stands for a view without options."""

    name: str = Field(
        description="horizontal_flip, vertical_flip, rotation, random_resized_crop, color_jitter, blur, grayscale, "
        "invert, autocontrast or erase."
    )
    probability: Share | None = Field(default=None, description="How often it is used. Default: that of the list.")
    options: dict[str, Any] = Field(default={}, description="Options of the view, as in {degrees: 10}.")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class AugmentSection(Section):
    """Random views of the training photos, so that the network sees each photo differently in every epoch."""

    views: tuple[ViewSection, ...] = Field(
        default=(
            ViewSection(name="random_resized_crop", probability=1.0, options={"scale": [0.5, 1.0]}),
            ViewSection(name="horizontal_flip"),
            ViewSection(name="color_jitter"),
        ),
        description="Views, applied one after the other; [] for the photos as they are.",
    )
    probability: Share = Field(default=0.5, description="How often a view is used that names no probability.")


class LogSection(Section):
    """Where the figures of each epoch go beside metrics.jsonl; the extra ``tracking`` has the packages."""

    name: str | None = Field(default=None, description="Name of the run there. Default: that of the output folder.")
    tensorboard: bool | Location = Field(
        default=False, description="true for event files in OUTPUT/training/tensorboard, or a folder for them."
    )
    mlflow: str | None = Field(
        default=None,
        description="Address of an MLflow server. Default: MLFLOW_TRACKING_URI, where mlflow is installed.",
    )


class SpanSection(Section):
    """What a search may give a key: numbers from low to high, or one of some values."""

    low: int | float | None = Field(default=None, description="Smallest number.")
    high: int | float | None = Field(default=None, description="Largest number; whole bounds give whole numbers.")
    log: bool = Field(default=False, description="Draw the logarithm evenly, for learning rates and the like.")
    choices: tuple[bool | int | float | str | None, ...] | None = Field(
        default=None, description="The values, in place of a range."
    )

    @model_validator(mode="after")
    def _checked(self) -> "SpanSection":
        if self.choices is not None and (self.low, self.high, self.log) != (None, None, False):
            raise ValueError("should have choices, or low and high, not both")
        if self.choices is not None and not self.choices:
            raise ValueError("should have at least one choice")
        if self.choices is None and (self.low is None or self.high is None):
            raise ValueError("should have low and high, or choices")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError("should have a low below its high")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError("should have a low above 0, since log is on")
        return self


class SearchSection(Section):
    """The search of mixtura train --search; keys of train stand beside metric, as in train.learning_rate."""

    trials: Annotated[Count | None, Flag("N", name="search")] = Field(
        default=None,
        description="Train N networks with settings from the recipe's section search, and take the one that is best on "
        "validation photos.",
    )
    metric: Literal["validation_loss", "validation_accuracy"] = Field(
        default="validation_loss", description="What the trials are compared by."
    )
    direction: Literal["minimize", "maximize"] = Field(
        default="minimize", description="Which way the metric is better: maximize for validation_accuracy."
    )
    space: dict[str, SpanSection] = Field(
        default={},
        description="What varies, by key: {low: 1e-4, high: 1e-2, log: true} or {choices: [16, 32]}. The keys may also "
        "stand in the section itself.",
    )

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        varied = {key: one for key, one in value.items() if isinstance(key, str) and "." in key}
        plain = {key: one for key, one in value.items() if key not in varied}
        return plain | {"space": {**plain.get("space", {}), **varied}} if varied else plain

    @model_validator(mode="after")
    def _directed(self) -> "SearchSection":
        if self.direction != DIRECTIONS[self.metric]:
            raise ValueError(f"should {DIRECTIONS[self.metric]} {self.metric}: give metric and direction together")
        return self


class EpisodesSection(Section):
    """Episodes to train by: some classes, a few photos of each to learn from, and others to classify."""

    way: Annotated[int, Field(ge=2, le=10**6)] = Field(default=5, description="Classes of an episode.")
    shot: Count = Field(default=1, description="Photos of each class to learn from.")
    query: Count = Field(default=15, description="Photos of each class to classify.")
    count: Count = Field(default=100, description="Episodes of an epoch; each is a step.")
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2,
        description="Share of the classes that are not trained on and give the validation episodes; two or more.",
    )


class TrainSection(Section):
    """How mixtura train trains the network of the encoder; fit and sweep refuse it."""

    objective: Literal[
        "conditional", "reconstruction", "prototypical", "scgm-g", "scgm-a", "supcon", "ancor", "maskcon"
    ] = Field(
        default="conditional",
        description="What training minimizes: conditional, the cross-entropy of the class; reconstruction, the "
        "difference of photos and what a decoder makes of their vectors, without labels, for the encoder autoencoder; "
        "prototypical, the cross-entropy of the class by distances to the means of a few photos, for new classes; "
        "scgm-g, which finds subclasses of the classes, see the section coarse; supcon, ancor and maskcon, which "
        "compare two views of each photo with other photos and their classes; or scgm-a, which does both.",
    )
    pixels: Literal["mse", "bce", "l1"] | None = Field(
        default=None,
        description="reconstruction: how photos are compared, as a mean over pixels: mse (squared error), bce "
        "(cross-entropy) or l1 (absolute error). Default: mse.",
    )
    distance: Literal["euclidean", "cosine"] | None = Field(
        default=None,
        description="prototypical: squared Euclidean distance, or one minus the cosine. Default: euclidean.",
    )
    episodes: EpisodesSection | None = Field(
        default=None, description="prototypical: what is drawn; each key has a default."
    )
    epochs: Annotated[Annotated[int, Field(ge=0, le=10**6)], Flag("N")] = Field(
        default=10, description="Passes over the training photos; fewer where --minutes ends before."
    )
    batch_size: Count = Field(default=32, description="Photos per step; an episode is a step of its own.")
    optimizer: Literal["adadelta", "adam", "adamw", "nesterov", "sgd"] = Field(
        default="adamw", description="Rule of the steps."
    )
    learning_rate: Annotated[Annotated[float, Field(gt=0)] | Literal["auto"] | None, Flag("X|auto")] = Field(
        default=None,
        description="Learning rate: that of the head. The last block has layer_decay times this, each block before it "
        "layer_decay times the next. The linear head of refit starts from zero and has four times this, unless all is "
        "trained from scratch. auto for a range test. Default: 5e-4, and 1e-3 from scratch.",
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="sgd, nesterov: share of the last step that joins the next one. Default: 0.9."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=0.01,
        description="Decay of the weights; norms and biases have none. Optimizers other than adamw add it to the "
        "gradient.",
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Factor of the learning rate from each block to the one before it. Default: 0.75, and 1 from "
        "scratch.",
    )
    schedule: ScheduleSection = Field(
        default=ScheduleSection(), description="How the learning rate changes; all lengths are in epochs."
    )
    patience: Count | None = Field(
        default=None, description="Epochs without a lower validation loss before training ends. Default: all run."
    )
    clip: Annotated[float, Field(ge=0)] = Field(default=1.0, description="Largest norm of a gradient; 0 for no limit.")
    accumulate: Count = Field(
        default=1, description="Parts into which a batch is split, so that it fits into memory; the gradient is equal."
    )
    precision: Literal["float32", "bf16"] = Field(default="float32", description="Number format of the forward pass.")
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Decay of a running average of the weights, which competes with the raw ones."
    )
    momentum_encoder: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="Objectives of two views: share of the key encoder that stays in each step; 0.999 for runs of many "
        "thousand steps. Default: 0.99.",
    )
    trainable: Annotated[Literal["auto", "frozen", "head", "last", "norm", "all"] | None, Flag("PART")] = Field(
        default=None,
        description="What is trained: last (the last block), norm (scales and offsets), all, frozen or head (nothing "
        "of the network; with head: joint, the head alone), or auto for the best of frozen, last and all. Default: "
        "auto, and all from scratch.",
    )
    norm: Literal["frozen", "synced"] | None = Field(
        default=None,
        description="Batch norm: frozen as it is, or synced over all processes, on GPUs. Default: each process uses "
        "its own photos, and pretrained ones are frozen in batches under 64.",
    )
    start: Literal["pretrained", "scratch"] | Location | None = Field(
        default=None,
        description="Weights to begin with: pretrained, scratch, or a weight file. Default: pretrained where the "
        "encoder has weights.",
    )
    minutes: Annotated[Annotated[float, Field(gt=0)] | None, Flag("M")] = Field(
        default=None, description="Time for everything, reading and fitting included. Default: all epochs run."
    )
    augment: AugmentSection = Field(default=AugmentSection(), description="Random views of the training photos.")
    balance: Share = Field(
        default=0.0, description="How far classes of few photos are met more often: 0 as they are, 1 all alike."
    )
    log: LogSection = Field(default=LogSection(), description="TensorBoard and MLflow.")
    head: Literal["refit", "joint"] = Field(
        default="refit",
        description="The last layer in training: refit for a linear one that serves for training only, joint for the "
        "head of the section head. The usual fit follows on the new features.",
    )
    unfreeze: Annotated[int, Field(ge=0, le=10**6)] = Field(
        default=0,
        description="Epochs in which the head alone is trained, on up to four views of each photo, before the rest.",
    )

    @property
    def episode_design(self) -> EpisodesSection | None:
        """What is drawn where training is by episodes, else ``None``."""
        return (self.episodes or EpisodesSection()) if self.objective == PROTOTYPICAL else None

    @property
    def keeps_kinds_apart(self) -> bool:
        """Whether the network is trained for what classes do not say, so that they do not decide which one stays."""
        return self.objective in (*FINDS_SUBCLASSES, *CONTRASTS)

    @property
    def step_size(self) -> int:
        """Photos per step."""
        design = self.episode_design
        return self.batch_size if design is None else design.way * (design.shot + design.query)
