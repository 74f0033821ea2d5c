"""Random rectified features and one shared Gaussian covariance among them: borders that bend, in closed form."""

from collections.abc import Callable
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.errors import UsageError
from mixtura.heads import starts
from mixtura.heads.protocol import Head
from mixtura.names import nearest

WIDEST = 5000  # random features without being asked: the closed form takes the cube of it


def gaussian(dimension: int, width: int, generator: torch.Generator) -> Float[Tensor, "D M"]:
    """Independent normal entries."""
    return torch.randn(dimension, width, generator=generator)


def orthogonal(dimension: int, width: int, generator: torch.Generator) -> Float[Tensor, "D M"]:
    """Orthonormal columns, or rows where there are more columns than rows, with entries of average square one."""
    matrix = nn.init.orthogonal_(torch.empty(dimension, width), generator=generator)
    return matrix * max(dimension, width) ** 0.5


MATRICES: dict[str, Callable[[int, int, torch.Generator], Tensor]] = {"gaussian": gaussian, "orthogonal": orthogonal}
"""How the random matrix is drawn."""


def _options(matrix: str = "gaussian", shrinkage: float | None = None) -> tuple[str, float | None]:
    if matrix not in MATRICES:
        raise UsageError(f"There is no random matrix {matrix!r}. {nearest(matrix, MATRICES)}")
    return matrix, shrinkage


@final
class RandomProjectionHead(Head):
    r"""A linear layer on random rectified features, started as linear discriminant analysis among them.

    .. math:: h(x) = \max(0, (x - a)^\top P / (u \sqrt D) + q), \qquad s(x) = W (h(x) - m) / t + b

    P and q are random and fixed, saved with the head; W and b can be trained on. The Gaussians live among the random
    features, and no density of x follows from them.

    Args:
        dimension: D.
        n_classes: C.
        width: M, the number of random features.

    Source: McDonnell et al., RanPAC: Random Projections and Pre-trained Models for Continual Learning, NeurIPS 2023.
    """

    name: ClassVar[str] = "random_projection"
    many: ClassVar[bool] = False
    shrinks: ClassVar[bool] = True
    further: ClassVar[Callable[..., Any] | None] = _options
    center: Tensor
    matrix: Tensor
    offset: Tensor
    middle: Tensor
    unit: Tensor

    def __init__(self, dimension: int, n_classes: int, width: int) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(f"{width} random features were asked for. Give 1 or more.")
        self.dimension, self.n_classes, self.width = dimension, n_classes, width
        self.weight = nn.Parameter(torch.zeros(n_classes, width))
        self.bias = nn.Parameter(torch.zeros(n_classes))
        self.register_buffer("center", torch.zeros(dimension))
        self.register_buffer("matrix", torch.zeros(dimension, width))
        self.register_buffer("offset", torch.zeros(width))
        self.register_buffer("middle", torch.zeros(width))
        self.register_buffer("unit", torch.ones(()))

    @classmethod
    def from_rows(
        cls,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_classes: int,
        *,
        components: starts.Counts = 1,
        seed: int = 0,
        width: int | None = None,
        **options: Any,
    ) -> "RandomProjectionHead":
        """The head in closed form.

        Args:
            x: rows to learn from.
            labels: the class of each row.
            n_classes: C.
            components: one a class.
            seed: of the random matrix and offsets.
            width: M, random features; ``None`` for as many as rows, between 2 D and 5000.
            options: ``matrix``, a name in :data:`MATRICES`; ``shrinkage``, the share of the scaled identity in the
                covariance, in [0, 1], Ledoit and Wolf's where it is not given.

        Raises:
            UsageError: more than one component a class, an option that does not exist, or no random feature.
        """
        rows = starts.checked(x, labels, n_classes)
        matrix, shrinkage = _options(**options)
        if set(starts.spread_out(components, n_classes)) != {1}:
            raise UsageError(f"A random-projection head has one component a class, not {components}.")
        chosen = min(WIDEST, max(2 * x.shape[1], len(x))) if width is None else width
        head = cls(x.shape[1], n_classes, chosen).to(rows.device, rows.dtype)
        head.draw(rows, matrix, seed)
        with torch.no_grad():
            features = head.rectified(rows)
            middle, unit = starts.units(features)
            head.middle.copy_(middle)
            head.unit.copy_(unit)
            weight, bias = starts.tied_linear(head.features(rows), labels, n_classes, shrinkage)
            head.weight.copy_(weight)
            head.bias.copy_(bias)
        return head

    @torch.no_grad()
    def draw(self, x: Float[Tensor, "N D"], matrix: str, seed: int) -> None:
        """Draw the matrix and the offsets, in units of some rows."""
        generator = torch.Generator().manual_seed(seed)
        center, unit = starts.units(x)
        self.center.copy_(center)
        self.matrix.copy_(MATRICES[matrix](self.dimension, self.width, generator))
        self.matrix.div_(unit * self.dimension**0.5)
        self.offset.copy_(torch.randn(self.width, generator=generator))

    @torch.no_grad()
    def temper(self, degrees: float) -> None:
        """Divide the scores by a temperature."""
        self.weight.div_(degrees)
        self.bias.div_(degrees)

    def config(self) -> dict[str, Any]:
        """Plain values that build the same head before its state is loaded."""
        return {"dimension": self.dimension, "n_classes": self.n_classes, "width": self.width}

    def rectified(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N M"]:
        """The random features."""
        return torch.relu((x.to(self.matrix.dtype) - self.center) @ self.matrix + self.offset)

    def features(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N M"]:
        """The random features about their center, in units of their spread."""
        return (self.rectified(x) - self.middle) / self.unit

    def class_scores(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Logits; no densities of x."""
        return nn.functional.linear(self.features(x), self.weight, self.bias)

    @property
    def n_parameters(self) -> int:
        """Free numbers; those that were drawn are not among them."""
        return self.weight.numel() + self.bias.numel()
