"""The scale of samples: fits square them, and squares leave the range of a floating-point number early."""

import math

from jaxtyping import Float
from torch import Tensor

from mixtura.errors import DataError

LARGEST, SMALLEST = 1e15, 1e-15  # of samples whose squares and their sums fit into float32
LARGEST_DOUBLE, SMALLEST_DOUBLE = 1e60, 1e-60  # of samples whose fourth powers fit into float64


def in_range(x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """The samples in a precision that holds their squares: as they are, or in float64.

    Raises:
        DataError: not even float64 does; the message names the scale.
    """
    largest, smallest = scale_of(x)
    if largest > LARGEST_DOUBLE:
        raise DataError(f"Values reach {largest:.3g}: their squares are too large. Rescale the features, for example to unit scale.")
    if smallest < SMALLEST_DOUBLE:
        raise DataError(
            f"A feature varies by {smallest:.3g} only: at this scale its squares vanish. Rescale the features, "
            "for example to unit scale."
        )
    return x if LARGEST > largest and smallest > SMALLEST else x.double()


def scale_of(x: Float[Tensor, "N D"]) -> tuple[float, float]:
    """The largest absolute value, and the range of the feature that varies least but varies; infinite if none does."""
    low, high = x.aminmax(dim=0)
    largest = max(-float(low.min()), float(high.max()))
    spread = high.double() - low.double()
    varies = spread[spread > 0]
    return largest, float(varies.min()) if len(varies) else math.inf
