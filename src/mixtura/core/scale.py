"""The scale of samples: fits square them, and squares leave the range of a floating-point number early."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.errors import DataError

LARGEST, SMALLEST = 1e15, 1e-15  # of samples whose squares and their sums fit into float32
LARGEST_DOUBLE, SMALLEST_DOUBLE = 1e60, 1e-60  # of samples whose fourth powers fit into float64
MAX_FEATURE = 1e20  # larger ones are scaled down: projections of them would leave the range of float32
_ADVICE = "Rescale the features, for example to unit scale."


def in_range(x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """The samples in a precision that holds their squares: as they are, or in float64.

    A feature that varies too little even for float64, beside others that do not, is made constant.

    Raises:
        DataError: not even float64 holds the squares; the message names the scale.
    """
    largest, spread = _checked(x, LARGEST_DOUBLE, SMALLEST_DOUBLE)
    if largest < LARGEST and float(torch.where(spread > 0, spread, math.inf).min()) > SMALLEST:
        return x
    return torch.where(spread < SMALLEST_DOUBLE, x[0].double(), x.double())


def check_single(x: Float[Tensor, "N D"]) -> None:
    """See that single precision holds the squares of samples, for models that compute in it.

    Raises:
        DataError: it does not; the message names the scale.
    """
    _checked(x, LARGEST, SMALLEST)


def within(x: Float[Tensor, "*N D"], most: Tensor | float) -> Float[Tensor, "*N D"]:
    """The samples, shrunk toward zero where an entry exceeds ``most``: squares of what is left have a place.

    Their direction stays, so the class that leads far out stays too. Traceable; other samples keep bits and gradient.
    """
    return x * (most / x.detach().abs().amax(-1, keepdim=True)).clamp_max(1.0)


def upcast(tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The tensor in the dtype of computations: float64 stays, everything else becomes float32."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _checked(x: Float[Tensor, "N D"], most: float, least: float) -> tuple[float, Float[Tensor, " D"]]:
    """The largest absolute value and the range of each feature, if they are within limits."""
    low, high = (end.double() for end in x.aminmax(dim=0))
    largest, spread = max(-float(low.min()), float(high.max())), high - low
    if largest > most:
        raise DataError(f"Values reach {largest:.3g}, and their squares are too large. {_ADVICE}")
    if 0 < float(spread.max()) < least:
        raise DataError(f"No feature varies by more than {float(spread.max()):.3g}, and squares vanish. {_ADVICE}")
    return largest, spread
