"""A two-dimensional view of a model's named subclasses by t-SNE."""

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.model.model import Model
from mixtura.records.decision import SubclassMap

MAX_ROWS = 2000  # items drawn, at most
MIN_ROWS = 10  # below, there is nothing to see
PERPLEXITY, PER_NEIGHBOR = 30.0, 3  # neighbors that count for a row; t-SNE looks at three times as many
PCA_AXES = 50
STEPS = 500
ROUNDING = 1e-6  # of the largest value; rows that differ by less are equal


def subclass_map(model: Model, embedding: Float[np.ndarray, "N D"], true: Int[np.ndarray, " N"]) -> SubclassMap | None:
    """Items with the means of subclasses and classes, laid out together; ``None`` without subclasses or items.

    Two equal calls give the same picture. Distances between far groups say nothing, as always with t-SNE.

    Source: van der Maaten, Accelerating t-SNE using tree-based algorithms (JMLR 2014).
    """
    inside = np.flatnonzero(true >= 0)
    if model.subclasses is None or len(inside) < MIN_ROWS:
        return None
    mixture, owners = model.mixture, model.subclasses
    assert mixture.component_class is not None
    subclass = _means(mixture.mean, mixture.log_weight, owners.component_subclass, len(owners.names))
    mean = _means(mixture.mean, mixture.log_weight, mixture.component_class, len(model.classes))
    return laid_out(model.project(embedding[inside]).numpy(), true[inside], subclass, owners.class_parent.numpy(), mean)


def laid_out(
    x: Float[np.ndarray, "N D"],
    label: Int[np.ndarray, " N"],
    subclass: Float[np.ndarray, "S D"],
    class_parent: Int[np.ndarray, " S"],
    mean: Float[np.ndarray, "C D"],
) -> SubclassMap:
    """Some of the rows, at most :data:`MAX_ROWS`, with means of subclasses and classes.

    Args:
        x: the rows.
        label: class of each.
        subclass: means of subclasses.
        class_parent: class of each subclass.
        mean: means of classes.
    """
    keep = np.random.default_rng(0).permutation(len(x))[:MAX_ROWS]
    rows = np.concatenate([x[keep], subclass, mean])
    xy, subclass_xy, mean_xy = np.split(_plane(rows), [len(keep), len(keep) + len(subclass)])
    return SubclassMap(xy, label[keep], subclass_xy, class_parent, mean_xy)


def _means(
    mean: Float[Tensor, "K D"], log_weight: Float[Tensor, " K"], owner: Int[Tensor, " K"], owners: int
) -> Float[np.ndarray, "O D"]:
    """Mean of each owner: those of its components, by their weights; an owner without components lies at 0."""
    weight = np.exp(log_weight.double().numpy())[:, None] * (owner.numpy()[:, None] == np.arange(owners))
    return (weight / weight.sum(0).clip(np.finfo(float).tiny)).T @ mean.double().numpy()


def _plane(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N 2"]:
    """Rows in the plane: principal axes first, then Barnes-Hut t-SNE with a fixed seed; equal rows share one place."""
    from sklearn.decomposition import PCA  # here, for a quick start
    from sklearn.manifold import TSNE

    away = rows.astype(np.float64) - rows[0]
    largest = np.abs(away).max()
    if largest <= ROUNDING * np.abs(rows).max():  # t-SNE would start at NaN, which ends the process
        return np.zeros((len(rows), 2), np.float32)
    axes = min(PCA_AXES, *rows.shape)
    reduced = PCA(axes, random_state=0).fit_transform((away / largest).astype(np.float32))
    reduced = np.pad(reduced, ((0, 0), (0, max(0, 2 - axes))))  # its start takes two axes
    perplexity = min(PERPLEXITY, (len(rows) - 1) / PER_NEIGHBOR)
    return TSNE(perplexity=perplexity, max_iter=STEPS, init="pca", random_state=0).fit_transform(reduced)
