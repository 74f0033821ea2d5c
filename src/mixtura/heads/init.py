"""Gradient-free initialization shared by heads, and the validation of their training samples."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mixtura.core import classes, init, ownership, temperature
from mixtura.core.classes import FLOOR_SHARE, Plan
from mixtura.core.covariance import Prior
from mixtura.core.mixture import MAX_OFFSET, Mixture
from mixtura.core.shrinkage import ledoit_wolf
from mixtura.errors import DataError, NonFinite, UsageError

Counts = int | Sequence[int]
Rows = Shaped[Tensor, "N D"] | Shaped[np.ndarray, "N D"]
Labels = Shaped[Tensor, " N"] | Shaped[np.ndarray, " N"]
EM_STEPS = 10  # after k-means++; enough for an initialization
TEMPERATURE_SAMPLES = 4096  # samples used for the initial temperature
CENTER_SAMPLES = 1024  # samples that show whether the mean lies among them


def checked(x: Rows, labels: Labels, n_classes: int) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
    """Validated samples (float32, or float64 if given so) and labels, as tensors; takes NumPy arrays too.

    Raises:
        NonFinite: NaN or infinity in x.
        DataError: no samples, a class without samples, or labels that are not class indices.
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
    """Number of components of each class, from one number or a list.

    Raises:
        UsageError: neither one positive number for all nor one per class.
    """
    counts = [components] * n_classes if isinstance(components, int) else list(components)
    if len(counts) != n_classes or min(counts, default=0) < 1:
        raise UsageError(f"Components {counts} for {n_classes} classes: give one number of 1 or more a class.")
    return counts


def component_class_of(counts: Sequence[int]) -> list[int]:
    """Class of each component, in order."""
    return [c for c, count in enumerate(counts) for _ in range(count)]


def clusters(
    x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_classes: int, components: Counts, seed: int
) -> tuple[Mixture, list[int]]:
    """Spherical mixture of each class by k-means++ and a few EM steps, with its number of components per class.

    A class gets at most half as many components as it has samples.
    """
    asked = tuple(components_per_class(components, n_classes))
    mixture = classes.fit(Plan("spherical", asked, steps=EM_STEPS, seed=seed), x, labels, n_classes)
    assert mixture.component_class is not None
    return mixture, torch.bincount(mixture.component_class, minlength=n_classes).tolist()


def assign_hard(mixture: Mixture, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Most likely component of each sample among those of its class."""
    assert mixture.component_class is not None
    joint = mixture.to(x.dtype).component_log_prob(x)
    return ownership.mask_others(joint, mixture.component_class.to(x.device), labels).argmax(1)


def center_and_scale(x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, " D"], Float[Tensor, ""]]:
    """Center of the samples and the root of their average variance, in float64; 1 for constant samples."""
    return center_of(x), torch.tensor(classes.average_variance(x) ** 0.5, dtype=torch.float64, device=x.device)


def center_of(x: Float[Tensor, "N D"]) -> Float[Tensor, " D"]:
    """Mean of the samples, in float64; the median where a far class pulls the mean out of the data.

    Weights and means about a center far from most samples would lose, in float32, what tells those samples apart.
    """
    mean = x.mean(0, dtype=torch.float64)
    some = x[:: -(-len(x) // CENTER_SAMPLES)].double()
    median = some.median(0).values
    distance = (some - median).square().sum(1).sort().values
    pulled = (mean - median).square().sum() > MAX_OFFSET * distance[: -(-len(some) // 2)].mean()
    return torch.where(pulled, median, mean)


def lda_weights(
    z: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_labels: int, shrinkage: float | None = None
) -> tuple[Float[Tensor, "K D"], Float[Tensor, " K"]]:
    r"""Weights and biases of linear discriminant analysis (Gaussians with a shared covariance), in float64.

    .. math:: W = M \Sigma^{-1}, \qquad b_k = \log\pi_k - \tfrac12 \mu_k^\top \Sigma^{-1} \mu_k

    Args:
        z: samples with a mean near zero.
        labels: the component of each sample.
        n_labels: K; a component without samples counts as half a sample at the mean.
        shrinkage: share of the scaled identity in the covariance, in [0, 1]; ``None`` for the Ledoit-Wolf share,
            at least 0.001.
    """
    share = max(1e-3, ledoit_wolf(z, labels, n_labels)) if shrinkage is None else shrinkage
    floor = FLOOR_SHARE * classes.average_variance(z)
    mixture = init.from_labels("tied", z, labels, n_labels, floor, Prior(0.0, share))
    weight = mixture.covariance.precision_matmul(mixture.mean)
    counts = torch.bincount(labels, minlength=n_labels).double().clamp_min(0.5)
    return weight, (counts / counts.sum()).log() - 0.5 * (weight * mixture.mean).sum(1)


@torch.no_grad()
def fit_temperature(scores: Callable[[Tensor], Tensor], x: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> float:
    """Temperature that maximizes the likelihood of the labels under the scores; large data sets are subsampled."""
    step = max(1, len(x) // TEMPERATURE_SAMPLES)
    return temperature.best(scores(x[::step]), labels[::step])
