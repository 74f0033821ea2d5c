"""The section ``coarse`` of a recipe: how a network is trained on classes so that the kinds inside them come apart."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixtura.sections import Count, Section, Share

CONDITIONAL = "conditional"
"""The objective that classifies photos."""

SCGM_G = "scgm-g"
"""The objective that finds subclasses of the classes."""

SCGM_A = "scgm-a"
"""The objective that finds subclasses and compares two views of each photo with other photos of its class."""

SUPCON, ANCOR, MASKCON = "supcon", "ancor", "maskcon"
"""Objectives that compare two views of each photo with each other and with other photos."""

FINDS_SUBCLASSES = (SCGM_G, SCGM_A)
"""Objectives that give each photo a subclass."""

CONTRASTS = (SUPCON, ANCOR, MASKCON)
"""Objectives that compare views and know no subclasses."""

_EMBEDDER = frozenset({"embedder", "dimension"})
_KEYS = _EMBEDDER | {"contrast_temperature", "queue_size", "select"}
_SUBCLASSES = _EMBEDDER | {
    "subclasses", "variance", "class_variance", "weight", "regularization", "every", "warmup", "init", "mask", "soft",
    "strength", "mixture_prior", "select",
}  # fmt: skip
_ANGULAR = {"assign", "queue", "metric", "head", "normalize_head", "class_temperature", "losses"}

COARSE_KEYS = {
    CONDITIONAL: _EMBEDDER,
    SCGM_G: _SUBCLASSES | {"angular", "normalize", "distill"},
    SCGM_A: _SUBCLASSES | _KEYS | _ANGULAR,
    SUPCON: _KEYS,
    ANCOR: _KEYS,
    MASKCON: _KEYS | {"target_weight", "target_temperature"},
}
"""Objective -> the keys of the section coarse that it reads."""


class DistillSection(Section):
    """How the network follows a slow copy of itself."""

    weight: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Share of the loss that is the divergence from the copy."
    )
    temperature: Annotated[float, Field(gt=0)] = Field(default=4.0, description="Divides the scores of both.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.999, description="Share of the copy that stays in each step."
    )


class CoarseSection(Section):
    """How a network is trained on classes so that kinds inside them come apart; each objective has keys of its own."""

    subclasses: Count | tuple[Count, ...] | None = Field(
        default=None,
        description="Subclasses in all, or one number per class in the order of their names, with mask. Default: 1.5 "
        "times the kinds that mixtura subclasses finds before; from scratch, a number is needed.",
    )
    dimension: Count = Field(default=128, description="Length of the embeddings.")
    embedder: Literal["none", "linear", "mlp"] = Field(
        default="linear", description="From vectors to embeddings: nothing, one layer, or two."
    )
    variance: Annotated[float, Field(gt=0)] = Field(
        default=0.1, description="Squared spread of embeddings about the mean of their subclass, at unit length."
    )
    class_variance: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="Squared spread of subclass means about the mean of their class."
    )
    weight: Annotated[float, Field(ge=0)] = Field(
        default=0.5, description="Weight of the two terms of subclasses; that of the class term is 1."
    )
    regularization: Annotated[float, Field(gt=0)] = Field(
        default=0.04, description="Weight of the assignment's entropy; small values give every photo one subclass."
    )
    every: Count = Field(default=5, description="Epochs between two assignments.")
    warmup: Annotated[int, Field(ge=0)] = Field(default=0, description="Epochs without the terms of subclasses.")
    init: Literal["random", "kmeans"] = Field(
        default="random", description="Subclass means to begin with: random, or by k-means within each class."
    )
    mask: bool = Field(default=False, description="Give each class subclasses of its own, by its number of photos.")
    soft: bool = Field(default=False, description="Share each photo among subclasses, instead of giving it to one.")
    strength: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="How strongly subclasses are held to equal sizes, in nats; small values let large ones be large. "
        "Default: equal sizes.",
    )
    mixture_prior: bool = Field(
        default=False, description="Make subclasses near the class mean more frequent, as the model has it."
    )
    angular: bool = Field(default=False, description="Compare directions as seen from the class mean, in the loss.")
    normalize: Literal["embedding", "weight", "both", "none"] = Field(
        default="embedding",
        description="What has unit length in the scores of the class term: embedding, weight (the class means), both "
        "or none.",
    )
    select: Literal["last", "validation"] = Field(
        default="last", description="The epoch to keep: the last one, or the one with the lowest loss of the class."
    )
    distill: DistillSection = Field(default=DistillSection(), description="Self-distillation; off by default.")
    contrast_temperature: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="supcon, ancor, maskcon, scgm-a: divides the cosines of views and photos; small values look at the "
        "nearest ones. Default: 0.1, and 0.2 for ancor and scgm-a.",
    )
    queue_size: Count = Field(
        default=8192,
        description="supcon, ancor, maskcon, scgm-a: how many embeddings of earlier photos are compared with; for "
        "ancor and scgm-a, of each class. No more than there are photos.",
    )
    target_weight: Share = Field(
        default=0.5,
        description="maskcon: how much a photo is drawn to similar photos of its class, from 0 (to its own other view "
        "alone) to 1.",
    )
    target_temperature: Annotated[float, Field(gt=0)] = Field(
        default=0.05, description="maskcon: small values draw a photo to the most similar ones alone."
    )

    assign: Literal["epochs", "steps"] = Field(
        default="epochs",
        description="scgm-a: when photos are assigned: all of them every few epochs, or, once that was done, those of "
        "each step, balanced together with the earlier photos in the queues.",
    )
    queue: Literal["multi", "single", "none"] = Field(
        default="multi",
        description="scgm-a: earlier photos in a queue of each class, in a single one, or none but those of the batch.",
    )
    metric: Literal["angular", "norm"] = Field(
        default="angular",
        description="scgm-a: directions are seen from the mean of the class (angular) or from the origin (norm).",
    )
    head: Literal["seq_em", "seq", "fork", "cls", "none"] = Field(
        default="seq_em",
        description="scgm-a: where class scores come from: products of embeddings and class means (seq_em), a layer on "
        "embeddings (seq) or on vectors (fork); without an embedder, a layer on vectors (cls) or products of vectors "
        "and class means (none).",
    )
    normalize_head: bool = Field(
        default=True, description="scgm-a: give embeddings unit length before products with class means."
    )
    class_temperature: Annotated[float, Field(gt=0)] = Field(default=1.0, description="scgm-a: divides class scores.")
    losses: tuple[
        Literal[
            "cls", "cst_by_class", "cst_all", "cst_all_by_class", "cst_two_class", "cst_by_subclass",
            "cst_by_subclass_angnorm",
        ],
        ...,
    ] = Field(
        default=("cls", "cst_by_class"),
        description="scgm-a: what is added up beside the terms of subclasses: cls, the cross-entropy of the class; "
        "cst_by_class, a view against other photos of its class; cst_all and cst_all_by_class, against all photos, as "
        "seen from the origin or from its class; cst_two_class, against its class and the next likely one; "
        "cst_by_subclass and cst_by_subclass_angnorm, against its subclass, as seen from the origin or from there.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _heads_without_embedder(self) -> "CoarseSection":
        if self.head in ("cls", "none") and self.embedder == "mlp":
            raise ValueError(f"should leave out embedder: mlp where head is {self.head}, which has none")
        return self

    @model_validator(mode="after")
    def _layers_are_trained(self) -> "CoarseSection":
        if self.head in ("seq", "fork", "cls") and "cls" not in self.losses:
            raise ValueError(f"should have cls in losses where head is {self.head}: nothing else trains that layer")
        return self

    @model_validator(mode="after")
    def _steps_have_shares(self) -> "CoarseSection":
        if self.assign == "steps" and (self.mask or self.soft or self.strength is not None):
            raise ValueError("should leave out mask, soft and strength where assign is steps")
        return self

    @model_validator(mode="after")
    def _lists_need_mask(self) -> "CoarseSection":
        if isinstance(self.subclasses, tuple) and not self.mask:
            raise ValueError("should have mask: true where subclasses is a list")
        return self
