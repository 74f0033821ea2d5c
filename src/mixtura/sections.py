"""The sections of a recipe: every key, its kind, its default and what it means."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Explained = Annotated[float, Field(gt=0, le=1)]
"""Explained variance as a fraction, as scikit-learn's PCA takes it."""

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _not_empty(value: Any) -> Any:
    # An unset shell variable gives "", which pathlib would read as the current folder.
    if value == "":
        raise ValueError("should not be empty")
    return value


Location = Annotated[Path, BeforeValidator(_not_empty)]


class Section(BaseModel):
    """What all sections share: no unknown keys, no changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSection(Section):
    """Where the items come from."""

    kind: str = Field(
        default="folder", description="a dataset of mixtura, 'features' for a feature store, or package.module:load"
    )
    root: Location | None = Field(default=None, description="folder or file; not needed by the named public sets")
    label: str | None = Field(
        default=None, description="which label to learn where the data has several, e.g. fine or coarse"
    )
    unknown: tuple[str, ...] = Field(
        default=(), description="classes left out of the catalog; they test the verdict 'unknown'"
    )


class ClipsSection(Section):
    """How a sound is cut before it is encoded."""

    how: Literal["none", "mean"] = Field(
        default="mean", description="none: the sound at once; mean: clips are encoded one by one and averaged"
    )
    seconds: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="length of a clip; default: the encoder's own"
    )
    hop: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="seconds from clip to clip; default: their length"
    )


class EncoderSection(Section):
    """What turns an image or a sound into numbers."""

    name: str = Field(
        default="lite0", description="an encoder of mixtura, timm:NAME, clap:NAME, or package.module:Class"
    )
    size: Count | None = Field(
        default=None, description="side of the encoder's input in pixels; default: the encoder's own"
    )
    weights: Location | None = Field(default=None, description="local weight file")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    clips: ClipsSection | None = Field(default=None, description="sounds only; default: the encoder's own")
    normalize: bool | None = Field(
        default=None, description="sounds only: unit length for the vector of each clip; default: the encoder's own"
    )


class ExtractSection(Section):
    """How features are computed and stored."""

    batch_size: Count = Field(default=32, description="images per forward pass")
    workers: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="threads that decode; default: by the cores"
    )
    dtype: Literal["float16", "float32"] = Field(default="float16", description="how the store keeps a number")
    store: Location | None = Field(
        default=None, description="folder of the feature store; default: features/ in the output folder"
    )


class StepSection(Section):
    """One projection of the features; a bare name stands for a step without options."""

    name: str
    explained_variance: Explained | None = Field(
        default=None, description="pca: fraction of the variance that the kept axes explain, above 0 and at most 1"
    )
    dimension: Count | None = Field(default=None, description="lda, random: number of axes")
    shrinkage: Share | None = Field(default=None, description="lda: share of the scaled identity")
    eps: Annotated[float, Field(ge=0)] | None = Field(default=None, description="whiten: relative to the mean variance")
    seed: Seed | None = Field(default=None, description="random: seed of the signs")
    sparsity: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="random: one in so many entries is not zero"
    )

    power: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="power: the exponent; whiten: how far, 1 is unit variance"
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
    "l2": frozenset(),
    "identity": frozenset(),
}
"""What each projection of mixtura takes; one from outside may take any option of a step."""


class HeadSection(Section):
    """What reads the classes off the features: a mixture of Gaussians of each class, or another head."""

    name: str = Field(
        default="gaussian", description="a head or a variant (mixtura fit --help lists them), or package.module:Class"
    )
    family: str = Field(default="auto", description="gaussian: a covariance family, or auto")
    n_components: Count | Literal["auto"] = Field(default=1, description="Gaussians per class, or auto")
    shrinkage: Share | Literal["auto"] = Field(
        default="auto",
        description="gaussian, linear, random_projection: towards pooled and round covariances, 0 to 1, or auto",
    )
    rank: Count = Field(default=16, description="lowrank: number of directions")
    variance_floor: Annotated[float, Field(ge=0)] = Field(
        default=1e-6, description="variance added to each feature, relative to its own within classes"
    )
    feature_scale: Literal["auto", "none", "half", "unit"] = Field(
        default="auto",
        description="divide features by their within-class standard deviations (unit), by the roots of these (half), "
        "or not at all (none); auto: what serves held-out rows",
    )
    options: dict[str, Any] = Field(
        default={}, description="further options of the head, as in {metric: euclidean}; an error lists those it takes"
    )


GRADIENT = "gradient"
"""The solver that takes gradient steps; it begins where the others end."""


class FitSection(Section):
    """How the head is fitted: by which solver, and what training by gradients lowers."""

    solver: Literal["auto", "closed", "em", "gradient"] = Field(
        default="auto", description="closed form, EM, or gradients that begin where these end; auto: no gradients"
    )
    objective: str = Field(
        default="conditional",
        description="what gradients lower (mixtura fit --help lists the names), or package.module:Class",
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field(
        default="adam", description="adam, adamw (weight decay 0.01), or sgd with momentum 0.9"
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        default=3e-3, description="at the first step; it falls by a half cosine"
    )
    epochs: Annotated[int, Field(ge=0)] = Field(default=30, description="passes over the training rows")
    batch_size: Count = Field(default=256, description="rows in a step")
    patience: Count | None = Field(
        default=None, description="epochs without a better validation loss before training ends"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="conditional, hybrid: share of each label that is spread over all classes"
    )
    class_weight: Literal["none", "balanced"] | tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default="none",
        description="conditional, hybrid: how much a row of each class counts: none (alike), balanced (inversely to "
        "the class's rows), or a number for each class, in the order of their names",
    )
    logit_adjustment: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="conditional, hybrid: how far log-shares of classes join the scores in training; 0 not"
    )
    generative_weight: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="weight of -log p(x, y); default: 0.1 per dimension for hybrid, 0.01 in all for large_margin",
    )
    margin: Annotated[float, Field(ge=0)] = Field(
        default=0.1, description="large_margin: share of its distance by which the right class must be nearer"
    )
    l2: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="gaussian, linear: precision of a normal prior on the slopes, 1 / C of scikit-learn"
    )
    kl_weight: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="sdgm: weight of its KL term relative to 1 / N; more prunes more"
    )
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1,
        description="fraction of the training rows that picks the epoch, where the data has no validation part; "
        "a fifth or more of fewer than 2,000",
    )


class SweepSection(Section):
    """The grid of mixtura sweep."""

    heads: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default=("spherical", "diagonal", "tied", "linear"), description="heads or variants"
    )
    solvers: Annotated[tuple[Literal["closed", "em", "gradient"], ...], Field(min_length=1)] = Field(
        default=("gradient",), description="how each is fitted"
    )
    objectives: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default=("conditional",), description="what the solver gradient lowers, each in a cell of its own"
    )
    explained_variance: Annotated[tuple[Explained, ...], Field(min_length=1)] = Field(
        default=(0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0), description="fractions of the variance that PCA keeps"
    )
    n_components: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        default=(1,), description="Gaussians per class"
    )
    n_seeds: Count = Field(default=3, description="runs of each cell; each draws its own validation rows")
    folds: bool = Field(default=False, description="each group of the data is the test part once (ESC-10, ESC-50)")
    whiten_power: Share = Field(
        default=0.0, description="how far the kept axes are scaled to one variance: 0 not, 0.5 half way, 1 wholly"
    )
    jobs: Count | None = Field(default=None, description="processes; default: by the cores, one with a GPU")


class DecisionSection(Section):
    """When an item is matched, unsure or unknown."""

    false_reject_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05, description="share of genuine items that may be called unknown"
    )
    min_probability: Share = Field(default=0.5, description="a label less probable than this is unsure")


class SplitSection(Section):
    """How items without a given split are shared out."""

    fractions: tuple[Share, Share, Share] = Field(default=(0.8, 0.0, 0.2), description="train, validation and test")
    seed: Seed = Field(default=0, description="seed of the draw")
    file: Location | None = Field(
        default=None, description="split file to use; default: split.csv in the output folder"
    )

    @model_validator(mode="after")
    def _sum(self) -> "SplitSection":
        if abs(sum(self.fractions) - 1) > 1e-6 or self.fractions[0] == 0:
            raise ValueError(f"fractions must sum to 1 with train above 0, got a sum of {sum(self.fractions):g}")
        return self
