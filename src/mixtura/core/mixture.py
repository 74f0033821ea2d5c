"""A mixture of Gaussians as a value: nothing in it changes, every question is a function of it."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg, owners
from mixtura.core import moments as sums
from mixtura.core.covariance import FAMILIES, NO_PRIOR, Covariance, Prior
from mixtura.core.moments import Moments

ROWS = 4096  # rows scored at once where only a summary of N x K is wanted


@final
@dataclass(frozen=True)
class Mixture:
    r"""K Gaussian components in D dimensions, each perhaps owned by a class.

    .. math::
        p(x) = \sum_k \pi_k N(x; \mu_k, \Sigma_k), \qquad
        p(x, c) = \sum_{k:\, o_k = c} \pi_k N(x; \mu_k, \Sigma_k)

    The weights sum to one over all components, so a class prior is the sum of its components' weights.
    ``owner`` is ``None`` for a mixture without classes.
    """

    log_weight: Float[Tensor, " K"]
    mean: Float[Tensor, "K D"]
    covariance: Covariance
    owner: Int[Tensor, " K"] | None = None
    n_classes: int = 0

    @classmethod
    def standard(cls, dimension: int) -> "Mixture":
        """One component: mean zero, unit variance.

        >>> Mixture.standard(2).evidence(torch.zeros(1, 2))
        tensor([-1.8379])
        """
        family = FAMILIES["spherical"]
        return cls(torch.zeros(1), torch.zeros(1, dimension), family.from_state({"variance": torch.ones(1)}))

    @property
    def n_components(self) -> int:
        """K, the number of components."""
        return self.mean.shape[0]

    @property
    def dimension(self) -> int:
        """D, the number of features."""
        return self.mean.shape[1]

    @property
    def n_parameters(self) -> int:
        """Free numbers: weights, means, covariances."""
        return self.n_components - 1 + self.mean.numel() + self.covariance.n_parameters

    @cached_property
    def _operands(self) -> tuple[Tensor, ...]:
        center, constant, *rest = self.covariance.operands(self.mean)
        return (center, constant + self.log_weight, *rest)

    @cached_property
    def _cast(self) -> dict[torch.dtype, tuple[Tensor, ...]]:
        return {}

    def operands(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """What scoring multiplies with, prepared once for each precision of the data."""
        if dtype not in self._cast:
            self._cast[dtype] = tuple(operand.to(dtype) for operand in self._operands)
        return self._cast[dtype]

    def joint(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        r"""Log-density of each point with each component, :math:`\log\pi_k + \log N(x;\mu_k,\Sigma_k)`, in nats."""
        return self.covariance.apply(self.operands(x.dtype), x)

    def evidence(self, x: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        r"""Log-density of each point under the whole mixture, in nats; may exceed 0.

        .. math:: \log p(x) = \operatorname{logsumexp}_k [\log \pi_k + \log N(x; \mu_k, \Sigma_k)]

        Source: Bishop, Pattern Recognition and Machine Learning (2006), section 9.2.
        """
        return torch.cat([self.joint(rows).logsumexp(1) for rows in torch.split(x, ROWS)])

    def responsibility(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Posterior probability of each component."""
        return self.joint(x).softmax(1)

    def class_joint(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Log-density of each point together with each class, in nats; without owners every component is a class."""
        if self.owner is None:
            return self.joint(x)
        owner, n_classes = self.owner, self.n_classes
        return torch.cat([owners.class_joint(self.joint(rows), owner, n_classes) for rows in torch.split(x, ROWS)])

    def posterior(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Posterior probability of each class."""
        return self.class_joint(x).softmax(1)

    def moments(
        self,
        x: Float[Tensor, "N D"],
        resp: Float[Tensor, "N K"],
    ) -> Moments:
        """Sums of the data about this mixture's means under the responsibilities (times any sample weight)."""
        return sums.soft(type(self.covariance), x, resp, self.mean, self.covariance.lens())

    def update(self, moments: Moments, floor: float = 0.0, prior: Prior = NO_PRIOR) -> "Mixture":
        """The M-step: the most likely mixture given the sums.

        Args:
            moments: sums over all of the data.
            floor: variance added to every dimension, in squared units of x.
            prior: shrinkage of the covariances.
        """
        weight = moments.weight.clamp_min(0)
        log_weight = (weight / weight.sum()).log()
        covariance = type(self.covariance).estimate(moments, floor, prior)
        return replace(self, log_weight=log_weight, mean=moments.mean(), covariance=covariance)

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
        """``n`` random points and the component that each came from."""
        index = torch.multinomial(self.log_weight.exp(), n, replacement=True, generator=generator)
        return self.mean[index] + self.covariance.draw(index, self.dimension, generator), index

    def select(self, index: Int[Tensor, " J"]) -> "Mixture":
        """Some components as a mixture of their own; the weights are renormalized, the class numbers stay."""
        return replace(
            self,
            log_weight=self.log_weight[index].log_softmax(0),
            mean=self.mean[index],
            covariance=self.covariance.select(index),
            owner=None if self.owner is None else self.owner[index],
        )

    def of_class(self, c: int) -> "Mixture":
        """The components of class number ``c`` as a mixture of their own, p(x | c)."""
        assert self.owner is not None
        return self.select((self.owner == c).nonzero()[:, 0])

    def background(self) -> "Mixture":
        r"""The one Gaussian with the mean and covariance of the whole mixture: what the catalog looks like from afar.

        .. math:: \mu = \sum_k \pi_k\mu_k, \qquad
            \Sigma = \sum_k \pi_k [\Sigma_k + (\mu_k - \mu)(\mu_k - \mu)^\top]
        """
        return self._background

    @cached_property
    def _background(self) -> "Mixture":
        share = self.log_weight.exp()
        mean = (share[:, None] * self.mean).sum(0, keepdim=True)
        covariance = self.covariance.collapse(share, self.mean - mean)
        return Mixture(torch.zeros_like(self.log_weight[:1]), mean, covariance)

    def axes(self, count: int) -> Float[Tensor, "D R"]:
        r"""The directions along which the components' means differ most against the overall spread.

        With :math:`M` the weighted means about the overall one and :math:`\Sigma` the background covariance, the
        leading eigenvectors u of :math:`M\Sigma^{-1}M^\top` give the directions :math:`\Sigma^{-1}M^\top u`;
        columns of zeros fill up where there are fewer.

        Source: Fisher's discriminant, with the total in place of the within-class scatter (same directions).
        """
        background = self.background()
        share = self.log_weight.exp()
        means = ((self.mean - background.mean) * share.sqrt()[:, None]).double()
        total = background.covariance.dense(1, self.dimension)[0]
        solved = linalg.solve_spd(total, means.T)
        values, vectors = linalg.eigh(means @ solved)
        axes = solved @ vectors[:, :count] * values[:count].clamp_min(1e-12).rsqrt()
        axes = torch.where(values[:count] > 1e-9 * values[0], axes, 0.0)
        return torch.nn.functional.pad(axes, (0, count - axes.shape[1])).to(self.mean.dtype)

    def to(self, target: torch.dtype | torch.device | str) -> "Mixture":
        """The same mixture in another precision or on another device."""
        state = {name: value.to(target) for name, value in self.covariance.state().items()}
        owner = self.owner
        if owner is not None and not isinstance(target, torch.dtype):
            owner = owner.to(target)
        covariance = type(self.covariance).from_state(state)
        return replace(
            self, log_weight=self.log_weight.to(target), mean=self.mean.to(target), covariance=covariance, owner=owner
        )

    def with_prior(self, log_prior: Float[Tensor, " C"]) -> "Mixture":
        """The same class densities under another class prior, given as log-probabilities."""
        assert self.owner is not None
        total = owners.class_joint(self.log_weight[None], self.owner, self.n_classes)[0][self.owner]
        within = torch.where(total.isfinite(), self.log_weight - total, -torch.inf)
        return replace(self, log_weight=within + log_prior.to(within)[self.owner])

    def state(self) -> dict[str, Tensor]:
        """All tensors by name, contiguous, for safetensors."""
        state = {"log_weight": self.log_weight, "mean": self.mean}
        state |= {f"covariance.{name}": value for name, value in self.covariance.state().items()}
        if self.owner is not None:
            state["owner"] = self.owner
        return {name: value.detach().contiguous() for name, value in state.items()}

    @classmethod
    def from_state(cls, family: str, state: dict[str, Tensor], n_classes: int = 0) -> "Mixture":
        """The inverse of :meth:`state`, given the name of the family."""
        prefix = "covariance."
        inner = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        covariance = FAMILIES[family].from_state(inner)
        return cls(state["log_weight"], state["mean"], covariance, state.get("owner"), n_classes)


def join(parts: list[Mixture], weight: Float[Tensor, " P"], owners_of: list[int] | None = None) -> Mixture:
    """One mixture of several: part p gets the share ``weight[p]`` and, if given, the class ``owners_of[p]``.

    A matrix that components share (tied) becomes the average of the parts' by ``weight``.
    """
    share = (weight / weight.sum()).log()
    log_weight = torch.cat([part.log_weight + s for part, s in zip(parts, share, strict=True)])
    covariance = type(parts[0].covariance).join([part.covariance for part in parts], weight)
    owner, n_classes = None, 0
    if owners_of is not None:
        counts = torch.tensor([part.n_components for part in parts])
        owner = torch.repeat_interleave(torch.tensor(owners_of), counts).to(log_weight.device)
        n_classes = max(owners_of) + 1
    return Mixture(log_weight, torch.cat([part.mean for part in parts]), covariance, owner, n_classes)
