"""A two-dimensional view of the mixture."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.mixture import Mixture
from mixtura.model.model import Model
from mixtura.records.decision import EmbeddingMap

MAX_POINTS = 3000  # items drawn, at most
ELLIPSE_SAMPLES = 400  # samples that outline one component


def embedding_map(model: Model, embedding: Float[np.ndarray, "N D"], true: Int[np.ndarray, " N"]) -> EmbeddingMap:
    """Items and components along the two directions that separate the components most.

    The directions come from the mixture alone, so the map shows the model's own view.
    """
    keep = np.random.default_rng(0).permutation(len(true))[:MAX_POINTS]
    mixture = model.mixture
    assert mixture.component_class is not None
    axes = mixture.axes(2)
    center = model.background.mean
    mean, xy = (mixture.mean - center) @ axes, (model.project(embedding[keep]) - center) @ axes
    return EmbeddingMap(xy.numpy(), true[keep], mean.numpy(), _spread(mixture, axes), mixture.component_class.numpy())


def _spread(mixture: Mixture, axes: Float[Tensor, "D 2"]) -> Float[np.ndarray, "K 2 2"]:
    """Covariance of each component in the plane, estimated from samples."""
    generator = torch.Generator().manual_seed(0)
    spreads = []
    for k in range(mixture.n_components):
        noise = mixture.covariance.sample(torch.full((ELLIPSE_SAMPLES,), k), mixture.dimension, generator)
        spreads.append(np.cov((noise @ axes).numpy().T))
    return np.stack(spreads)
