"""Von Mises-Fisher head: mixtures over directions instead of points."""

from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.core import ownership, special
from mixtura.core.scale import upcast
from mixtura.heads import init
from mixtura.heads.base import GenerativeHead, Groups
from mixtura.heads.joint import held, log_gain

MIN_CONCENTRATION, MAX_CONCENTRATION = 1e-3, 1e6  # range of initial concentrations
NEWTON_STEPS = 8
EM_STEPS = 20
MIN_LENGTH = 1e-4  # of a mean direction; below, the directions are uniform


def concentration(length: Float[Tensor, "*K"], dimension: int) -> Float[Tensor, "*K"]:
    r"""Maximum-likelihood concentration for a mean resultant length, in float64: Banerjee's estimate plus Newton steps.

    .. math:: \kappa_0 = \frac{\bar R D - \bar R^3}{1 - \bar R^2}, \qquad
        \kappa \leftarrow \kappa - \frac{A_D(\kappa) - \bar R}{1 - A_D(\kappa)^2 - \frac{D - 1}{\kappa} A_D(\kappa)}

    Args:
        length: :math:`\bar R`, the length of the mean of unit vectors, 0 to 1.
        dimension: D.

    Source: Banerjee et al., Clustering on the Unit Hypersphere using von Mises-Fisher Distributions, JMLR 2005;
    Sra, A short note on parameter approximation for von Mises-Fisher distributions, 2012.
    """
    wanted = length.double().clamp(MIN_LENGTH, 1 - 1e-12)
    kappa = (wanted * (dimension - wanted.square()) / (1 - wanted.square())).clamp(MIN_CONCENTRATION, MAX_CONCENTRATION)
    for _ in range(NEWTON_STEPS):
        reached = special.mean_length(dimension, kappa)
        slope = 1 - reached.square() - (dimension - 1) / kappa * reached
        step = (reached - wanted) / slope.clamp_min(torch.finfo(slope.dtype).tiny)
        kappa = torch.where(step.isfinite(), kappa - step, kappa).clamp(MIN_CONCENTRATION, MAX_CONCENTRATION)
    return kappa


