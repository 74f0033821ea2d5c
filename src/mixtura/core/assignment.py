"""Balanced assignment of samples to components: entropic optimal transport in the log domain."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.errors import DataError, UsageError

CHECK_EVERY = 10  # iterations between convergence checks, which synchronize the device


@dataclass(frozen=True)
class Transport:
    """A transport plan and its error.

    Args:
        plan: mass from each sample to each component; its row sums are exact.
        error: largest deviation of a component's mass from its target, as a share of the target.
        steps: number of iterations.
    """

    plan: Float[Tensor, "*B N K"]
    error: Float[Tensor, "*B"]
    steps: int

    def checked(self, tolerance: float = 1e-3) -> "Transport":
        """The same plan, after checking that it has converged.

        Args:
            tolerance: largest allowed deviation of a component's mass, as a share of its own target.

        Raises:
            DataError: the error is larger.
        """
        worst = float(self.error.max())
        if not worst <= tolerance:
            raise DataError(
                f"After {self.steps} steps a component's mass is off by {worst:.2g} of its target, above "
                f"{tolerance:g}. Allow more steps or a larger regularization."
            )
        return self


def sinkhorn(
    log_p: Float[Tensor, "*B N K"],
    row: Float[Tensor, "*B N"],
    column: Float[Tensor, "*B K"],
    regularization: float = 1.0,
    steps: int = 100,
    tolerance: float = 1e-4,
) -> Transport:
    r"""Entropy-regularized transport plan with given marginals, by Sinkhorn iterations.

    .. math:: \max_P \sum_{nk} P_{nk} \log p_{nk} + \epsilon H(P),
        \quad P 1 = \text{row}, \; P^\top 1 = \text{column}, \qquad
        P_{nk} = e^{u_n + \log p_{nk} / \epsilon + v_k}

    With :math:`\epsilon = 1` and log-densities, it is an E-step with prescribed component weights.

    Args:
        log_p: score of each sample and component, in nats; leading dimensions are independent problems.
        row: mass of each sample; zero leaves a sample out.
        column: mass of each component, with the same total.
        regularization: :math:`\epsilon`, above zero, in nats; small values approach a hard assignment, slowly.
        steps: maximum number of iterations.
        tolerance: deviation of a component's mass at which to stop, as a share of its own target.

    Raises:
        UsageError: negative masses or different totals, no regularization, or no step.

    Source: Cuturi, Sinkhorn Distances: Lightspeed Computation of Optimal Transport, NeurIPS 2013.
    """
    _check(row, column, regularization, steps)
    score = log_p / regularization
    u, v = torch.zeros_like(row), torch.zeros_like(column)
    plan, error = score, column
    for step in range(1, steps + 1):
        v = _potential(column, (score + u[..., :, None]).logsumexp(-2)) if step > 1 else v
        u = _potential(row, (score + v[..., None, :]).logsumexp(-1))
        if step % CHECK_EVERY and step < steps:
            continue
        plan = (score + u[..., :, None] + v[..., None, :]).exp()
        error = ((plan.sum(-2) - column).abs() / column.clamp_min(torch.finfo(row.dtype).tiny)).amax(-1)
        if bool((error <= tolerance).all()):
            return Transport(plan, error, step)
    return Transport(plan, error, steps)


def _potential(mass: Float[Tensor, "*M"], reached: Float[Tensor, "*M"]) -> Float[Tensor, "*M"]:
    """Potential that scales the reached mass to the target; minus infinity for a target of zero."""
    return torch.where(mass > 0, mass.log() - reached, -torch.inf)


def _check(row: Float[Tensor, "*B N"], column: Float[Tensor, "*B K"], regularization: float, steps: int) -> None:
    if not regularization > 0:
        raise UsageError(f"Regularization {regularization} is out of range. Give a number of nats above 0.")
    if steps < 1:
        raise UsageError(f"{steps} steps were asked for. Give 1 or more.")
    if bool((row < 0).any()) or bool((column < 0).any()):
        raise UsageError("A mass is negative. Give masses of zero or more.")
    given, taken = row.sum(-1), column.sum(-1)
    apart = (given - taken).abs()
    if bool((apart > 1e-4 * given.abs().clamp_min(1)).any()):
        worst = float(apart.max())
        raise UsageError(f"Rows and components have totals that differ by {worst:.3g}. Give the same mass to both.")
