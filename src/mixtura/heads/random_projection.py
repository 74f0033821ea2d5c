"""Random projection head: linear discriminant analysis on random ReLU features, nonlinear yet in closed form."""

from collections.abc import Callable
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.core.random_matrix import RANDOM_MATRICES, gaussian
from mixtura.core.scale import MAX_FEATURE, within
from mixtura.errors import UsageError
from mixtura.heads import init
from mixtura.heads.base import Head
from mixtura.heads.linear import LinearHead
from mixtura.names import nearest

MAX_DEFAULT_WIDTH = 5000  # default limit of random features, because the closed form takes cubic time
OLD_TENSOR_NAMES = {"weight": "weight", "bias": "bias", "middle": "center", "unit": "unit"}
"""Tensor names of older states -> names in the linear head."""


def _options(matrix: str = "gaussian", shrinkage: float | None = None) -> tuple[str, float | None]:
    if matrix not in RANDOM_MATRICES:
        raise UsageError(f"There is no random matrix {matrix!r}. {nearest(matrix, RANDOM_MATRICES)}")
    return matrix, shrinkage


@final
class RandomProjectionHead(Head):
    r"""Linear head on random ReLU features, initialized by linear discriminant analysis on them.

    .. math:: h(x) = \max(0, (x - a)^\top P / (u \sqrt D) + q), \qquad s(x) = W (h(x) - m) / t + b

    P and q are random and fixed, and saved with the head; W and b can be trained. The Gaussians model the random
    features, so the head has no density of x.

    Args:
        dimension: D.
        n_classes: C.
        width: M, the number of random features.

    Source: McDonnell et al., RanPAC: Random Projections and Pre-trained Models for Continual Learning, NeurIPS 2023.
    """

    name: ClassVar[str] = "random_projection"
    multi_component: ClassVar[bool] = False
    takes_shrinkage: ClassVar[bool] = True
    options_class: ClassVar[Callable[..., Any] | None] = _options
    center: Tensor
    matrix: Tensor
    offset: Tensor

    def __init__(self, dimension: int, n_classes: int, width: int) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(f"{width} random features were asked for. Give 1 or more.")
        self.dimension, self.n_classes, self.width = dimension, n_classes, width
        self.linear = LinearHead(width, n_classes)
        self.register_buffer("center", torch.zeros(dimension))
        self.register_buffer("matrix", gaussian(dimension, width) / dimension**0.5)
        self.register_buffer("offset", torch.randn(width))

    @classmethod
    def from_rows(
        cls,
        x: init.Rows,
        labels: init.Labels,
        n_classes: int,
        *,
        components: init.Counts = 1,
        seed: int = 0,
        width: int | None = None,
        **options: Any,
    ) -> "RandomProjectionHead":
        """Head fitted in closed form and calibrated with its best temperature.

        Args:
            x: training samples.
            labels: the class of each sample.
            n_classes: C.
            components: must be one per class.
            seed: for the random matrix and offsets.
            width: M, random features; ``None`` for the number of samples, between 2 D and 5000.
            options: ``matrix``, a name in ``RANDOM_MATRICES``; ``shrinkage``, the share of the scaled identity in the
                covariance, in [0, 1], by default the Ledoit-Wolf share.

        Raises:
            UsageError: more than one component per class, an invalid option, or no random features.
        """
        matrix, shrinkage = _options(**options)
        rows, labels = init.checked(x, labels, n_classes)
        if set(init.components_per_class(components, n_classes)) != {1}:
            raise UsageError(f"A random-projection head has one component a class, not {components}.")
        chosen = min(MAX_DEFAULT_WIDTH, max(2 * rows.shape[1], len(rows))) if width is None else width
        head = cls(rows.shape[1], n_classes, chosen).to(rows.device, rows.dtype)
        head.draw(rows, matrix, seed)
        head.linear = LinearHead.from_rows(head.features(rows), labels, n_classes, shrinkage=shrinkage)
        head.settle_precision()
        return head

    @torch.no_grad()
    def draw(self, x: Float[Tensor, "N D"], matrix: str, seed: int) -> None:
        """Draw the random matrix and offsets, in the scale of the samples."""
        generator = torch.Generator().manual_seed(seed)
        center, unit = init.center_and_scale(x)
        self.center.copy_(center)
        self.matrix.copy_(RANDOM_MATRICES[matrix](self.dimension, self.width, generator))
        self.matrix.div_(unit * self.dimension**0.5)
        self.offset.copy_(torch.randn(self.width, generator=generator))

    def set_temperature(self, degrees: float) -> None:
        """Calibrate by dividing the scores by a temperature."""
        self.linear.set_temperature(degrees)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values; they rebuild the head before its state is loaded."""
        return {"dimension": self.dimension, "n_classes": self.n_classes, "width": self.width}

    def features(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N M"]:
        """Random ReLU features of the samples."""
        dtype = self.working(x)
        rows = within(x.to(dtype), MAX_FEATURE) - self.center.to(dtype)
        return torch.relu(rows @ self.matrix.to(dtype) + self.offset.to(dtype))

    def class_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Class logits, which are not densities of x."""
        return self.linear.class_scores(self.features(x))

    def cancellation(self) -> Float[Tensor, " C"]:
        """That of the linear head."""
        return self.linear.cancellation()

    @property
    def n_parameters(self) -> int:
        """Number of free parameters, without the random matrix and offsets."""
        return self.linear.n_parameters

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for old, new in OLD_TENSOR_NAMES.items():
            if prefix + old in state_dict:
                state_dict[f"{prefix}linear.{new}"] = state_dict.pop(prefix + old)
        super()._load_from_state_dict(state_dict, prefix, *args)
