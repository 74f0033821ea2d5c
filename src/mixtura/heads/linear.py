"""Linear head, the baseline: one linear layer and a softmax."""

from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.core.scale import upcast
from mixtura.errors import UsageError
from mixtura.heads import init
from mixtura.heads.base import Head
from mixtura.heads.joint import follow

INITIALIZATIONS = ("closed", "zeros")


@final
class LinearHead(Head):
    r"""Softmax regression, :math:`s(x) = W (x - a) / u + b`.

    The center a and the unit u come from the samples of :meth:`from_rows`, so one learning rate suits features of any
    scale; they can be folded into W and b and are not parameters. It has no density. A new head is a new ``nn.Linear``.

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
        """Head initialized by calibrated linear discriminant analysis in closed form, or with zeros.

        Args:
            x: training samples.
            labels: the class of each sample.
            n_classes: C.
            components: must be one per class.
            seed: unused.
            start: ``closed`` for the closed form, ``zeros`` for zero weights.
            shrinkage: share of the scaled identity in the covariance, in [0, 1]; ``None`` for the Ledoit-Wolf share.

        Raises:
            UsageError: more than one component per class, or an unknown ``start``.
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
        head.settle_precision()
        head.set_temperature(init.fit_temperature(head.class_scores, rows, labels))
        return head

    @torch.no_grad()
    def set_temperature(self, degrees: float) -> None:
        """Calibrate by dividing the scores by a temperature."""
        self.weight.div_(degrees)
        self.bias.div_(degrees)

    def input_gradients(self) -> Float[Tensor, "C D"]:
        """Weights, which are the gradients of the scores."""
        return upcast(self.weight)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values; they rebuild the head before its state is loaded."""
        return {"dimension": self.dimension, "n_classes": self.n_classes}

    def standard(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Samples minus the center, in units of their spread or, as a network is trained, that of the mini-batch."""
        if self.follows(x):
            return follow(x.to(self.working(x)), self.center, self.unit)[0]
        x = self.in_reach(x, self.unit)
        return (x - self.center.to(x.dtype)) / self.unit.to(x.dtype)

    def class_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Class logits."""
        z = self.standard(x)
        return nn.functional.linear(z, self.weight.to(z.dtype), self.bias.to(z.dtype))

    def cancellation(self) -> Float[Tensor, " C"]:
        """Twice the biases: in closed form, squared distances of the class means to the center."""
        return 2 * upcast(self.bias).abs()
