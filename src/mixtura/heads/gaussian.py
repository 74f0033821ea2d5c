"""Gaussian mixture head: one mixture per class, as the last layer of a network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.core import classes
from mixtura.core.axes import axes_of
from mixtura.core.classes import Plan
from mixtura.core.covariance import NO_PRIOR, Covariance, Prior, family_name, family_of
from mixtura.core.mixture import Mixture
from mixtura.core.random_matrix import RANDOM_MATRICES, orthogonal
from mixtura.core.scale import upcast
from mixtura.errors import UsageError
from mixtura.heads import init
from mixtura.heads.base import GenerativeHead, Groups, as_rows
from mixtura.heads.joint import LINEAR_SLOPE, ROUND_SHARE, follow
from mixtura.names import nearest

FREEZABLE_PARTS = ("mean", "spread", "weight", "prior", "temperature")
INPUT_PROJECTIONS = ("identity", "pca", *RANDOM_MATRICES)
"""Input projections: fixed matrices, computed or drawn at random once and saved with the head."""
MIN_DIRECTION = 1e-3  # scale of directions missing in a mixture; zeros would have no gradient


@dataclass(frozen=True)
class Start:
    """Options to initialize a Gaussian head.

    Args:
        rank: directions per component, for the low-rank family.
        prior: shrinkage of the covariances.
        steps: maximum number of EM steps; 0 stops at the k-means clusters.
        projection: input projection, a name in :data:`INPUT_PROJECTIONS`; random ones depend on the seed.
        width: columns of the projection; D or ``None`` leaves the samples unprojected.
        freeze: parts that later training does not change.
    """

    rank: int = 16
    prior: Prior = NO_PRIOR
    steps: int = 30
    projection: str = "identity"
    width: int | None = None
    freeze: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.projection not in INPUT_PROJECTIONS:
            hint = nearest(self.projection, INPUT_PROJECTIONS)
            raise UsageError(f"A Gaussian head has no input projection {self.projection!r}. {hint}")
        if (self.projection == "identity") != (self.width is None):
            raise UsageError(f"Set both projection (one of {', '.join(INPUT_PROJECTIONS[1:])}) and width, or neither.")
        if self.width is not None and self.width < 1:
            raise UsageError(f"A Gaussian head cannot project to {self.width} features. Give a width of 1 or more.")


@final
class GaussianHead(GenerativeHead):
    r"""Class log-posteriors from Gaussian mixtures; a drop-in replacement for the last ``nn.Linear``.

    .. math::
        \log p(c \mid x) = \log\operatorname{softmax}_c \tfrac1T \log\Big[ \pi_c \sum_{k:\,o_k=c} w_k
            N(x; \mu_k, \Sigma_k) \Big]

    The parameters are the means and the ``unconstrained`` parameters of the covariance family, both in units of the
    data's spread, the logits of weights and class priors, and the log-temperature. Nothing is clamped, and the head has
    no state besides parameters and buffers.

    Args:
        dimension: D, the width of the input.
        n_classes: C.
        components: Gaussians per class, one number for all or one per class.
        family: a name in ``FAMILIES``: spherical (DGMMC-S), diagonal (DGMMC-D), lowrank, tied, full (GMML).
        rank: directions per component, for the low-rank family.
        width: width after the input projection, a random orthogonal matrix until another is loaded; ``None`` for
            no projection.
        freeze: parts that training does not change, any of :data:`FREEZABLE_PARTS`.

    Raises:
        UsageError: an invalid family, count, width or name to freeze.

    A new head is random, like a new ``nn.Linear``; initialize it with :meth:`from_rows` or :meth:`assign`.

    Source: Chopin and Dahyot, arXiv 2410.13421 (spherical, diagonal), with the variance as a log-variance.
    """

    name: ClassVar[str] = "gaussian"
    options_class: ClassVar[Callable[..., Any] | None] = Start
    center: Tensor
    scale: Tensor
    project: Tensor | None

    def __init__(
        self,
        dimension: int,
        n_classes: int,
        components: init.Counts = 1,
        family: str = "spherical",
        rank: int = 16,
        width: int | None = None,
        freeze: Sequence[str] = (),
    ) -> None:
        super().__init__()
        _check(family, freeze)
        counts = init.components_per_class(components, n_classes)
        self.dimension, self.n_classes, self.family, self.rank = dimension, n_classes, family, rank
        self.counts, self.width, self.freeze = counts, width, tuple(freeze)
        inner = dimension if width is None else width
        self.groups = Groups(init.component_class_of(counts), n_classes)
        self.mean = nn.Parameter(torch.randn(sum(counts), inner) / inner**0.5)
        self.covariance_kind = family_of(family)
        self.free = nn.ParameterDict(self.covariance_kind.initial(sum(counts), inner, rank).unconstrained())
        self.weight_logit = nn.Parameter(torch.zeros(sum(counts)))
        self.prior_logit = nn.Parameter(torch.zeros(n_classes))
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.register_buffer("center", torch.zeros(inner))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("project", None if width is None else _drawn(orthogonal, dimension, width))
        self._freeze()

    def _freeze(self) -> None:
        """Exclude the frozen parts from training."""
        parts = {
            "mean": [self.mean],
            "spread": list(self.free.values()),
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
        x: init.Rows,
        labels: init.Labels,
        n_classes: int,
        *,
        components: init.Counts = 1,
        seed: int = 0,
        family: str = "spherical",
        **options: Any,
    ) -> "GaussianHead":
        """Head fitted in closed form (one component per class) or by EM (several).

        Args:
            x: training samples.
            labels: the class of each sample; every class has at least one.
            n_classes: C.
            components: Gaussians per class; at most half the number of its samples.
            seed: for k-means++ and random projections.
            family: a name in ``FAMILIES``.
            options: the fields of :class:`Start`.

        Raises:
            NonFinite: NaN or infinity in x.
            DataError: a class without samples.
            UsageError: an invalid option.
        """
        start = Start(**options)
        _check(family, start.freeze)
        rows, labels = init.checked(x, labels, n_classes)
        matrix = input_matrix(start, rows, seed)
        z = rows if matrix is None else rows @ matrix
        asked = tuple(init.components_per_class(components, n_classes))
        plan = Plan(family, asked, start.prior, rank=start.rank, steps=start.steps, seed=seed)
        mixture = classes.fit(plan, z, labels, n_classes)
        assert mixture.component_class is not None
        counts = torch.bincount(mixture.component_class, minlength=n_classes).tolist()
        width = None if matrix is None else start.width
        head = cls(rows.shape[1], n_classes, counts, family, start.rank, width, start.freeze)
        head.to(rows.device, rows.dtype)
        head.project = matrix
        head.assign(mixture)
        head.set_temperature(init.fit_temperature(head.class_scores, rows, labels))
        return head

    @torch.no_grad()
    def assign(self, mixture: Mixture) -> None:
        """Copy a mixture of the same family and classes, in the space after the input projection; T becomes 1.

        Raises:
            UsageError: another family, width or number of components per class.
        """
        self._check_fits(mixture)
        assert mixture.component_class is not None
        share = mixture.log_weight.exp()
        center = (share[:, None] * mixture.mean).sum(0)
        self.center.copy_(center)
        alone = mixture.covariance.pooled(share, mixture.mean - center)
        variance = alone.dense(1, mixture.dimension)[0].diagonal().mean()
        self.scale.copy_(variance.clamp_min(torch.finfo(self.dtype).tiny).sqrt())
        self.mean.copy_((mixture.mean - center) / self.scale)
        for name, value in mixture.covariance.scaled(1 / self.scale).unconstrained().items():
            own, size = self.free[name], value.shape
            if any(given > kept for given, kept in zip(size, own.shape, strict=True)):
                shapes = f"{tuple(size)} in the mixture and {tuple(own.shape)} in the head"
                raise UsageError(f"The shape of {name!r} is {shapes}. Build the head with a higher rank.")
            own.mul_(MIN_DIRECTION)[tuple(map(slice, size))] = value
        smallest = -50.0  # log-weight of a component without weight; it still has a gradient
        log_weight = mixture.log_weight.clamp_min(smallest)
        self.prior_logit.copy_(self.groups(log_weight))
        self.weight_logit.copy_(self.groups.within(log_weight.to(self.weight_logit)))
        self.log_temperature.zero_()
        self.joined.fill_(False)
        self.has_joined = False
        self.settle_precision()

    def _check_fits(self, mixture: Mixture) -> None:
        family, width = type(mixture.covariance), self.mean.shape[1]
        if family is not self.covariance_kind or mixture.dimension != width or mixture.component_class is None:
            raise UsageError(
                f"A {family_name(family)} mixture in {mixture.dimension} dimensions does not fit a {self.family} head "
                f"in {width}. Build the head with the family and width of the mixture."
            )
        if not torch.equal(mixture.component_class.cpu(), self.groups.component_class.cpu()):
            raise UsageError("The mixture's components belong to other classes than the head's. Give it equal counts.")

    def mixture(self) -> Mixture:
        """The density as a core mixture, in the space after the input projection and without the temperature.

        It carries the gradient of the parameters; call it under ``torch.no_grad()`` to keep the result.
        """
        mean = upcast(self.mean) * upcast(self.scale) + upcast(self.center)
        covariance = self._covariance().scaled(upcast(self.scale))
        return Mixture(self._log_weight(), mean, covariance, self.groups.component_class, self.n_classes)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values; they rebuild the head before its state is loaded."""
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
    def density_dimension(self) -> int:
        """Number of dimensions after the input projection."""
        return self.mean.shape[1]

    @property
    def n_parameters(self) -> int:
        """Number of free parameters that a prediction uses; one Gaussian per class has no weights."""
        weights = 0 if self.groups.single else self.weight_logit.numel()
        return self.mean.numel() + self._covariance().n_parameters + weights + self.n_classes + 1

    def preprocess(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N W"]:
        """Samples in the head's units: projected, centered and scaled to an average variance of one."""
        return self._standard(x)[0]

    def _standard(self, x: Float[Tensor, "*N D"]) -> tuple[Float[Tensor, "*N W"], Float[Tensor, ""]]:
        """Samples in the head's units, and the unit; while a network is trained, those of the mini-batch."""
        following = self.follows(x)
        x = x.to(self.working(x)) if following else self.in_reach(x, self.scale)
        projected = x if self.project is None else x @ self.project.to(x.dtype)
        if following:
            return follow(projected, self.center, self.scale)
        return (projected - self.center.to(x.dtype)) / self.scale.to(x.dtype), self.scale

    def join(self) -> None:
        """Shrink the covariances half way to a scaled identity, and temper to no steeper than a new linear layer.

        Directions in which the rows of a fit hardly vary have huge precisions. The fit has no use for them, but a
        network that changes puts samples there, and their gradients would exceed all others. What is frozen stays.
        """
        if "spread" not in self.freeze:
            rounded = self._covariance().shrunk(Prior(identity=ROUND_SHARE))
            for name, value in rounded.unconstrained().items():
                self.free[name].copy_(value)
        if "temperature" not in self.freeze:
            slope = self.input_gradients().square().sum(1).mean().sqrt()
            self.log_temperature.add_((slope / LINEAR_SLOPE).clamp_min(1).log())

    def distances(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Half the squared Mahalanobis distance of each sample to each component."""
        z, _ = self._units(x)
        return -self._scores(z, -self._covariance().log_peak(self.mean.shape[1]))

    def component_log_prob(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        r"""Joint log-density of each sample and component, :math:`\log\pi_k + \log N(x;\mu_k,\Sigma_k)`, in nats."""
        z, unit = self._units(x)
        return self._scores(z, self._log_weight() - self.mean.shape[1] * upcast(unit).log())

    def input_gradients(self) -> Float[Tensor, "K D"]:
        r"""Gradients of the components' scores at the center, :math:`\Sigma_k^{-1}\mu_k / T` in the head's units."""
        return self._covariance().precision_matmul(upcast(self.mean)) * (-upcast(self.log_temperature)).exp()

    def _units(self, x: Float[Tensor, "*N D"]) -> tuple[Float[Tensor, "*N W"], Float[Tensor, ""]]:
        # no autocast: bfloat16 products keep only three digits of distances in the hundreds
        with torch.autocast(x.device.type, enabled=False):
            return (x, self.scale) if self.preprocessed else self._standard(x)

    def _scores(self, z: Float[Tensor, "*N W"], added: Float[Tensor, " J"]) -> Float[Tensor, "*N K"]:
        """Log-densities in the head's units plus a constant per component."""
        with torch.autocast(z.device.type, enabled=False):
            dtype, family = self.working(z), self.covariance_kind
            constant, *matrices = family.free_operands(self._free(dtype), self.mean.to(dtype))
            operands = (constant + added.to(dtype), *matrices)
            return as_rows(lambda rows: family.score(operands, rows), z.to(dtype))

    def cancellation(self) -> Float[Tensor, " K"]:
        """Squared distances of the means to the center, and what else cancels within a score."""
        mean, covariance = upcast(self.mean), self._covariance()
        at_center = self.covariance_kind.score(covariance.operands(mean), torch.zeros_like(mean[:1]))[0]
        return 2 * (covariance.log_peak(mean.shape[1]) - at_center) + covariance.taken_off

    def _covariance(self) -> Covariance:
        """The covariances in the head's units."""
        return self.covariance_kind.constrained(self._free())

    def _free(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        return {name: upcast(value) if dtype is None else value.to(dtype) for name, value in self.free.items()}

    def _log_weight(self) -> Float[Tensor, " K"]:
        return self.groups.log_weight(self.prior_logit, self.weight_logit)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, own in self.free.items():  # older states use other names
            for older in (f"{prefix}spread.{name}", f"{prefix}spread.diagonal.{name}"):
                if older in state_dict:
                    state_dict[f"{prefix}free.{name}"] = state_dict.pop(older).reshape(own.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _check(family: str, freeze: Sequence[str]) -> None:
    family_of(family)
    for name in freeze:
        if name not in FREEZABLE_PARTS:
            raise UsageError(f"A Gaussian head cannot freeze {name!r}. {nearest(name, FREEZABLE_PARTS)}")


def input_matrix(start: Start, rows: Float[Tensor, "N D"], seed: int) -> Float[Tensor, "D W"] | None:
    """Input projection matrix, computed from samples or drawn at random; ``None`` if it would only rotate them.

    Raises:
        UsageError: a width larger than that of the samples.
    """
    dimension, width, name = rows.shape[1], start.width, start.projection
    if width is None or width == dimension:
        return None
    if name == "pca":
        _check_width(dimension, width)
        _, axes, _ = axes_of(rows)
        matrix = nn.functional.pad(axes[:, :width], (0, width - min(width, axes.shape[1])))
    else:
        matrix = _drawn(RANDOM_MATRICES[name], dimension, width, torch.Generator().manual_seed(seed))
    return matrix.to(rows).contiguous()


def _check_width(dimension: int, width: int) -> None:
    if not 1 <= width <= dimension:
        raise UsageError(f"The head was asked to project {dimension} features to {width}. Give 1 to {dimension}.")


def _drawn(
    draw: Callable[..., Tensor], dimension: int, width: int, generator: torch.Generator | None = None
) -> Float[Tensor, "D W"]:
    """Random matrix that preserves squared lengths on average."""
    _check_width(dimension, width)
    return draw(dimension, width, generator) / width**0.5
