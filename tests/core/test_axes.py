"""Axes of a mixture: Fisher's, by a generalized eigenproblem of SciPy."""

import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from mixtura.core import FAMILIES
from mixtura.core.init import from_labels


@pytest.mark.parametrize("components", [3, 5, 40])
@pytest.mark.parametrize("family", FAMILIES)
def test_axes_separate_means_best_with_few_and_with_many_components(family, components):
    generator = torch.Generator().manual_seed(components)
    labels = torch.arange(10 * components) % components
    means = 3 * torch.randn(components, 5, generator=generator)
    x = torch.randn(len(labels), 5, generator=generator) @ torch.randn(5, 5, generator=generator) + means[labels]
    mixture = from_labels(family, x, labels, components, 1e-3, rank=2)
    exact, share = mixture.to(torch.float64), mixture.log_weight.exp().double().numpy()
    center = (exact.mean - exact.background().mean).numpy()
    total = exact.background().covariance.dense(1, 5)[0].numpy()
    expected = eigh((share[:, None] * center).T @ center, total)[1][:, ::-1][:, :2]
    found = mixture.axes(2).numpy()
    sign = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * sign, expected, rtol=1e-4, atol=1e-5)