@final
class VonMisesFisherHead(GenerativeHead):
    r"""Von Mises-Fisher mixture per class, on samples normalized to length one.

    .. math:: \log p(x, k) = \log\pi_{o_k} + \log w_k + \log C_D(\kappa_k) + \kappa_k \mu_k^\top \tfrac{x}{\|x\|}

    Densities are with respect to the surface of the unit sphere. A zero sample counts as orthogonal to all directions.
    With one shared concentration and one component per class, this is a cosine softmax.

    Args:
        dimension: D, 2 or more.
        n_classes: C.
        components: components per class, one number for all or one per class.
        shared: one concentration for all components.

        Source: Banerjee et al., Clustering on the Unit Hypersphere using von Mises-Fisher Distributions, JMLR 2005.
    """

    name: ClassVar[str] = "vmf"

    def __init__(self, dimension: int, n_classes: int, components: init.Counts = 1, shared: bool = False) -> None:
        super().__init__()
        self.dimension, self.n_classes, self.shared = dimension, n_classes, shared
        self.counts = init.components_per_class(components, n_classes)
        self.groups = Groups(init.component_class_of(self.counts), n_classes)
        n_components = sum(self.counts)
        self.direction = nn.Parameter(torch.randn(n_components, dimension))
        self.log_concentration = nn.Parameter(torch.zeros(1 if shared else n_components))
        self.weight_logit = nn.Parameter(torch.zeros(n_components))
        self.prior_logit = nn.Parameter(torch.zeros(n_classes))
        self.log_temperature = nn.Parameter(torch.zeros(()))

    @classmethod
    def from_rows(
        cls,
        x: init.Rows,
        labels: init.Labels,
        n_classes: int,
        *,
        components: init.Counts = 1,
        seed: int = 0,
        shared: bool = False,
    ) -> "VonMisesFisherHead":
        """Head with maximum-likelihood directions and concentrations, in closed form or by EM after k-means++.

        Args:
            x: training samples, of any norm.
            labels: the class of each sample.
            n_classes: C.
            components: components per class; at most half the number of its samples.
            seed: for k-means++.
            shared: one concentration for all components.
        """
        rows, labels = init.checked(x, labels, n_classes)
        rows = nn.functional.normalize(rows)
        mixture, counts = init.clusters(rows, labels, n_classes, components, seed)
        head = cls(rows.shape[1], n_classes, counts, shared).to(rows.device, rows.dtype)
        own = init.assign_hard(mixture, rows, labels)
        resp = nn.functional.one_hot(own, sum(counts)).to(rows.dtype)
        share = torch.bincount(labels, minlength=n_classes).to(rows.dtype)
        with torch.no_grad():
            head.prior_logit.copy_((share / share.sum()).log())
            head.maximize(rows, resp)
            for _ in range(EM_STEPS if max(counts) > 1 else 0):
                masked = ownership.mask_others(head.component_log_prob(rows), head.groups.component_class, labels)
                head.maximize(rows, masked.softmax(1))
        head.settle_precision()
        head.set_temperature(init.fit_temperature(head.class_scores, rows, labels))
        return head

    @torch.no_grad()
    def maximize(self, x: Float[Tensor, "N D"], resp: Float[Tensor, "N K"]) -> None:
        r"""M-step: set directions, concentrations and weights from unit samples and their responsibilities.

        The squared length of a mean of n samples is biased upward, so concentrations come from

        .. math:: \hat\rho_k^2 = \frac{(n_k \bar R_k^2 - 1) + \bar\rho^2}{(n_k - 1) + 1},

        which is unbiased except for one pseudo-observation of the pooled :math:`\bar\rho^2`.
        """
        weight = resp.sum(0, dtype=torch.float64)
        sums = (resp.T @ x).double()
        excess = sums.square().sum(1) / weight.clamp_min(1e-9) - 1
        degrees = (weight - 1).clamp_min(0)
        pooled = (excess * (degrees > 0)).sum() / degrees.sum().clamp_min(1e-9)
        square = (excess * (degrees > 0) + pooled) / (degrees + 1)
        chosen = pooled[None] if self.shared else square
        kappa = concentration(chosen.clamp(0, 1).sqrt(), self.dimension)
        self.direction.copy_(nn.functional.normalize(sums) * self.dimension**0.5)
        self.log_concentration.copy_(kappa.log())
        self.weight_logit.copy_(weight.clamp_min(1e-6).log())

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values; they rebuild the head before its state is loaded."""
        return {
            "dimension": self.dimension,
            "n_classes": self.n_classes,
            "components": self.counts,
            "shared": self.shared,
        }

    @property
    def n_parameters(self) -> int:
        """Number of free parameters that a prediction uses; one component per class has no weights."""
        weights = 0 if self.groups.single else self.weight_logit.numel()
        return self.direction.numel() + self.log_concentration.numel() + weights + self.n_classes + 1

    def distances(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        r"""Distance of each sample's direction to each component's, :math:`\kappa_k (1 - \mu_k^\top x)`, in nats."""
        rows = nn.functional.normalize(self.in_reach(x), dim=-1)
        direction = nn.functional.normalize(self.direction.to(rows.dtype))
        return self._log_concentration(x).to(rows.dtype).exp() * (1 - rows @ direction.T)

    def _log_concentration(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*J"]:
        """Log-concentrations, which stay as they are while a network is trained."""
        return held(upcast(self.log_concentration)) if self.follows(x) else upcast(self.log_concentration)

    def join(self) -> None:
        """Set the temperature that makes the scores as steep as a linear layer; the density stays."""
        concentration = upcast(self.log_concentration).exp().mean().log()
        direction = nn.functional.normalize(upcast(self.direction))
        self.log_temperature.fill_(float(concentration) - log_gain(direction))

    def cancellation(self) -> Float[Tensor, "*K"]:
        """Twice the concentrations, the most that a score can differ from its peak."""
        return 2 * upcast(self.log_concentration).exp()

    def component_log_prob(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Joint log-density of each sample's direction and component, in nats."""
        with torch.autocast(x.device.type, enabled=False):
            peak = special.log_normalizer(self.dimension, self._log_concentration(x).exp())
            log_weight = self.groups.log_weight(self.prior_logit, self.weight_logit)
            distances = self.distances(x)
            return log_weight + peak.to(distances.dtype) - distances
