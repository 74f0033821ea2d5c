"""Gradient-free starts that heads without a covariance of their own share."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mixtura.core import classes, init, ownership, temperature
from mixtura.core.classes import FLOOR_SHARE, Plan
from mixtura.core.covariance import Prior
from mixtura.core.mixture import Mixture
from mixtura.core.shrinkage import ledoit_wolf
from mixtura.errors import DataError, NonFinite, UsageError

Counts = int | Sequence[int]
Rows = Shaped[Tensor, "N D"] | Shaped[np.ndarray, "N D"]
Labels = Shaped[Tensor, " N"] | Shaped[np.ndarray, " N"]
EM_STEPS = 10  # of EM after k-means++: enough for a start
TEMPERATURE_SAMPLES = 4096  # rows that the temperature of a start is read from


def checked(x: Rows, labels: Labels, n_classes: int) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
    """Rows in float32, or float64 where they came so, and their labels, as tensors; both may be arrays of NumPy.

    Raises:
        NonFinite: NaN or infinity in x.
        DataError: no row, a class without rows, or labels that are no class numbers.
    """
    x, labels = torch.as_tensor(x), torch.as_tensor(labels)
    whole = labels.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if x.ndim != 2 or 0 in x.shape or not whole or labels.shape != x.shape[:1] or int(labels.min()) < 0:
        raise DataError(
            f"Rows of shape {tuple(x.shape)} with labels of shape {tuple(labels.shape)} and kind {labels.dtype} cannot "
            "be learned from. Give one row or more, and for each the number of its class, from 0."
        )
    rows, labels = x if x.dtype == torch.float64 else x.float(), labels.long()
    bad = int((~rows.isfinite().all(1)).sum())
    if bad:
        raise NonFinite(f"{bad} of {len(x)} rows of features hold NaN or infinity. Remove them or check the encoder.")
    counts = torch.bincount(labels, minlength=n_classes)
    if len(counts) > n_classes or int(counts.min()) == 0:
        empty = int(counts.argmin())
        raise DataError(
            f"{n_classes} classes were asked for, and class {empty} has {int(counts[empty])} of {len(x)} rows, "
            f"the highest label is {int(labels.max())}. Number the classes that occur from 0."
        )
    return rows, labels


def components_per_class(components: Counts, n_classes: int) -> list[int]:
    """The number of components of each class.

    Raises:
        UsageError: not one positive number for all, or one a class.
    """
    counts = [components] * n_classes if isinstance(components, int) else list(components)
    if len(counts) != n_classes or min(counts, default=0) < 1:
        raise UsageError(f"Components {counts} for {n_classes} classes: give one number of 1 or more a class.")
    return counts


def component_class_of(counts: Sequence[int]) -> list[int]:
    """The class of each component, in order."""
    return [c for c, count in enumerate(counts) for _ in range(count)]


def clusters(
    x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_classes: int, components: Counts, seed: int
) -> tuple[Mixture, list[int]]:
    """Spheres that share each class's rows, and their number a class: k-means++, then a few steps of EM.

    A class never gets more components than half its rows.
    """
    asked = tuple(components_per_class(components, n_classes))
    mixture = classes.fit(Plan("spherical", asked, steps=EM_STEPS, seed=seed), x, labels, n_classes)
    assert mixture.component_class is not None
    return mixture, torch.bincount(mixture.component_class, minlength=n_classes).tolist()


def assign_hard(mixture: Mixture, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The most likely component of each row among those of its class."""
    assert mixture.component_class is not None
    joint = mixture.to(x.dtype).component_log_prob(x)
    return ownership.mask_others(joint, mixture.component_class.to(x.device), labels).argmax(1)


def center_and_scale(x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, " D"], Float[Tensor, ""]]:
    """Center of the rows and the root of their average variance, in float64; 1 for constant rows."""
    mean = x.mean(0, dtype=torch.float64)
    return mean, torch.tensor(classes.average_variance(x) ** 0.5, dtype=torch.float64, device=x.device)


def lda_weights(
    z: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_labels: int, shrinkage: float | None = None
) -> tuple[Float[Tensor, "K D"], Float[Tensor, " K"]]:
    r"""Weights and biases of Gaussians with one shared covariance: linear discriminant analysis, in float64.

    .. math:: W = M \Sigma^{-1}, \qquad b_k = \log\pi_k - \tfrac12 \mu_k^\top \Sigma^{-1} \mu_k

    Args:
        z: rows whose mean is near zero.
        labels: the component of each row.
        n_labels: K; a component without rows counts as half a row at the mean.
        shrinkage: share of the scaled identity in the covariance, in [0, 1]; ``None`` for Ledoit and Wolf's, at
            least a thousandth.
    """
    share = max(1e-3, ledoit_wolf(z, labels, n_labels)) if shrinkage is None else shrinkage
    floor = FLOOR_SHARE * classes.average_variance(z)
    mixture = init.from_labels("tied", z, labels, n_labels, floor, Prior(0.0, share))
    weight = mixture.covariance.precision_matmul(mixture.mean)
    counts = torch.bincount(labels, minlength=n_labels).double().clamp_min(0.5)
    return weight, (counts / counts.sum()).log() - 0.5 * (weight * mixture.mean).sum(1)


@torch.no_grad()
def fit_temperature(scores: Callable[[Tensor], Tensor], x: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> float:
    """The temperature that makes labels most likely under some scores of the rows, read from a part of many rows."""
    step = max(1, len(x) // TEMPERATURE_SAMPLES)
    return temperature.best(scores(x[::step]), labels[::step])
