"""Scores that are read from the density alone."""

from jaxtyping import Float
from torch import Tensor


def evidence(log_density: Float[Tensor, " N"], background: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Log-density of the row under the whole mixture, in nats: low for what lies far from everything."""
    return log_density


def relative(log_density: Float[Tensor, " N"], background: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    r"""How much better the classes explain the row than one broad Gaussian does, in nats.

    .. math:: \log p(x) - \log N(x; \mu_0, \Sigma_0)

    What is unusual for every photo alike, such as its light, cancels; what separates the classes stays.

    Source: Ren et al., A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection, 2021, with the
    background matched to the mixture's own moments.
    """
    return log_density - background
