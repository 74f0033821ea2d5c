"""The baseline: one linear layer and a softmax."""

from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.errors import UsageError
from mixtura.heads import init
from mixtura.heads.base import Head, wide

INITIALIZATIONS = ("closed", "zeros")


@final
class LinearHead(Head):
    r"""Softmax regression, :math:`s(x) = W (x - a) / u + b`.

    The center a and the unit u are those of the rows it began with, so that one learning rate fits features of any
    scale; they merge into W and b and are no parameters. It has no density. A fresh head is a fresh ``nn.Linear``.

    Args:
        dimension: D.
        n_classes: C.
    """

    name: ClassVar[str] = "linear"
    multi_component: ClassVar[bool] = False
    takes_shrinkage: ClassVar[bool] = True
    center: Tensor
    unit: Tensor

    def __init__(self, dimension: int, n_classes: int) -> None:
        super().__init__()
        self.dimension, self.n_classes = dimension, n_classes
        layer = nn.Linear(dimension, n_classes)
        self.weight, self.bias = layer.weight, layer.bias
        self.register_buffer("center", torch.zeros(dimension))
        self.register_buffer("unit", torch.ones(()))

    @classmethod
    def from_rows(
        cls,
        x: init.Rows,
        labels: init.Labels,
        n_classes: int,
        *,
        components: init.Counts = 1,
        seed: int = 0,
        start: str = "closed",
        shrinkage: float | None = None,
    ) -> "LinearHead":
        """The head at linear discriminant analysis in closed form, at its best temperature, or at zero.

        Args:
            x: rows to learn from.
            labels: the class of each row.
            n_classes: C.
            components: one a class; a linear layer has no more.
            seed: not needed.
            start: ``closed`` for the closed form, ``zeros`` for a plain layer.
            shrinkage: share of the scaled identity in the covariance, in [0, 1]; ``None`` for Ledoit and Wolf's.

        Raises:
            UsageError: more than one component a class, or no such start.
        """
        rows, labels = init.checked(x, labels, n_classes)
        if set(init.components_per_class(components, n_classes)) != {1}:
            raise UsageError(f"A linear head has one component a class, not {components}. Use gaussian or prototype.")
        if start not in INITIALIZATIONS:
            raise UsageError(f"A linear head cannot start at {start!r}. Known: {', '.join(INITIALIZATIONS)}.")
        head = cls(rows.shape[1], n_classes).to(rows.device, rows.dtype)
        center, unit = init.center_and_scale(rows)
        with torch.no_grad():
            head.center.copy_(center)
            head.unit.copy_(unit)
            if start == "zeros":
                head.weight.zero_()
                head.bias.zero_()
                return head
            weight, bias = init.lda_weights(head.standard(rows), labels, n_classes, shrinkage)
            head.weight.copy_(weight)
            head.bias.copy_(bias)
        head.set_temperature(init.fit_temperature(head.class_scores, rows, labels))
        return head

    @torch.no_grad()
    def set_temperature(self, degrees: float) -> None:
        """Divide the scores by a temperature."""
        self.weight.div_(degrees)
        self.bias.div_(degrees)

    def input_gradients(self) -> Float[Tensor, "C D"]:
        """The weights."""
        return wide(self.weight)

    def config(self) -> dict[str, Any]:
        """Plain values that build the same head before its state is loaded."""
        return {"dimension": self.dimension, "n_classes": self.n_classes}

    def standard(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """The rows about their center, in units of their spread."""
        return (x.to(wide(self.weight).dtype) - wide(self.center)) / wide(self.unit)

    def class_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Logits."""
        return nn.functional.linear(self.standard(x), wide(self.weight), wide(self.bias))
