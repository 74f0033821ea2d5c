"""A mixture of Gaussians for each class, as the last layer of a network."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.core import classes, temperature
from mixtura.core.classes import Plan
from mixtura.core.covariance import NO_PRIOR, Prior
from mixtura.core.covariance.protocol import LOG_2PI
from mixtura.core.mixture import Mixture
from mixtura.errors import UsageError
from mixtura.heads import inputs, starts
from mixtura.heads.protocol import DenseHead, Groups
from mixtura.heads.spread import SPREADS
from mixtura.names import nearest

FREEZABLE = ("mean", "spread", "weight", "prior", "temperature")
ROWS = 4096  # that the temperature of a start is read from


@dataclass(frozen=True)
class Start:
    """How a Gaussian head begins.

    Args:
        rank: directions a component, for the low-rank family.
        prior: shrinkage of the covariances.
        steps: most steps of EM; 0 stops at the clusters of k-means.
        projection: of the input: identity, pca, orthogonal or achlioptas. Drawn by the seed, kept with the head.
        width: columns of the projection; the rows stay as they are where it is D or ``None``.
        freeze: what later training leaves alone.
    """

    rank: int = 16
    prior: Prior = NO_PRIOR
    steps: int = 30
    projection: str = "identity"
    width: int | None = None
    freeze: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.projection not in ("identity", *inputs.INPUTS):
            hint = nearest(self.projection, inputs.INPUTS)
            raise UsageError(f"Input projection {self.projection!r} is not known. {hint}")
        if (self.projection == "identity") != (self.width is None):
            raise UsageError("An input projection needs a width, and a width one of: " + ", ".join(inputs.INPUTS) + ".")


@final
class GaussianHead(DenseHead):
    r"""Class log-posteriors from Gaussians, a drop-in for the last ``nn.Linear``.

    .. math::
        \log p(c \mid x) = \log\operatorname{softmax}_c \tfrac1T \log\Big[ \pi_c \sum_{k:\,o_k=c} w_k
            N(x; \mu_k, \Sigma_k) \Big]

    Free parameters are means in units of the data's own spread, log-variances or precision factors with a positive
    diagonal, and the logits of weights, class priors and temperature. Nothing is clamped, and there is nothing to
    refresh: the head has no state beside parameters and buffers.

    Args:
        dimension: D, the width of the input.
        n_classes: C.
        components: Gaussians a class, one number for all or one a class.
        family: a name in ``SPREADS``: spherical (DGMMC-S), diagonal (DGMMC-D), lowrank, tied, full (GMML).
        rank: directions a component, for the low-rank family.
        width: the width after the input projection; ``None`` for no projection.
        freeze: what training leaves alone, any of :data:`FREEZABLE`.

    Raises:
        UsageError: a family, a count or a name to freeze that does not exist.

    A fresh head is random, as a fresh ``nn.Linear`` is; :meth:`from_rows` or :meth:`assign` give it a start.

    Source: Chopin and Dahyot, arXiv 2410.13421 (spherical, diagonal), with the variance as a log-variance.
    """

    name: ClassVar[str] = "gaussian"
    further: ClassVar[Callable[..., Any] | None] = Start
    center: Tensor
    scale: Tensor
    project: Tensor | None

    def __init__(
        self,
        dimension: int,
        n_classes: int,
        components: starts.Counts = 1,
        family: str = "spherical",
        rank: int = 16,
        width: int | None = None,
        freeze: Sequence[str] = (),
    ) -> None:
        super().__init__()
        _check(family, freeze)
        counts = starts.spread_out(components, n_classes)
        self.dimension, self.n_classes, self.family, self.rank = dimension, n_classes, family, rank
        self.counts, self.width, self.freeze = counts, width, tuple(freeze)
        inner = dimension if width is None else width
        self.groups = Groups(starts.owner_of(counts), n_classes)
        self.mean = nn.Parameter(torch.randn(sum(counts), inner) / inner**0.5)
        self.spread = SPREADS[family](sum(counts), inner, rank)
        self.weight_logit = nn.Parameter(torch.zeros(sum(counts)))
        self.prior_logit = nn.Parameter(torch.zeros(n_classes))
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.register_buffer("center", torch.zeros(inner))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("project", None if width is None else torch.zeros(dimension, width))
        self._freeze()

    def _freeze(self) -> None:
        """Take the frozen parts out of training."""
        parts = {
            "mean": [self.mean],
            "spread": list(self.spread.parameters()),
            "weight": [self.weight_logit],
            "prior": [self.prior_logit],
            "temperature": [self.log_temperature],
        }
        for name in self.freeze:
            for parameter in parts[name]:
                parameter.requires_grad_(False)

    @classmethod
    def from_rows(
        cls,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_classes: int,
        *,
        components: starts.Counts = 1,
        seed: int = 0,
        family: str = "spherical",
        **options: Any,
    ) -> "GaussianHead":
        """The head at the closed form (one component a class) or at the end of EM (several).

        Args:
            x: rows to learn from.
            labels: the class of each row; every class has one or more.
            n_classes: C.
            components: Gaussians a class; a class never gets more than half its rows.
            seed: of k-means++ and of a random projection.
            family: a name in ``SPREADS``.
            options: the fields of :class:`Start`.

        Raises:
            NonFinite: NaN or infinity in x.
            DataError: a class without rows.
            UsageError: an option that does not fit.
        """
        rows, start = starts.checked(x, labels, n_classes), Start(**options)
        _check(family, start.freeze)
        asked = tuple(starts.spread_out(components, n_classes))
        narrow = start.projection != "identity" and start.width not in (None, x.shape[1])
        wide = inputs.matrix(start.projection, rows, int(start.width or 0), seed).to(rows.dtype) if narrow else None
        z = rows if wide is None else rows @ wide
        plan = Plan(family, asked, start.prior, rank=start.rank, steps=start.steps, seed=seed)
        mixture = classes.fit(plan, z, labels, n_classes)
        assert mixture.owner is not None
        counts = torch.bincount(mixture.owner, minlength=n_classes).tolist()
        head = cls(x.shape[1], n_classes, counts, family, start.rank, start.width if narrow else None, start.freeze)
        head.to(rows.device, rows.dtype)
        head.project = None if wide is None else wide.contiguous()
        head.assign(mixture)
        step = max(1, len(rows) // ROWS)
        head.temper(temperature.best(head.class_scores(rows[::step]).detach(), labels[::step]))
        return head

    @torch.no_grad()
    def assign(self, mixture: Mixture) -> None:
        """Take over a mixture of this family, owners and all, in the space after the input projection; T becomes 1.

        Raises:
            UsageError: another family, width or number of components a class.
        """
        self._check_fits(mixture)
        assert mixture.owner is not None
        share = mixture.log_weight.exp()
        center = (share[:, None] * mixture.mean).sum(0)
        self.center.copy_(center)
        spread = mixture.covariance.collapse(share, mixture.mean - center)
        variance = spread.dense(1, mixture.dimension)[0].diagonal().mean()
        self.scale.copy_(variance.clamp_min(torch.finfo(torch.float32).tiny).sqrt())
        self.mean.copy_((mixture.mean - center) / self.scale)
        self.spread.assign(mixture.covariance, self.scale)  # pyright: ignore[reportCallIssue]
        smallest = -50.0  # of a component without weight: it has a gradient still
        log_weight = mixture.log_weight.clamp_min(smallest)
        self.prior_logit.copy_(self.groups(log_weight[None])[0])
        self.weight_logit.copy_(self.groups.within(log_weight.to(self.weight_logit)))
        self.log_temperature.zero_()

    def _check_fits(self, mixture: Mixture) -> None:
        family, width = type(mixture.covariance).name, self.mean.shape[1]
        if family != self.family or mixture.dimension != width or mixture.owner is None:
            raise UsageError(
                f"A {family} mixture in {mixture.dimension} dimensions does not fit a {self.family} head in {width}. "
                "Build the head with the family and width of the mixture."
            )
        if not torch.equal(mixture.owner.cpu(), self.groups.owner.cpu()):
            raise UsageError("The mixture's components belong to other classes than the head's. Give it equal counts.")

    @torch.no_grad()
    def temper(self, degrees: float) -> None:
        """Answer at a temperature; the density stays."""
        self.log_temperature.fill_(math.log(degrees))

    def mixture(self) -> Mixture:
        """The density as a mixture of the core, in the space after the input projection; the temperature is no part."""
        return Mixture(
            self._log_weight().detach(),
            (self.mean * self.scale + self.center).detach(),
            _detached(self.spread.covariance(self.scale)),  # pyright: ignore[reportCallIssue]
            self.groups.owner,
            self.n_classes,
        )

    def config(self) -> dict[str, Any]:
        """Plain values that build the same head before its state is loaded."""
        return {
            "dimension": self.dimension,
            "n_classes": self.n_classes,
            "components": self.counts,
            "family": self.family,
            "rank": self.rank,
            "width": self.width,
            "freeze": list(self.freeze),
        }

    @property
    def n_parameters(self) -> int:
        """Free numbers that a prediction uses: with one Gaussian a class there are no weights."""
        weights = 0 if self.groups.single else self.weight_logit.numel()
        spread: int = self.spread.n_parameters  # pyright: ignore[reportAssignmentType]
        return self.mean.numel() + spread + weights + self.n_classes + 1

    def inner(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N W"]:
        """The rows in the head's own units: projected, centered, with an average variance of one."""
        x = x.to(self.mean.dtype)
        projected = x if self.project is None else x @ self.project
        return (projected - self.center) / self.scale

    def distances(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Half the squared Mahalanobis distance of each row to each component."""
        return -self._spread_about(x, torch.zeros_like(self.weight_logit))

    def joint(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        r"""Log-density of each point together with each component, :math:`\log\pi_k + \log N(x;\mu_k,\Sigma_k)`."""
        units = self.mean.shape[1] * (0.5 * LOG_2PI + self.scale.log())
        log_root_det = self.spread.log_root_det()  # pyright: ignore[reportCallIssue]
        return self._spread_about(x, self._log_weight() - log_root_det - units)

    def slopes(self) -> Float[Tensor, "K D"]:
        r"""Gradients of the components' scores at the center, :math:`\Sigma_k^{-1}\mu_k / T` in the head's units."""
        return self.spread.pull(self.mean) * (-self.log_temperature).exp()  # pyright: ignore[reportCallIssue]

    def _spread_about(self, x: Float[Tensor, "N D"], constant: Float[Tensor, " K"]) -> Float[Tensor, "N K"]:
        # bfloat16 products keep three digits of distances that run into the hundreds: no autocast here
        with torch.autocast(x.device.type, enabled=False):
            return self.spread(x if self.inside else self.inner(x), self.mean, constant)

    def _log_weight(self) -> Float[Tensor, " K"]:
        return self.groups.log_weight(self.prior_logit, self.weight_logit)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Log-posterior of each class, in nats, at the head's temperature."""
        return (self.class_scores(x) * (-self.log_temperature).exp()).log_softmax(1)


def _check(family: str, freeze: Sequence[str]) -> None:
    if family not in SPREADS:
        raise UsageError(f"Family {family!r} is not known. Known: {', '.join(SPREADS)}.")
    wrong = sorted(set(freeze) - set(FREEZABLE))
    if wrong:
        raise UsageError(f"A Gaussian head cannot freeze {wrong[0]!r}. Known: {', '.join(FREEZABLE)}.")


def _detached(covariance: Any) -> Any:
    return type(covariance).from_state({name: value.detach() for name, value in covariance.state().items()})
