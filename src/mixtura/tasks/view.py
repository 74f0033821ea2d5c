"""The mixture seen in two dimensions."""

import numpy as np
import torch
from jaxtyping import Float, Int

from mixtura.core.mixture import Mixture
from mixtura.features.projection import LDA, PCA
from mixtura.tasks.model import Model
from mixtura.tasks.records import EmbeddingMap

POINTS = 3000  # items that are drawn
DRAWN = 4000  # samples from the mixture that find the axes


def embedding_map(model: Model, embedding: Float[np.ndarray, "N D"], true: Int[np.ndarray, " N"]) -> EmbeddingMap:
    """Items and components along the two directions that separate the classes most.

    The directions are fitted on samples of the mixture, so the picture shows what the model holds to be so.
    """
    keep = np.random.default_rng(0).permutation(len(true))[:POINTS]
    mixture = model.mixture
    axes = _axes(mixture)
    mean = _plane(axes, mixture.mean)
    assert mixture.owner is not None
    spread = _spread(axes, mixture)
    xy = _plane(axes, model.project(embedding[keep]))
    return EmbeddingMap(xy, true[keep], mean, spread, mixture.owner.numpy())


def _axes(mixture: Mixture) -> LDA | PCA:
    x, component = mixture.sample(DRAWN, torch.Generator().manual_seed(0))
    assert mixture.owner is not None
    if mixture.n_classes > 2:
        return LDA.fit(x, mixture.owner[component], shrinkage=0.1, dimension=2)
    return PCA.fit(x)


def _plane(axes: LDA | PCA, x: torch.Tensor) -> Float[np.ndarray, "N 2"]:
    flat = axes(x)[:, :2].double().numpy()
    return flat if flat.shape[1] == 2 else np.column_stack([flat, np.zeros(len(flat))])


def _spread(axes: LDA | PCA, mixture: Mixture) -> Float[np.ndarray, "K 2 2"]:
    """Covariances in the plane, from samples of each component."""
    count = 400
    spreads = []
    for k in range(mixture.n_components):
        index = torch.full((count,), k)
        noise = mixture.covariance.draw(index, mixture.dimension, torch.Generator().manual_seed(k))
        spreads.append(np.cov(_plane(axes, mixture.mean[k] + noise).T))
    return np.stack(spreads)
