"""Input checks shared by the metrics: at least one item, and no NaN."""

import numpy as np
from jaxtyping import Shaped

from mixtura.errors import DataError, NonFinite


def require_items(what: str, *arrays: Shaped[np.ndarray, "N ..."]) -> None:
    """Check for at least one item and no NaN; infinities are allowed because they are ordered.

    Raises:
        DataError: there are no items.
        NonFinite: a value is NaN.
    """
    for array in arrays:
        if len(array) == 0:
            raise DataError(f"{what} of 0 items does not exist. Give at least one item.")
        if np.issubdtype(array.dtype, np.floating):
            require_numbers(what, array)


def require_numbers(what: str, array: Shaped[np.ndarray, "N ..."]) -> None:
    """Check that no value is NaN.

    Raises:
        NonFinite: a value is NaN; the message names the count and the first index.
    """
    broken = np.isnan(array).reshape(len(array), -1).any(axis=1)
    if broken.any():
        raise NonFinite(
            f"{what}: {int(broken.sum())} of {len(array)} items hold NaN, the first is item {int(broken.argmax())}. "
            "Leave them out or mend what made them."
        )


def require_classes(what: str, index: Shaped[np.ndarray, "N"], n_classes: int) -> None:
    """Check that every class index is in [0, ``n_classes``).

    Raises:
        DataError: an index is outside.
    """
    outside = (index < 0) | (index >= n_classes)
    if outside.any():
        raise DataError(
            f"{what}: class index {int(index[outside.argmax()])} lies outside 0..{n_classes - 1}. "
            "Leave out items that are not in the catalog."
        )
