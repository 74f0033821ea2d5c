"""Projections that bend: a power of each feature, and random rectified features."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mixtura.core import random_matrix
from mixtura.errors import UsageError
from mixtura.features.projection import Projection


def signed_power(x: Float[Tensor, "N D"], power: float) -> Float[Tensor, "N D"]:
    """A power of each number that keeps its sign, in operations that ONNX has: it lacks copysign."""
    return x.sign() * (x.abs().sqrt() if power == 0.5 else x.abs().pow(power))


@dataclass(frozen=True)
class Power(Projection):
    r"""A power of each feature that keeps its sign, :math:`\operatorname{sign}(x)\,|x|^p`.

    Features after a rectifier are skewed; a power below one makes a class look more like a Gaussian.

    Source: Tukey's ladder of powers (1977), as used for few-shot features by Yang, Liu and Xu, ICLR 2021.
    """

    name: ClassVar[str] = "power"
    power: float = 0.5

    @classmethod
    def fit(cls, x: Shaped[Tensor, "N D"], labels: Int[Tensor, " N"] | None = None, power: float = 0.5) -> "Power":
        """Nothing is learned.

        Args:
            x: training features.
            labels: not needed.
            power: the exponent, above 0 and at most 1.

        Raises:
            UsageError: the exponent is out of range.
        """
        if not 0 < power <= 1:
            raise UsageError(f"Power {power} is out of range. Give an exponent above 0 and at most 1.")
        return cls(power)

    def __call__(self, x: Shaped[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Bend each feature."""
        x = x if x.is_floating_point() else x.float()
        bent = x.abs().sqrt() if self.power == 0.5 else x.abs().pow(self.power)
        return bent.copysign(x)


@dataclass(frozen=True)
class RandomFeatures(Projection):
    r"""Random rectified features, :math:`\max(0, W^\top (x - \mu) / (s \sqrt D) + b)` with Gaussian W and b.

    One Gaussian a class with a shared covariance in this space bends its borders in the space of x.
    All three tensors are saved (the scale in ``weight``), so no later random stream can change them.

    Source: McDonnell et al., RanPAC: Random Projections and Pre-trained Models for Continual Learning, NeurIPS 2023.
    """

    name: ClassVar[str] = "random_features"
    mean: Float[Tensor, " D"]
    weight: Float[Tensor, "D R"]
    bias: Float[Tensor, " R"]

    @classmethod
    def fit(
        cls,
        x: Shaped[Tensor, "N D"],
        labels: Int[Tensor, " N"] | None = None,
        dimension: int = 5000,
        seed: int = 0,
    ) -> "RandomFeatures":
        """Draw W and b; center and scale are those of the training rows.

        Args:
            x: training features.
            labels: not needed.
            dimension: number of random features.
            seed: of W and b.

        Raises:
            UsageError: no random feature is asked for.
        """
        if dimension < 1:
            raise UsageError(f"{dimension} random features were asked for. Give 1 or more.")
        x = x if x.is_floating_point() else x.float()
        mean = x.mean(0, dtype=torch.float64)
        spread = float((x - mean.to(x.dtype)).square().mean(dtype=torch.float64).sqrt())
        generator = torch.Generator().manual_seed(seed)
        weight = random_matrix.gaussian(x.shape[1], dimension, generator).to(x.device)
        bias = torch.randn(dimension, generator=generator).to(x.device)
        weight = weight / ((spread if spread > 0 else 1.0) * x.shape[1] ** 0.5)
        return cls(mean.float(), weight, bias)

    def __call__(self, x: Shaped[Tensor, "N D"]) -> Float[Tensor, "N R"]:
        """The random features, as float32."""
        return torch.addmm(self.bias, x.float() - self.mean, self.weight).relu_()
