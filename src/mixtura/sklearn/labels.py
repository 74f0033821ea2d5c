"""Labels as an estimator takes them."""

from typing import Any

import numpy as np

from mixtura.errors import LabelError


def check_labels(y: Any, name: str) -> None:
    """See that no label is missing.

    Raises:
        LabelError: one is None or NaN; the message says where.
    """
    labels = np.asarray(y)
    if labels.dtype != object or not labels.ndim:
        return  # scikit-learn checks numbers
    for place, label in enumerate(labels.ravel()):
        if _missing(label):
            raise LabelError(f"{name}[{place}] is {label}. Give every sample a label, or leave such samples out.")


def _missing(label: Any) -> bool:
    try:
        return label is None or bool(label != label)
    except TypeError:  # pandas.NA has no truth value
        return True
