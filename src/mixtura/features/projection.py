"""Projections of features: fitted once on the training rows, saved with the model, applied everywhere.

Each projection is a frozen value. ``fit`` makes it from N x D features (and labels, where it needs them), calling it
maps N x D to N x R. ``config()`` (JSON) and ``state()`` (tensors) rebuild it exactly through ``restore``.
Moments are summed in float64; the fitted tensors have the dtype of the features (float32 at least).
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mixtura.core import random_matrix
from mixtura.core.axes import axes_of, scatter_of
from mixtura.errors import BundleError, UsageError
from mixtura.features import PROJECTIONS
from mixtura.features.spectrum import (
    check_features,
    check_width,
    class_centers,
    count_for,
    discriminant,
    project,
    work_dtype,
)
from mixtura.names import find, is_outside, name_of, require_allowed
from mixtura.renames import RENAMED_STEP_KEYS, renamed


@dataclass(frozen=True)
class Projection:
    """What all projections share: a name, and fields that are either tensors (state) or JSON values (config)."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(cls, x: Shaped[Tensor, "N D"], labels: Int[Tensor, " N"] | None = None) -> "Projection":
        """Fit on the training rows; some projections take further keyword options."""

    @abstractmethod
    def __call__(self, x: Shaped[Tensor, "N D"]) -> Shaped[Tensor, "N R"]:
        """Project the rows."""

    def state(self) -> dict[str, Tensor]:
        """The fitted tensors, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}

    def config(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON values; ``name`` says which projection it is."""
        tensors = self.state()
        name = name_of(PROJECTIONS, type(self))
        return {"name": name} | {f.name: getattr(self, f.name) for f in fields(self) if f.name not in tensors}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> "Projection":
        """The projection that ``config()`` and ``state()`` came from.

        Raises:
            BundleError: a field is missing or not known.
        """
        given = {key: value for key, value in config.items() if key != "name"} | dict(state)
        expected = {f.name for f in fields(cls)}
        needed = {f.name for f in fields(cls) if f.default is MISSING}  # the others came later
        if not needed <= set(given) <= expected:
            raise BundleError(
                f"Projection {cls.name!r} needs {sorted(expected)}, got {sorted(given)}. Refit and save again."
            )
        return cls(**given)

    def to(self, device: torch.device | str) -> "Projection":
        """The same projection with its tensors on another device."""
        return replace(self, **{key: value.to(device) for key, value in self.state().items()})


