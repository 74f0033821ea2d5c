"""Training samples in canonical order, so that a fit depends on neither sample order nor repetition."""

import torch
from torch import Tensor

from mixtura.core.content import content_order
from mixtura.core.cross_fitting import DEFAULT_FOLDS, Folds, content_folds


def distinct(x: Tensor, labels: Tensor, weight: Tensor | None, n_classes: int, seed: int) -> Folds:
    """Distinct samples with their multiplicities as weights, in an order given by their values, and without folds.

    Samples of weight zero are dropped. So a sample of weight two exactly equals two copies of it.
    """
    if weight is not None and bool((weight == 0).any()):
        some = weight > 0
        x, labels, weight = x[some], labels[some], weight[some]
    order, content = content_order(x, seed)
    key = content * n_classes + labels
    within = order[labels[order].argsort(stable=True)]  # by class first, so equal samples of a class are adjacent
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[within][1:] != key[within][:-1]
    number = first.long().cumsum(0) - 1
    counts = torch.ones(len(x), dtype=torch.float64) if weight is None else weight.double()
    total = torch.zeros(int(first.sum()), dtype=torch.float64).index_add_(0, number, counts[within])
    rows = within[first]
    weight = None if bool((total == 1).all()) else total
    return Folds(x[rows], labels[rows], n_classes, torch.zeros_like(rows), 0, weight)


def with_folds(rows: Folds, seed: int, n_folds: int = DEFAULT_FOLDS) -> Folds:
    """The same samples, assigned to folds by their values."""
    fold = content_folds(rows.x, rows.labels, n_folds, seed)
    return Folds(rows.x, rows.labels, rows.n_classes, fold, n_folds, rows.weight)
