"""The sections of a recipe: every key, its kind, its default and what it means."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mixtura.formats import rate

Share = Annotated[float, Field(ge=0, le=1)]
Explained = Annotated[float, Field(gt=0, le=1)]
"""Explained variance as a fraction, as scikit-learn's PCA takes it."""

Count = Annotated[int, Field(ge=1, le=10**6)]
"""A number of things; the bound turns a slip of the keyboard into a sentence instead of a lack of memory."""

Axes = Annotated[int, Field(ge=1, le=2**16)]
"""A number of random directions, which may be more than the features have; covariances grow with its square."""

Processes = Annotated[int, Field(ge=1, le=1024)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

LABEL, SUPERLABEL, BOTH = "label", "superlabel", "both"
"""Levels of ``data.level``: the labels as they were read, and superlabels with the labels as their subclasses."""


def _not_empty(value: Any) -> Any:
    # An unset shell variable gives "", which pathlib would read as the current folder.
    if isinstance(value, str) and not value.strip():
        raise ValueError("should not be empty")
    return value


Location = Annotated[Path, BeforeValidator(_not_empty)]


def _joined(value: Any) -> Any:
    return ",".join(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value


Taps = Annotated[str, BeforeValidator(_joined)]
"""A word or the names of layers between commas; YAML may give them as a list."""


@dataclass(frozen=True)
class Flag:
    """Marks a key that has an option of its own on the command line; ``--set`` reaches the others.

    The option takes its type, bounds, default and help from the field.
    """

    metavar: str = ""
    """Stands for the value in the help; a switch has none."""

    name: str | None = None
    """Name of the option, where it is not the field's."""

    repeatable: bool = False
    """Given once for each value, where values may hold commas; other lists are written with commas."""


class Section(BaseModel):
    """What all sections share: no unknown keys, no changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSection(Section):
    """Where the samples come from."""

    kind: str = Field(
        default="folder", description="A data set of mixtura, 'features' for a feature store, or package.module:load."
    )
    root: Location | None = Field(default=None, description="Folder or file; the named public sets need none.")
    label: Annotated[str | None, Flag("NAME")] = Field(
        default=None, description="Which label to learn where the data has several, as in fine or coarse."
    )
    level: Annotated[Literal["label", "superlabel", "both"], Flag("LEVEL")] = Field(
        default=LABEL,
        description="What the classes are where items have a label and a superlabel. superlabel: labels serve only to "
        "measure by; both: labels are subclasses of the superlabels.",
    )
    unknown: Annotated[tuple[str, ...], Flag("CLASS", repeatable=True)] = Field(
        default=(),
        description="Leave this class out of the model, and test how often it is reported as unknown; 'A/*' for all "
        "that begin with A/. Repeatable.",
    )
    domain: str | None = Field(
        default=None, description="Which domain to learn from where the data has several, as in amazon of office31."
    )
    second: str | None = Field(
        default=None,
        description="Domain that a model of data.domain is tested on as well; its figures stand beside those of the "
        "test part.",
    )
    subset: str | None = Field(default=None, description="Which selection of its classes to read: living17 of breeds.")
    metadata: Location | None = Field(
        default=None, description="Folder of the files that say what the classes are, for breeds. Default: data.root."
    )
    follow_links: Annotated[bool, Flag()] = Field(
        default=False, description="Also read photos behind links that lead out of the folder of the data."
    )


class ClipsSection(Section):
    """How a sound is cut before it is encoded."""

    how: Literal["none", "mean"] = Field(
        default="mean", description="none: encode the whole sound at once; mean: encode its clips and average them."
    )
    seconds: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Length of a clip. Default: the encoder's own."
    )
    hop: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Seconds from clip to clip. Default: the length of a clip."
    )


class EncoderSection(Section):
    """What turns an image or a sound into a vector."""

    name: Annotated[str, Flag("NAME", name="encoder")] = Field(
        default="lite0",
        description="Network that computes the features. Name one of timm, hf or clap after a colon: timm:NAME, "
        "timm:NAME@weights.safetensors, hf:NAME, hf:./folder, clap:NAME; or a folder with a trained one: own:FOLDER. "
        "Or package.module:Class.",
    )
    size: Annotated[Annotated[int, Field(ge=1, le=8192)] | None, Flag("PIXELS")] = Field(
        default=None,
        description="Side of the encoder's input in pixels. Smaller is faster and shows less detail. "
        "Default: the encoder's own, 224 for lite0.",
    )
    weights: Annotated[Location | None, Flag("FILE")] = Field(
        default=None, description="Local weight file of the encoder."
    )
    taps: Annotated[Taps, Flag("LAYERS")] = Field(
        default="auto",
        description="Layers of an image network whose outputs follow the vector of the last layer, as means and "
        "deviations over the photo: auto for its later stages, none, last-N, or names as in blocks.4,blocks.6.",
    )
    filters: Count | None = Field(
        default=None,
        description="Channels that the widths of a network are multiples of: 4 for cnn, 32 for autoencoder; others "
        "take none.",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="Share of channels that training sets to zero, in cnn and resnet12. Default: 0."
    )
    stem: Literal["small"] | None = Field(
        default=None,
        description="small: begin a ResNet of timm with a 3 x 3 convolution at full size, for pictures under 64 px. "
        "It is drawn and has to be trained; all other layers keep their weights. Default: the network's own.",
    )
    device: Annotated[str, Flag("NAME")] = Field(
        default="auto", description="cpu, cuda, cuda:1, mps, or auto for the fastest one here."
    )
    runtime: Annotated[Literal["auto", "torch", "openvino", "onnx"], Flag("NAME")] = Field(
        default="auto",
        description="What computes the network of photos on the CPU: torch, openvino, onnx, or auto for openvino "
        "where it is installed and as exact as the feature store.",
    )
    clips: ClipsSection | None = Field(default=None, description="Sounds only. Default: the encoder's own.")
    normalize: bool | None = Field(
        default=None,
        description="Sounds only: scale each clip's vector to unit length. Default: the encoder's own.",
    )


class ExtractSection(Section):
    """How features are computed and stored."""

    batch_size: Annotated[Count, Flag("N")] = Field(default=32, description="Images per forward pass.")
    workers: Annotated[Annotated[int, Field(ge=0, le=1024)] | None, Flag("N")] = Field(
        default=None, description="Threads that read and decode images. Default: one per core."
    )
    dtype: Literal["float16", "float32"] = Field(default="float16", description="Number format of the feature store.")
    store: Location | None = Field(
        default=None, description="Folder of the feature store. Default: features/ in the output folder."
    )


class StepSection(Section):
    """One projection of the features; a bare name stands for a step without options."""

    name: str = Field(description="A projection of mixtura, or package.module:Class.")
    explained_variance: Explained | None = Field(
        default=None, description="pca: fraction of the variance that the kept axes explain, above 0 and at most 1."
    )
    dimension: Axes | None = Field(default=None, description="lda, random, random_features: number of axes.")
    shrinkage: Share | None = Field(default=None, description="lda: share of the scaled identity.")
    eps: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="whiten: added to each variance, relative to their mean."
    )
    seed: Seed | None = Field(default=None, description="random, random_features: seed of the random directions.")
    sparsity: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="random: one entry in this many is not zero."
    )

    power: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="power: the exponent; whiten: how far to scale the axes, where 1 gives unit variance."
    )

    parts: tuple[tuple[int, int, float, bool], ...] | None = Field(
        default=None,
        description="blocks: first column, column after the last, power, and whether to scale to unit mean square, of "
        "each block.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> "StepSection":
        allowed = STEP_OPTIONS.get(self.name, frozenset(type(self).model_fields))
        wrong = sorted(set(self.options()) - allowed)
        if wrong:
            known = ", ".join(sorted(allowed)) or "none"
            raise ValueError(f"{self.name} has no option {wrong[0]!r} (its options: {known})")
        return self

    def options(self) -> dict[str, Any]:
        """The options that were given, for ``fit`` of the projection."""
        return self.model_dump(exclude={"name"}, exclude_none=True)


STEP_OPTIONS: dict[str, frozenset[str]] = {
    "pca": frozenset({"explained_variance"}),
    "lda": frozenset({"shrinkage", "dimension"}),
    "whiten": frozenset({"eps", "power"}),
    "random": frozenset({"dimension", "seed", "sparsity"}),
    "random_features": frozenset({"dimension", "seed"}),
    "power": frozenset({"power"}),
    "blocks": frozenset({"parts"}),
    "l2": frozenset(),
    "identity": frozenset(),
}
"""What each projection of mixtura takes; one from outside may take any option of a step."""


class HeadSection(Section):
    """What reads the classes off the features: a mixture of Gaussians per class, or another head."""

    name: Annotated[str, Flag("NAME", name="head")] = Field(
        default="gaussian", description="Classifier on top of the features, or package.module:Class."
    )
    family: Annotated[str, Flag("NAME")] = Field(
        default="auto",
        description="gaussian: shape of the covariances, or package.module:Class; auto chooses by validation.",
    )
    n_components: Annotated[Count | Literal["auto"], Flag("N|auto")] = Field(
        default=1, description="Gaussians per class, or auto."
    )
    shrinkage: Share | Literal["auto"] = Field(
        default="auto",
        description="gaussian, linear, random_projection: how far covariances shrink towards pooled and round ones, "
        "0 to 1, or auto.",
    )
    rank: Count = Field(default=16, description="lowrank: number of directions.")
    variance_floor: Annotated[float, Field(ge=0, le=1e6)] = Field(
        default=1e-6, description="Variance added to each feature, relative to its variance within classes."
    )
    feature_scale: Literal["auto", "none", "half", "unit"] = Field(
        default="auto",
        description="Divide features by their within-class standard deviations (unit), by the square roots of these "
        "(half), or not at all (none); auto chooses by validation. The variance of the median feature counts in each, "
        "as that of ten items.",
    )
    options: dict[str, Any] = Field(
        default={}, description="Further options of the head, as in {metric: euclidean}. An error lists those it takes."
    )


GRADIENT = "gradient"
"""The solver that takes gradient steps; it begins where the others end."""


class FitSection(Section):
    """How the head is fitted: by which solver, and what training by gradients minimizes."""

    solver: Annotated[Literal["auto", "closed", "em", "gradient"], Flag("NAME")] = Field(
        default="auto",
        description="How the head is fitted: in closed form, by EM, or by gradients that start from one of these. auto "
        "uses no gradients.",
    )
    objective: Annotated[str, Flag("NAME")] = Field(
        default="conditional", description="What the solver gradient minimizes, or package.module:Class."
    )
    optimizer: Literal["adam", "adamw", "nesterov", "sgd"] = Field(
        default="adam",
        description="adam, adamw (weight decay 0.01), sgd with momentum 0.9, or nesterov, the same with Nesterov's.",
    )
    learning_rate: Annotated[float, Field(gt=0), Flag("X")] = Field(
        default=3e-3, description="Learning rate of the first gradient step; it falls along a half cosine."
    )
    final_learning_rate: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="Learning rate to which it falls, at most learning_rate."
    )
    epochs: Annotated[int, Field(ge=0, le=10**6), Flag("N")] = Field(
        default=30, description="Passes over the training samples, for the solver gradient."
    )
    batch_size: Count = Field(default=256, description="Samples per gradient step.")
    patience: Count | None = Field(
        default=None,
        description="Epochs without a lower validation loss before training ends. Default: all run.",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="conditional, hybrid: share of each label that is spread over all classes."
    )
    class_weight: Literal["none", "balanced"] | tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default="none",
        description="conditional, hybrid: weight of a sample by its class: none (all alike), balanced (inverse to the "
        "size of the class), or one number per class, in the order of their names.",
    )
    logit_adjustment: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="conditional, hybrid: how much of the log class shares joins the scores in training; 0: none.",
    )
    generative_weight: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Weight of -log p(x, y). Default: 0.1 per dimension for hybrid, 0.01 in all for large_margin.",
    )
    margin: Annotated[float, Field(ge=0)] = Field(
        default=0.1, description="large_margin: share of its distance by which the right class must be nearer."
    )
    l2: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="gaussian, linear: precision of a normal prior on the slopes, 1 / C of scikit-learn."
    )
    kl_weight: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="sdgm: weight of the KL term relative to 1 / N; a larger one prunes more."
    )
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1,
        description="Fraction of the training samples that chooses the epoch, where the data has no validation part.",
    )
    min_val_fraction: Share = Field(
        default=0.2, description="Least val_fraction with fewer than 2,000 samples; a sweep goes without it."
    )


class DecisionSection(Section):
    """When a sample is matched, unsure or unknown."""

    false_reject_rate: Annotated[float, Field(gt=0, lt=1), BeforeValidator(rate), Flag("SHARE")] = Field(
        default=0.05,
        description="Share of genuine samples that may be reported as unknown; 0.05 or 5% is one in twenty.",
    )
    min_probability: Share = Field(default=0.5, description="A label less probable than this is unsure.")
    min_subclass_probability: Share = Field(
        default=0.5, description="A subclass less probable than this, given the class, is not named."
    )
    prior: Literal["data", "uniform"] | Location | None = Field(
        default=None,
        description="How frequent the classes are in later photos: data (as in training), uniform, or a CSV or JSON "
        "file of class and share. Default: as the fit has them, which is data unless a head was trained with "
        "class_weight or logit_adjustment.",
    )
    score: str = Field(
        default="auto",
        description="What typicality ranks: density, mahalanobis, unit-mahalanobis, relative-mahalanobis, knn or "
        "vim-residual, or package.module:Class; auto keeps density unless another notices clearly more strangers.",
    )


class SplitSection(Section):
    """How samples without a given split are divided."""

    fractions: tuple[Share, Share, Share] = Field(default=(0.8, 0.0, 0.2), description="Train, validation and test.")
    seed: Seed = Field(default=0, description="Seed of the split.")
    file: Location | None = Field(
        default=None, description="Split file to use. Default: split.csv in the output folder."
    )

    @model_validator(mode="after")
    def _sum(self) -> "SplitSection":
        if abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions must sum to 1 with train above 0, got a sum of {sum(self.fractions):g}")
        if self.fractions[0] == 0:
            raise ValueError("fractions must sum to 1 with train above 0, and the first, that of train, is 0")
        return self