@dataclass(frozen=True)
class PCA(Projection):
    """Principal axes that explain a fraction of the variance.

    ``basis`` holds the kept axes, ``variance`` the whole spectrum (so that fractions stay fractions of the total).
    """

    name: ClassVar[str] = "pca"
    explained_variance: float
    mean: Float[Tensor, " D"]
    basis: Float[Tensor, "D R"]
    variance: Float[Tensor, " M"]

    @classmethod
    def fit(
        cls, x: Shaped[Tensor, "N D"], labels: Int[Tensor, " N"] | None = None, explained_variance: float = 0.95
    ) -> "PCA":
        """Keep the fewest axes that explain a fraction of the variance; 1 keeps min(N - 1, D) or the rank.

        Raises:
            UsageError: the fraction is not in (0, 1].
            NonFinite, WrongDimension: features that cannot be fitted on.
        """
        check_features(x)
        mean, basis, variance = (t.to(work_dtype(x)) for t in axes_of(x))
        return cls(1.0, mean, basis, variance).truncate(explained_variance)

    @classmethod
    def from_state(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Projection:
        """The projection that ``config()`` and ``state()`` came from; earlier ones say ``share``, in percent.

        Raises:
            BundleError: a field is missing or not known.
        """
        return super().from_state(renamed(RENAMED_STEP_KEYS, config), state)

    def truncate(self, explained_variance: float) -> "PCA":
        """The first axes of this same fit that explain a fraction of the total variance.

        Raises:
            UsageError: the fraction is not in (0, 1], or more than this projection has kept.
        """
        keep = count_for(self.variance, explained_variance)
        if keep > self.basis.shape[1]:
            raise UsageError(
                f"This PCA keeps {self.explained_variance:g} of the variance and cannot grow to "
                f"{explained_variance:g}. Fit again."
            )
        return replace(self, explained_variance=float(explained_variance), basis=self.basis[:, :keep].contiguous())

    def __call__(self, x: Shaped[Tensor, "N D"]) -> Float[Tensor, "N R"]:
        """Coordinates along the kept axes, about the training mean."""
        return project(x, self.mean, self.basis)


@dataclass(frozen=True)
class Whiten(Projection):
    """Principal axes scaled to unit variance, or part of the way.

    ``z = (x - mean) @ basis`` with ``basis_r = axis_r / (variance_r + eps * mean variance) ** (power / 2)``.
    """

    name: ClassVar[str] = "whiten"
    eps: float
    mean: Float[Tensor, " D"]
    basis: Float[Tensor, "D R"]
    power: float = 1.0

    @classmethod
    def fit(
        cls, x: Shaped[Tensor, "N D"], labels: Int[Tensor, " N"] | None = None, eps: float = 1e-6, power: float = 1.0
    ) -> "Whiten":
        """Whiten all axes of the data's rank.

        Args:
            x: training features.
            labels: not needed.
            eps: added to each variance, relative to the mean variance, so that units do not matter.
            power: how far, above 0 and at most 1; 1 is unit variance, 0.5 leaves each axis the root of its deviation.

        Raises:
            UsageError: eps is negative, or the power out of range.
            NonFinite, WrongDimension: features that cannot be fitted on.
        """
        if eps < 0:
            raise UsageError(f"eps must not be negative, got {eps}.")
        if not 0 < power <= 1:
            raise UsageError(f"Whitening power {power} is out of range. Give a number above 0 and at most 1.")
        check_features(x)
        mean, basis, variance = axes_of(x)
        scale = variance + eps * variance.mean()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # all rows equal: nothing to scale
        return cls(float(eps), mean.to(work_dtype(x)), (basis * scale.pow(-0.5 * power)).to(work_dtype(x)), power)

    def __call__(self, x: Shaped[Tensor, "N D"]) -> Float[Tensor, "N R"]:
        """Whitened coordinates."""
        return project(x, self.mean, self.basis)


@dataclass(frozen=True)
class LDA(Projection):
    r"""Fisher's discriminant axes: at most C - 1, scaled so that the shrunken within-class covariance is the identity.

    .. math:: S_b v = \lambda S_w v, \quad S_w \leftarrow (1 - s) S_w + s \operatorname{tr}(S_w) / D \cdot I

    Source: Hastie, Tibshirani, Friedman, The Elements of Statistical Learning (2009), section 4.3.
    """

    name: ClassVar[str] = "lda"
    shrinkage: float
    mean: Float[Tensor, " D"]
    basis: Float[Tensor, "D R"]

    @classmethod
    def fit(
        cls,
        x: Shaped[Tensor, "N D"],
        labels: Int[Tensor, " N"] | None = None,
        shrinkage: float = 0.1,
        dimension: int | None = None,
    ) -> "LDA":
        """Find the axes that separate the classes.

        Args:
            x: training features.
            labels: class index per row.
            shrinkage: share of the scaled identity in the within-class covariance, 0 to 1.
            dimension: number of axes to keep; default all, C - 1 (or D if that is less).

        Raises:
            LabelError: no labels, or one class only.
            UsageError: shrinkage or dimension out of range.
            NonFinite, WrongDimension: features that cannot be fitted on.
        """
        check_features(x)
        index, center, weight = class_centers(x, labels)
        most = min(len(center) - 1, x.shape[1])
        keep = most if dimension is None else dimension
        if not 0 <= shrinkage <= 1 or not 1 <= keep <= most:
            raise UsageError(
                f"LDA needs shrinkage in [0, 1] and a dimension from 1 to {most}, got {shrinkage} and {dimension}."
            )
        within = scatter_of(x, center, index) / len(x)
        mean = weight @ center
        basis = discriminant(within, (center - mean) * weight.sqrt()[:, None], shrinkage)[:, :keep]
        return cls(float(shrinkage), mean.to(work_dtype(x)), basis.to(work_dtype(x)).contiguous())

    def __call__(self, x: Shaped[Tensor, "N D"]) -> Float[Tensor, "N R"]:
        """Discriminant coordinates, about the training mean."""
        return project(x, self.mean, self.basis)


@dataclass(frozen=True)
class Random(Projection):
    r"""Sparse random projection: entries :math:`\sqrt{s / R} \{+1, 0, -1\}` with chances 1/2s, 1 - 1/s, 1/2s.

    Distances are kept in expectation; no data is needed beyond its width.
    Source: Achlioptas, Database-friendly random projections (2003), theorem 1.1 (s = 3).
    """

    name: ClassVar[str] = "random"
    seed: int
    sparsity: float
    sign: Int[Tensor, "D R"]

    @classmethod
    def fit(
        cls,
        x: Shaped[Tensor, "N D"],
        labels: Int[Tensor, " N"] | None = None,
        dimension: int = 128,
        seed: int = 0,
        sparsity: float = 3.0,
    ) -> "Random":
        """Draw the signs; ``dimension`` is R, ``sparsity`` s is at least 1 (3: two thirds are zero).

        Raises:
            UsageError: dimension or sparsity below 1.
        """
        if dimension < 1 or sparsity < 1:
            raise UsageError(f"dimension and sparsity must be 1 or more, got {dimension} and {sparsity}.")
        generator = torch.Generator().manual_seed(seed)
        sign = random_matrix.signs(x.shape[1], dimension, generator, sparsity)
        return cls(seed, float(sparsity), sign.to(x.device))

    def __call__(self, x: Shaped[Tensor, "N D"]) -> Float[Tensor, "N R"]:
        """Random coordinates; not centered."""
        check_width(x, len(self.sign))
        dtype = work_dtype(x)
        return x.to(dtype) @ self.sign.to(dtype) * math.sqrt(self.sparsity / self.sign.shape[1])


@dataclass(frozen=True)
class L2(Projection):
    """Rows scaled to length one; a zero row stays zero."""

    name: ClassVar[str] = "l2"

    @classmethod
    def fit(cls, x: Shaped[Tensor, "N D"], labels: Int[Tensor, " N"] | None = None) -> "L2":
        """Nothing to fit."""
        return cls()

    def __call__(self, x: Shaped[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Unit rows; scaled by the largest entry first, so that no square over- or underflows."""
        x = x.to(work_dtype(x))
        largest = x.abs().amax(1, keepdim=True)
        x = x / torch.where(largest > 0, largest, torch.ones_like(largest))
        return x / x.norm(dim=1, keepdim=True).clamp(min=1.0)  # a row with a largest entry of 1 is at least that long


@dataclass(frozen=True)
class Identity(Projection):
    """Features as they are."""

    name: ClassVar[str] = "identity"

    @classmethod
    def fit(cls, x: Shaped[Tensor, "N D"], labels: Int[Tensor, " N"] | None = None) -> "Identity":
        """Nothing to fit."""
        return cls()

    def __call__(self, x: Shaped[Tensor, "N D"]) -> Shaped[Tensor, "N D"]:
        """The same rows."""
        return x


@dataclass(frozen=True)
class Chain(Projection):
    """Projections one after the other."""

    name: ClassVar[str] = "chain"
    steps: tuple[Projection, ...] = ()

    @classmethod
    def fit(
        cls,
        x: Shaped[Tensor, "N D"],
        labels: Int[Tensor, " N"] | None = None,
        steps: Sequence[tuple[type[Projection], Mapping[str, Any]]] = (),
    ) -> "Chain":
        """Fit each step on what the steps before it give.

        Args:
            x: training features.
            labels: class index per row, for the steps that need it.
            steps: projection classes, each with the keyword options of its ``fit``.
        """
        fitted: list[Projection] = []
        for kind, options in steps:
            fitted.append(kind.fit(x, labels, **options))
            x = fitted[-1](x)
        return cls(tuple(fitted))

    def __call__(self, x: Shaped[Tensor, "N D"]) -> Shaped[Tensor, "N R"]:
        """Project the rows through every step."""
        for step in self.steps:
            x = step(x)
        return x

    def state(self) -> dict[str, Tensor]:
        """The tensors of all steps, each under its place: ``0.mean``."""
        return {f"{place}.{key}": t for place, step in enumerate(self.steps) for key, t in step.state().items()}

    def config(self) -> dict[str, Any]:
        """The configurations of all steps."""
        return {"name": self.name, "steps": [step.config() for step in self.steps]}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> "Chain":
        """The chain that ``config()`` and ``state()`` came from.

        Raises:
            BundleError: a step that is not known, or tensors that are missing or left over.
        """
        parts: list[dict[str, Tensor]] = [{} for _ in config["steps"]]
        for key, tensor in state.items():
            place, _, name = key.partition(".")
            if not place.isdecimal() or int(place) >= len(parts):
                raise BundleError(f"Tensor {key!r} belongs to no step of the projection. Refit and save again.")
            parts[int(place)][name] = tensor
        return cls(tuple(restore(step, part) for step, part in zip(config["steps"], parts, strict=True)))

    def to(self, device: torch.device | str) -> "Chain":
        """The same chain with its tensors on another device."""
        return replace(self, steps=tuple(step.to(device) for step in self.steps))


def restore(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Projection:
    """The projection that ``config()`` and ``state()`` came from, of any kind.

    Nothing is imported because a file says so: see :func:`mixtura.names.require_allowed`.

    Raises:
        BundleError: a kind that is not known, or fields that do not fit it.
    """
    name = config.get("name", "")
    if name == Chain.name:
        return Chain.from_state(config, state)
    if is_outside(name):
        require_allowed(name, "The projection")
    elif name not in PROJECTIONS:
        raise BundleError(f"Unknown projection {name!r}. Known: {', '.join(sorted(PROJECTIONS))}.")
    kind: type[Projection] = find(PROJECTIONS, name)
    return kind.from_state(config, state)
