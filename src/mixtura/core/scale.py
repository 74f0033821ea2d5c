"""The scale of samples: fits square them, and squares leave the range of a floating-point number early."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.errors import DataError

LARGEST, SMALLEST = 1e15, 1e-15  # of samples whose squares and their sums fit into float32
LARGEST_DOUBLE, SMALLEST_DOUBLE = 1e60, 1e-60  # of samples whose fourth powers fit into float64


def in_range(x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """The samples in a precision that holds their squares: as they are, or in float64.

    A feature that varies too little even for float64, beside others that do not, is made constant.

    Raises:
        DataError: not even float64 holds the squares; the message names the scale.
    """
    low, high = (end.double() for end in x.aminmax(dim=0))
    largest, spread = max(-float(low.min()), float(high.max())), high - low
    most, least = float(spread.max()), float(torch.where(spread > 0, spread, math.inf).min())
    if largest > LARGEST_DOUBLE:
        raise DataError(f"Values reach {largest:.3g}, and their squares are too large. {_ADVICE}")
    if 0 < most < SMALLEST_DOUBLE:
        raise DataError(f"No feature varies by more than {most:.3g}, and squares vanish at this scale. {_ADVICE}")
    if largest < LARGEST and least > SMALLEST:
        return x
    return torch.where(spread < SMALLEST_DOUBLE, low, x.double())


_ADVICE = "Rescale the features, for example to unit variance."
