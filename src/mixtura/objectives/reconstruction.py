"""The loss of photos that are drawn again from their vectors."""

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mixtura.errors import UsageError

PIXELS = ("mse", "bce", "l1")
"""Mean squared error, binary cross-entropy in nats, mean absolute error; of values in [0, 1]."""


@final
@dataclass(frozen=True)
class Reconstruction:
    r"""Mean difference of a photo and its reconstruction, over all pixels and channels.

    With :math:`y` the photo and :math:`p = \operatorname{sigmoid}(z)` its reconstruction, both in [0, 1]:

    .. math:: (p - y)^2, \qquad -y \log p - (1 - y) \log(1 - p), \qquad |p - y|

    Being a mean, it has one size for photos of every side and batches of every length. Cross-entropy is not zero where
    a photo is met exactly, but the entropy of its values.

    Args:
        pixels: ``mse``, ``bce`` or ``l1``.

    Raises:
        UsageError: another name.

    Source: Hinton and Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, Science 2006.
    """

    reads: ClassVar[str] = "photos"
    needs_density: ClassVar[bool] = False
    pixels: str = "mse"

    @classmethod
    def from_options(cls, pixels: str = "mse") -> "Reconstruction":
        """Build from the options of a recipe."""
        return cls(pixels)

    def __post_init__(self) -> None:
        if self.pixels not in PIXELS:
            raise UsageError(f"Pixels cannot be compared by {self.pixels!r}. Use one of: {', '.join(PIXELS)}.")

    def __call__(
        self,
        logits: Float[Tensor, "N 3 H W"],
        photos: Float[Tensor, "N 3 H W"],
        labels: object = None,
        weight: Float[Tensor, " N"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean loss; the labels are not used.

        Args:
            logits: of the reconstructions, before the logistic function.
            photos: in [0, 1].
            labels: of the photos, or nothing.
            weight: of each photo; ``None`` for equal.
        """
        loss = self.of_each(logits, photos)
        return loss.mean() if weight is None else (loss * weight.to(loss)).sum() / weight.to(loss).sum()

    def of_each(self, logits: Float[Tensor, "N 3 H W"], photos: Float[Tensor, "N 3 H W"]) -> Float[Tensor, " N"]:
        """The loss of each photo, in float32 whatever the format of the logits."""
        logits = logits.float()
        if self.pixels == "bce":
            loss = functional.binary_cross_entropy_with_logits(logits, photos, reduction="none")
        else:
            difference = logits.sigmoid() - photos
            loss = difference.square() if self.pixels == "mse" else difference.abs()
        return loss.flatten(1).mean(1)
