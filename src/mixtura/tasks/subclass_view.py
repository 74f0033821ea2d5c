"""Lay the items of classes out with the means of their kinds, for a picture."""

import numpy as np

from mixtura.model.subclass_map import MIN_ROWS, laid_out
from mixtura.records.decision import SubclassMap
from mixtura.tasks.subclasses import Subclasses


def view_of(found: Subclasses) -> SubclassMap | None:
    """Items of the classes that were looked into, with the mean of each kind and each class; ``None`` for too few.

    A class that stays whole is a subclass of its own.
    """
    names, numbers = [one.name for one in found.classes], found.number
    own = np.flatnonzero(np.isin(np.array(found.features.label, dtype=object), names))
    if len(own) < MIN_ROWS:
        return None
    x = found.features.embedding[own].astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True).clip(np.finfo(float).tiny)
    label = np.array([names.index(str(found.features.label[row])) for row in own])
    kinds = [(c, kind) for c, one in enumerate(found.classes) for kind in range(1, one.count + 1)]
    of_kind = [(label == c) & ((numbers[own] == kind) | (found.classes[c].count < 2)) for c, kind in kinds]
    subclass = [x[rows].mean(0) for rows in of_kind]
    mean = np.stack([x[label == c].mean(0) for c in range(len(names))])
    return laid_out(x, label, np.stack(subclass), np.array([c for c, _ in kinds]), mean)
