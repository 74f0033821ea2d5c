"""Synthetic data with known ground truth: points from a mixture of Gaussians, and pictures of stripes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from mixtura.datasets.items import Dataset, Item


@dataclass(frozen=True)
class Sample:
    """Points with the component and class of each, and the distribution they were drawn from.

    ``covariance`` is dense; ``component_class`` is the class of each component; components are equally likely.
    """

    x: Float64[np.ndarray, "N D"]
    component: Int64[np.ndarray, " N"]
    label: Int64[np.ndarray, " N"]
    mean: Float64[np.ndarray, "K D"]
    covariance: Float64[np.ndarray, "K D D"]
    component_class: Int64[np.ndarray, " K"]


def gaussian_mixture(
    n: int, dimension: int, *, classes: int = 3, components: int = 1, separation: float = 4.0, seed: int = 0
) -> Sample:
    """Draw ``n`` points from ``classes * components`` Gaussians.

    Means are drawn with standard deviation ``separation`` in each dimension; covariances are Wishart-like, well
    conditioned, with an expectation close to the identity.
    """
    rng = np.random.default_rng(seed)
    count = classes * components
    mean = separation * rng.standard_normal((count, dimension))
    root = rng.standard_normal((count, dimension, 2 * dimension)) / np.sqrt(4 * dimension)
    covariance = root @ root.transpose(0, 2, 1) + 0.5 * np.eye(dimension)
    component = rng.integers(count, size=n)
    noise = rng.standard_normal((n, dimension, 1))
    x = mean[component] + (np.linalg.cholesky(covariance)[component] @ noise)[:, :, 0]
    component_class = np.arange(count) // components
    return Sample(x, component, component_class[component], mean, covariance, component_class)


def stripes(classes: int = 3, per_class: int = 10, *, size: int = 32, seed: int = 0) -> Dataset:
    """Return pictures of noisy stripes, in memory: each class has its own direction and color.

    ``size`` is the side in pixels. Any encoder that sees direction or color can separate the classes.
    """
    rng = np.random.default_rng(seed)
    names = [f"stripes{number}" for number in range(classes)]
    return Dataset(
        "stripes",
        tuple(
            Item(f"{name}/{i}", f"{name}/{i}", _stripe(number, classes, size, rng), name)
            for number, name in enumerate(names)
            for i in range(per_class)
        ),
    )


def _stripe(number: int, classes: int, size: int, rng: np.random.Generator) -> UInt8[np.ndarray, "S S 3"]:
    angle = np.pi * number / classes
    row, column = np.mgrid[:size, :size] / size
    wave = np.sin(2 * np.pi * (4 * (row * np.sin(angle) + column * np.cos(angle)) + rng.random()))
    color = 0.5 + 0.5 * np.cos(2 * angle + np.array([0, 2, 4]) * np.pi / 3)
    value = 0.5 + 0.35 * wave[:, :, None] * color + 0.05 * rng.standard_normal((size, size, 3))
    return (value * 255).clip(0, 255).astype(np.uint8)
