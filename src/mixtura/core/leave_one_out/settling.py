r"""What a class mean of all samples would change in the scores of a sample that was left out of it.

Later samples meet a class mean of n samples, a sample that is left out one of :math:`n' < n`. That mean errs by a
vector with variances of :math:`1/n'` times the class's, not :math:`1/n`, and in high dimensions the difference exceeds
the spread of the scores.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def class_share(whole: Float[Tensor, "*N"], left: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    r"""Factor of squared deviations from a class mean, where ``whole`` samples are as good as 1: at most 1.

    .. math:: f^2 = \frac{1 + 1/n}{1 + 1/n'}

    It is 1 where nothing is ``left`` of a class.
    """
    return torch.where(left > 0, (1 + 1 / whole) / (1 + 1 / left), 1.0)


def background_gain(
    whole: Float[Tensor, "*N"],
    left: Float[Tensor, "*N"],
    squares: tuple[Float[Tensor, "*N"], Float[Tensor, "*N"], Float[Tensor, "*N"]],
) -> Float[Tensor, "*N"]:
    r"""What the log-density under the background gains, in nats, where the classes share a covariance matrix.

    With e the deviation from the class mean and o the class mean's offset from the overall mean, the error of the
    class mean has a squared length of about :math:`p = |e|^2 / (n' + 1)`. Its part along o is scatter between classes,
    to which the background assigns almost no distance. The rest, a share of :math:`1 - p / |o|^2`, the background
    measures as the class does, so both lose it together:

    .. math:: \frac12 (1 - f^2)\, |e|^2_0 \left(1 - \frac{p}{|o|^2}\right)
        \left(1 - \frac{q}{|o|^2 - p + q}\right), \qquad q = p\, \frac{n'}{n}

    where :math:`|e|_0` is measured under the background. Without it, classes far apart in many dimensions would turn
    every later sample away.

    Args:
        whole: samples of the class, n.
        left: samples that remain of it.
        squares: squared lengths of e and o under the class's covariance, and of e under the background's.
    """
    deviation, offset, behind = squares
    error = torch.minimum(deviation / (left + 1), offset)
    apart = offset - error
    both = offset * (apart + error * left / whole)
    share = torch.where(both > 0, apart.square() / both, 0.0)
    return 0.5 * (1 - class_share(whole, left)) * behind * share
