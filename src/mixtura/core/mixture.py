"""An immutable Gaussian mixture; densities, posteriors, samples and updates are methods that return new values."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core import moments as sums
from mixtura.core.covariance import NO_PRIOR, Covariance, Floor, Prior, Spherical, family_of
from mixtura.core.moments import Moments
from mixtura.core.ownership import ClassLogSumExp

TILE_ROWS = 4096  # samples scored per tile when only a reduction of the N x K scores is kept
MAX_OFFSET = 1e4  # squared distance that may cancel within a float32 score; beyond it, scores use float64
MAX_OPERAND = 1e30  # a precision; squares of samples that deviate as little are lost in float32
MAX_EXACT = 1 << 24  # largest covariance, in numbers, whose operands are prepared in float64


@final
@dataclass(frozen=True)
class Mixture:
    r"""K Gaussian components in D dimensions, each optionally assigned to a class.

    .. math::
        p(x) = \sum_k \pi_k N(x; \mu_k, \Sigma_k), \qquad
        p(x, c) = \sum_{k:\, o_k = c} \pi_k N(x; \mu_k, \Sigma_k)

    The weights sum to one over all components, so a class prior is the sum of its components' weights.
    ``component_class`` is ``None`` for a mixture without classes. ``feature_scale`` holds the feature units in which
    the covariances were shrunk; ``None`` for unscaled features. The density does not depend on it.
    """

    log_weight: Float[Tensor, " K"]
    mean: Float[Tensor, "K D"]
    covariance: Covariance
    component_class: Int[Tensor, " K"] | None = None
    n_classes: int = 0
    feature_scale: Float[Tensor, " D"] | None = None

    def __repr__(self) -> str:
        owned = "" if self.component_class is None else f" of {self.n_classes} classes"
        return f"Mixture({self.covariance.name}, {self.n_components} components{owned}, {self.dimension} dimensions)"

    @classmethod
    def from_moments(
        cls,
        moments: Moments,
        floor: Floor = 0.0,
        prior: Prior = NO_PRIOR,
        component_class: Int[Tensor, " K"] | None = None,
        n_classes: int = 0,
    ) -> "Mixture":
        r"""Mixture of given moments: the M-step, maximum likelihood where ``prior`` and ``floor`` add nothing.

        .. math:: \pi_k = \frac{w_k}{\sum_j w_j}, \qquad \mu_k = a_k + \frac{f_k}{w_k}

        Args:
            moments: sums over all of the data.
            floor: variance added to every dimension, in squared units of x.
            prior: shrinkage of the covariances; the mixture keeps its scale.
            component_class: the class of each component.
            n_classes: C.
        """
        weight = moments.weight.clamp_min(0)
        covariance = moments.family.estimate(moments, floor, prior)
        return cls((weight / weight.sum()).log(), moments.mean(), covariance, component_class, n_classes, prior.scale)

    @classmethod
    def standard(cls, dimension: int) -> "Mixture":
        """A standard normal: one component with zero mean and unit variance.

        >>> Mixture.standard(2).log_prob(torch.zeros(1, 2))
        tensor([-1.8379])
        """
        return cls(torch.zeros(1), torch.zeros(1, dimension), Spherical(torch.ones(1)))

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.mean.shape[0]

    @property
    def dimension(self) -> int:
        """Number of features D."""
        return self.mean.shape[1]

    @property
    def n_parameters(self) -> int:
        """Number of free parameters in weights, means and covariances."""
        return self.n_components - 1 + self.mean.numel() + self.covariance.n_parameters

    @property
    def _requires_grad(self) -> bool:
        """Whether any parameter requires a gradient; derived tensors are then not cached."""
        return any(t.requires_grad for t in (self.log_weight, self.mean, *self.covariance.state().values()))

    def _prepared(self) -> tuple[Tensor, ...]:
        center = self.mean.detach().sum(0) / self.n_components  # distances do not depend on it, so it needs no gradient
        constant, *matrices = self.covariance.operands(self.mean - center)
        return (center, constant + self.log_weight, *matrices)

    @cached_property
    @torch.inference_mode(False)  # a later call may need a gradient through the cached tensors
    @torch.no_grad()
    def _operands(self) -> tuple[Tensor, ...]:
        small = sum(tensor.numel() for tensor in self.covariance.state().values()) <= MAX_EXACT
        return (self.to(torch.float64) if small else self)._prepared()

    @cached_property
    @torch.no_grad()
    def _cancels(self) -> bool:
        """Whether expanding squares in float32 loses the distance to some component through cancellation.

        This happens when a mean is far from the center, or when a score subtracts most of what it added.
        """
        center, *operands = self._operands
        at_center = self.covariance.score(tuple(operands), torch.zeros_like(center)[None])[0]
        peak = self.covariance.log_peak(self.dimension) + self.log_weight
        offset = (2 * (peak - at_center) + self.covariance.taken_off)[self.log_weight > -torch.inf]
        return bool((offset > MAX_OFFSET).any())

    @cached_property
    def _beyond_float32(self) -> bool:
        """Whether components are so narrow that float32 loses the squares of samples within them."""
        _, _, *matrices = self._operands
        ranges = (matrix.aminmax() for matrix in matrices)
        return any(max(-float(low), float(high)) > MAX_OPERAND for low, high in ranges)

    @cached_property
    def _cast(self) -> dict[torch.dtype, tuple[Tensor, ...]]:
        return {}

    def operands(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The center and the score operands for centered samples of ``dtype``; float64 if float32 loses digits."""
        chosen = self._working(dtype)
        if chosen not in self._cast:
            with torch.inference_mode(False), torch.no_grad():
                self._cast[chosen] = tuple(operand.to(chosen) for operand in self._operands)
        return self._cast[chosen]

    def _working(self, dtype: torch.dtype) -> torch.dtype:
        """Compute dtype for samples of ``dtype``."""
        exact = dtype == torch.float64 or self._cancels or self._beyond_float32
        return torch.float64 if exact else torch.float32

    def component_log_prob(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        r"""Joint log-density of each sample and component, :math:`\log\pi_k + \log N(x;\mu_k,\Sigma_k)`, in nats.

        Differentiable in samples and parameters; without a gradient, products run in tiles. Half-precision samples get
        float32 results, because half precision cannot resolve log-densities of hundreds of nats.
        """
        dtype = self._working(x.dtype)
        if self._requires_grad:
            center, *operands = (operand.to(dtype) for operand in self._prepared())
        else:
            center, *operands = self.operands(x.dtype)
        tiled = not torch.is_grad_enabled() or not (self._requires_grad or x.requires_grad)
        score = self.covariance.score_tiled if tiled else self.covariance.score
        return score(tuple(operands), x.to(dtype) - center).to(torch.promote_types(x.dtype, torch.float32))

    def log_prob(self, x: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        r"""Log-density of each sample under the mixture, in nats; may exceed 0.

        .. math:: \log p(x) = \operatorname{logsumexp}_k [\log \pi_k + \log N(x; \mu_k, \Sigma_k)]

        Source: Bishop, Pattern Recognition and Machine Learning (2006), section 9.2.
        """
        return torch.cat([self.component_log_prob(rows).logsumexp(1) for rows in torch.split(x, TILE_ROWS)])

    def responsibility(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Posterior probability of each component given each sample."""
        return self.component_log_prob(x).softmax(1)

    @cached_property
    def over_classes(self) -> ClassLogSumExp:
        """Log-sum-exp from components to classes; without classes, each component is its own class."""
        if self.component_class is None:
            return ClassLogSumExp.of(torch.arange(self.n_components), self.n_components)
        return ClassLogSumExp.of(self.component_class, self.n_classes)

    def class_log_prob(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Joint log-density of each sample and class, in nats; without classes, each component is its own class."""
        return torch.cat([self.over_classes(self.component_log_prob(rows)) for rows in torch.split(x, TILE_ROWS)])

    def posterior(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Posterior probability of each class given each sample."""
        return self.class_log_prob(x).softmax(1)

    def moments(
        self,
        x: Float[Tensor, "N D"],
        resp: Float[Tensor, "N K"],
    ) -> Moments:
        """Moments of the samples about this mixture's means, weighted by ``resp`` (times any sample weight)."""
        return sums.soft(type(self.covariance), x, resp, self.mean, self.covariance.factor_posterior())

    def update(self, moments: Moments, floor: Floor = 0.0, prior: Prior = NO_PRIOR) -> "Mixture":
        """M-step about this mixture: see :meth:`from_moments`.

        Args:
            moments: sums over all of the data.
            floor: variance added to every dimension, in squared units of x.
            prior: shrinkage of the covariances.
        """
        return Mixture.from_moments(moments, floor, prior, self.component_class, self.n_classes)

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
        """Draw ``n`` samples; returns them with the component index of each."""
        index = torch.multinomial(self.log_weight.exp(), n, replacement=True, generator=generator)
        return self.mean[index] + self.covariance.sample(index, self.dimension, generator), index

    def select(self, index: Int[Tensor, " J"]) -> "Mixture":
        """Submixture of the components at ``index``, with renormalized weights and unchanged class indices.

        If all selected weights are zero, they become equal.
        """
        log_weight = self.log_weight[index]
        none = (log_weight == -torch.inf).all()
        return replace(
            self,
            log_weight=torch.where(none, 0.0, log_weight).log_softmax(0),
            mean=self.mean[index],
            covariance=self.covariance.select(index),
            component_class=None if self.component_class is None else self.component_class[index],
        )

    def of_class(self, c: int) -> "Mixture":
        """Class-conditional mixture p(x | c), from the components of class ``c``."""
        assert self.component_class is not None
        return self.select((self.component_class == c).nonzero()[:, 0])

    def background(self) -> "Mixture":
        r"""Single Gaussian with the overall mean and covariance of the mixture; the reference density of typicality.

        .. math:: \mu = \sum_k \pi_k\mu_k, \qquad
            \Sigma = \sum_k \pi_k [\Sigma_k + (\mu_k - \mu)(\mu_k - \mu)^\top]
        """
        return self._made_background() if self._requires_grad else self._background

    @cached_property
    @torch.inference_mode(False)
    def _background(self) -> "Mixture":
        return self._made_background()

    def _made_background(self) -> "Mixture":
        share = self.log_weight.exp()
        mean = (share[:, None] * self.mean).sum(0, keepdim=True)
        covariance = self.covariance.pooled(share, self.mean - mean)
        return Mixture(torch.zeros_like(self.log_weight[:1]), mean, covariance)

    def axes(self, count: int) -> Float[Tensor, "D R"]:
        r"""Up to ``count`` directions that separate the component means best, relative to the overall spread.

        With :math:`M` the weighted means minus the overall mean and :math:`\Sigma` the background covariance, the
        leading eigenvectors u of :math:`M\Sigma^{-1}M^\top` give the directions :math:`\Sigma^{-1}M^\top u`.
        Missing directions are columns of zeros.

        Source: Fisher's discriminant, with the total in place of the within-class scatter (same directions).
        """
        exact = self.to(torch.float64)
        background, share = exact.background(), exact.log_weight.exp()
        means = (exact.mean - background.mean) * share.sqrt()[:, None]
        if len(means) > self.dimension:  # as many rows as features with the same scatter have the same axes
            singular, right = linalg.svd_right(means, self.dimension)
            means = singular[:, None] * right.T
        solved = background.covariance.precision_matmul(means).T
        values, vectors = linalg.eigh(means @ solved)
        axes = solved @ vectors[:, :count] * values[:count].clamp_min(1e-12).rsqrt()
        axes = torch.where(values[:count] > 1e-9 * values[0], axes, 0.0)
        return torch.nn.functional.pad(axes, (0, count - axes.shape[1])).to(self.mean.dtype)

    def to(self, target: torch.dtype | torch.device | str) -> "Mixture":
        """The same mixture with another dtype or on another device."""
        component_class, scale = self.component_class, self.feature_scale
        if component_class is not None and not isinstance(target, torch.dtype):
            component_class = component_class.to(target)
        return replace(
            self,
            log_weight=self.log_weight.to(target),
            mean=self.mean.to(target),
            covariance=self.covariance.to(target),
            component_class=component_class,
            feature_scale=None if scale is None else scale.to(target),
        )

    def with_prior(self, log_prior: Float[Tensor, " C"]) -> "Mixture":
        """The same class densities with a new class prior, given as log-probabilities up to a constant.

        A class without components or weight keeps zero weight; its prior is redistributed over the other classes.
        """
        assert self.component_class is not None
        total = self.over_classes(self.log_weight[None])[0]
        prior = torch.where(total.isfinite(), log_prior.to(total), -torch.inf).log_softmax(0)
        own = total[self.component_class]
        within = torch.where(own.isfinite(), self.log_weight - own, -torch.inf)
        return replace(self, log_weight=within + prior[self.component_class])

    def state(self) -> dict[str, Tensor]:
        """All tensors by name, contiguous and ready for safetensors."""
        state = {"log_weight": self.log_weight, "mean": self.mean}
        state |= {f"covariance.{name}": value for name, value in self.covariance.state().items()}
        for name in ("component_class", "feature_scale"):
            value = getattr(self, name)
            if value is not None:
                state[name] = value
        return {name: value.detach().contiguous() for name, value in state.items()}

    @classmethod
    def from_state(cls, family: str, state: dict[str, Tensor], n_classes: int = 0) -> "Mixture":
        """Rebuild a mixture from :meth:`state` and the name of its family."""
        prefix = "covariance."
        inner = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        covariance = family_of(family).from_state(inner)
        scale = state.get("feature_scale")
        return cls(state["log_weight"], state["mean"], covariance, state.get("component_class"), n_classes, scale)


def join(parts: list[Mixture], weight: Float[Tensor, " P"], classes_of_parts: list[int] | None = None) -> Mixture:
    """Combine mixtures into one; part p gets weight ``weight[p]`` and, if given, class ``classes_of_parts[p]``.

    A shared (tied) covariance becomes the average over the parts, weighted by ``weight``.
    """
    share = (weight / weight.sum()).log()
    log_weight = torch.cat([part.log_weight + s for part, s in zip(parts, share, strict=True)])
    covariance = type(parts[0].covariance).join([part.covariance for part in parts], weight)
    component_class, n_classes = None, 0
    if classes_of_parts is not None:
        counts = torch.tensor([part.n_components for part in parts])
        component_class = torch.repeat_interleave(torch.tensor(classes_of_parts), counts).to(log_weight.device)
        n_classes = max(classes_of_parts) + 1
    mean = torch.cat([part.mean for part in parts])
    return Mixture(log_weight, mean, covariance, component_class, n_classes, parts[0].feature_scale)
