"""Newton's method for the potentials of a balanced assignment, where updates one by one take hundreds of steps.

Where assignments are nearly hard, only the few samples between two components answer to a potential, so an update of
Sinkhorn's moves too little. The second derivatives know how few they are.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mixtura.core import linalg

MAX_COMPONENTS = 2000  # the matrix of second derivatives takes 32 MB for as many
FIRST, BETWEEN = 10, 2  # updates of Sinkhorn's before the first trial, and after one that was no gain
DAMPING, LEAST_DAMPING = 1e-2, 1e-6  # of a trial; below the least, float32 has no digits left
RAISE, LOWER = 4.0, 3.0
CLOSE = 1.0  # divergence above which a quadratic model says nothing


@dataclass(frozen=True)
class Reached:
    """The masses that potentials reach, and those that they should; a finite strength lets these ``goal`` follow."""

    potential: Float[Tensor, " K"]
    mass: Float[Tensor, " K"]
    goal: Float[Tensor, " K"]

    @property
    def error(self) -> float:
        """Largest deviation of a mass, as a share of its goal."""
        return float((self.mass / self.goal - 1).abs().max())

    @property
    def divergence(self) -> float:
        """Squared deviation of all masses, each over the mass; infinite where a component has none."""
        return float(((self.mass - self.goal).square() / self.mass).sum())


class Trials:
    """When Newton's method is tried, and how cautiously: a trial that is no gain is followed by plain updates."""

    def __init__(self) -> None:
        self.damping, self.wait = DAMPING, FIRST

    def is_due(self, now: Reached) -> bool:
        """Whether to try now; call it once an update."""
        self.wait -= 1
        return self.wait < 0 and len(now.mass) <= MAX_COMPONENTS and now.divergence < CLOSE

    def judge(self, before: Reached, after: Reached) -> bool:
        """Whether a trial was a gain; the next ones are bolder then, and else more cautious.

        It is where the masses came closer, or where the dual, which is convex, still falls beyond the trial: where all
        samples are assigned hard, masses stay as they are over a long way.
        """
        falls = (after.mass - after.goal) @ (after.potential - before.potential) <= 0
        gain = after.divergence < before.divergence or bool(falls)
        self.damping = max(self.damping / LOWER, LEAST_DAMPING) if gain else min(self.damping * RAISE, 1.0)
        self.wait = 0 if gain else BETWEEN
        return gain


def moved(now: Reached, overlap: Float[Tensor, "K K"], ratio: float, damping: float) -> Float[Tensor, " K"]:
    r"""The potentials after a damped step of Newton's method towards the goal.

    .. math:: \big[(1 + \mu)\, \operatorname{diag}(m) - O + r \operatorname{diag}(g)\big]\, \Delta = g - m

    with masses m, goals g, and :math:`O_{jk}` the mean over samples of the shares of components j and k multiplied.

    Args:
        now: masses and goals at the potentials.
        overlap: O.
        ratio: r, regularization over strength; 0 for masses that are met exactly.
        damping: :math:`\mu`, above 0, as a share of the mass of each component.

    Source: Levenberg, A method for the solution of certain non-linear problems in least squares, 1944; for optimal
    transport: Brauer, Clason, Lorenz and Wirth, A Sinkhorn-Newton method for entropic optimal transport, 2017.
    """
    scale = now.mass.rsqrt()
    matrix = (1 + damping + ratio * now.goal / now.mass).diag() - scale[:, None] * overlap * scale
    change = scale * linalg.solve(matrix, scale * (now.goal - now.mass))
    return now.potential + (change if ratio else change - change.mean())
