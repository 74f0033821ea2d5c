"""Online Gaussian head: components follow a trained encoder by balanced assignment, without gradients."""

import math
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.core.assignment import sinkhorn
from mixtura.core.covariance import Diagonal
from mixtura.core.mixture import Mixture
from mixtura.core.scale import upcast
from mixtura.errors import UsageError
from mixtura.heads import init
from mixtura.heads.base import GenerativeHead, Groups, as_rows
from mixtura.heads.joint import ROUND_SHARE

SINKHORN_REGULARIZATION = 0.05  # nats per dimension: sharp, yet balanced within the steps below
SINKHORN_STEPS = 50
BATCH_ROWS = 1024  # samples added to the memory at once


@final
class OnlineGaussianHead(GenerativeHead):
    r"""Diagonal Gaussians per class, updated without a gradient while an encoder is trained through them.

    .. math:: \log p(x, c) = \log \pi_c + \operatorname{logsumexp}_{k:\,o_k=c}
        [-\log G_c + \log N(z(x); \mu_k, \operatorname{diag}(v_k))]

    Means and variances are buffers, so the gradient of any loss goes only to x. :meth:`update_memory` stores a
    mini-batch, assigns each class's stored samples evenly to its components (Sinkhorn), and moves the components'
    means and variances part of the way to those of their samples. With ``normalize``, z is x standardized by its own
    mean and deviation (layer norm), and densities are of z.

    Args:
        dimension: D.
        n_classes: C.
        components: Gaussians per class, one number for all or one per class.
        normalize: standardize each sample by its own mean and deviation.
        memory: samples stored per component.
        momentum: share of a mean or variance that one call of :meth:`update_memory` keeps, in [0, 1).
        floor: variance added to every dimension, as a share of the average over all samples.

    Raises:
        UsageError: an argument out of range.

    Source: Liang et al., GMMSeg: Gaussian Mixture based Generative Semantic Segmentation Models, NeurIPS 2022.
    """

    name: ClassVar[str] = "online"
    supports_vmap: ClassVar[bool] = False
    mean: Tensor
    variance: Tensor
    log_prior: Tensor
    log_temperature: Tensor
    memory: Tensor
    cursor: Tensor
    filled: Tensor

    def __init__(
        self,
        dimension: int,
        n_classes: int,
        components: init.Counts = 2,
        normalize: bool = True,
        memory: int = 64,
        momentum: float = 0.9,
        floor: float = 0.01,
    ) -> None:
        super().__init__()
        _check(memory, momentum, floor)
        self.dimension, self.n_classes, self.normalize = dimension, n_classes, normalize
        self.per_component, self.momentum, self.floor = memory, momentum, floor
        self.counts = init.components_per_class(components, n_classes)
        self.groups = Groups(init.component_class_of(self.counts), n_classes)
        n_components, slots = sum(self.counts), memory * max(self.counts)
        self.register_buffer("mean", torch.randn(n_components, dimension))
        self.register_buffer("variance", torch.ones(n_components, dimension))
        self.register_buffer("log_prior", torch.full((n_classes,), -math.log(n_classes)))
        self.register_buffer("log_temperature", torch.zeros(()))
        self.register_buffer("memory", torch.zeros(n_classes, slots, dimension))
        self.register_buffer("cursor", torch.zeros(n_classes, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros(n_classes, dtype=torch.int64))

    @classmethod
    def from_rows(
        cls,
        x: init.Rows,
        labels: init.Labels,
        n_classes: int,
        *,
        components: init.Counts = 2,
        seed: int = 0,
        **options: Any,
    ) -> "OnlineGaussianHead":
        """Head initialized from k-means clusters of each class, with samples in its memory.

        Args:
            x: training samples; for an encoder in training, its initial outputs.
            labels: the class of each sample.
            n_classes: C.
            components: Gaussians per class; at most half the number of its samples.
            seed: for k-means++ and the stored samples.
            options: ``normalize``, ``memory``, ``momentum`` and ``floor`` of the head.
        """
        rows, labels = init.checked(x, labels, n_classes)
        embedded = nn.functional.layer_norm(rows, rows.shape[1:]) if options.get("normalize", True) else rows
        mixture, counts = init.clusters(embedded, labels, n_classes, components, seed)
        head = cls(rows.shape[1], n_classes, counts, **options).to(rows.device, rows.dtype)
        own = init.assign_hard(mixture, embedded, labels)
        share = torch.bincount(labels, minlength=n_classes).double()
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).to(rows.device)
        with torch.no_grad():
            head.log_prior.copy_((share / share.sum()).log())
            for part in order.split(BATCH_ROWS):
                head._remember(embedded[part], labels[part])
            resp = nn.functional.one_hot(own, sum(counts)).to(rows.dtype)
            head._settle(embedded, resp)
        head.settle_precision()
        head.set_temperature(init.fit_temperature(head.class_scores, rows, labels))
        return head

    def _settle(self, z: Float[Tensor, "N D"], resp: Float[Tensor, "N K"]) -> None:
        """Set means and variances to those of the samples under their responsibilities."""
        weight = resp.sum(0).clamp_min(1)[:, None]
        center = z.mean(0)
        mean = resp.T @ (z - center) / weight
        variance = (resp.T @ (z - center).square() / weight - mean.square()).clamp_min(0)
        self.mean.copy_(mean + center)
        self.variance.copy_(variance + self._least(mean, variance))

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values; they rebuild the head before its state is loaded."""
        return {
            "dimension": self.dimension,
            "n_classes": self.n_classes,
            "components": self.counts,
            "normalize": self.normalize,
            "memory": self.per_component,
            "momentum": self.momentum,
            "floor": self.floor,
        }

    def embed(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Samples in the space of the Gaussians: standardized one by one if ``normalize`` is set."""
        if not self.normalize:
            return self.in_reach(x, (self.variance + self.mean.square()).max().sqrt())
        rows = self.in_reach(x)
        return nn.functional.layer_norm(rows - rows[..., :1], (self.dimension,))  # a common part would cost digits

    def distances(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Half the squared Mahalanobis distance of each sample to each component."""
        return Diagonal(upcast(self.variance)).log_peak(self.dimension) - self._log_density(x)

    def component_log_prob(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Joint log-density of each sample and component, in nats."""
        return self.log_weight() + self._log_density(x)

    def _log_density(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        with torch.autocast(x.device.type, enabled=False):
            rows = self.embed(x)
            mean, variance = self.mean.to(rows.dtype), self.variance.to(rows.dtype)
            return as_rows(lambda z: _log_density(z, mean, variance), rows)

    def cancellation(self) -> Float[Tensor, " K"]:
        """Squared distances of the means to their center."""
        mean = upcast(self.mean)
        return ((mean - mean.mean(0)).square() / upcast(self.variance)).sum(1)

    def log_weight(self) -> Float[Tensor, " K"]:
        """Log-weights of the components; equal within a class."""
        prior = upcast(self.log_prior)[self.groups.component_class]
        return prior + self.groups.within(torch.zeros_like(prior))

    def mixture(self) -> Mixture:
        """Current density of :meth:`embed` outputs, as a core mixture."""
        covariance = Diagonal(upcast(self.variance).clone())
        return Mixture(
            self.log_weight(),
            upcast(self.mean).clone(),
            covariance,
            self.groups.component_class.clone(),
            self.n_classes,
        )

    def penalty(self) -> Float[Tensor, ""]:
        """Zero: the head has no penalty."""
        return torch.zeros((), dtype=self.mean.dtype, device=self.mean.device)

    @property
    def n_parameters(self) -> int:
        """Number of means, variances and class priors; predictions do not use the memory."""
        return self.mean.numel() + self.variance.numel() + self.n_classes

    @torch.no_grad()
    def update_memory(self, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> None:
        """Store a mini-batch and move the components of its classes toward their samples."""
        self._remember(self.embed(x.detach()), labels)
        present = torch.bincount(labels, minlength=self.n_classes).nonzero()[:, 0]
        members = self.groups.members[present]
        own = nn.functional.one_hot(self._assigned(present), members.shape[1]).to(self.mean.dtype)
        slot = torch.arange(self.memory.shape[1], device=x.device)
        own = own * (slot < self.filled[present, None])[..., None]
        weight, fresh, spread = _fitted(self.memory[present], own)
        moved = (weight > 0) & (members < len(self.mean))
        index = members[moved]
        if self.has_joined:
            spread = _rounded(spread)
        least = self._least(fresh[moved], spread[moved])
        self.mean[index] = self.mean[index].lerp(fresh[moved], 1 - self.momentum)
        self.variance[index] = self.variance[index].lerp(spread[moved] + least, 1 - self.momentum)

    def join(self) -> None:
        """Count a nat per dimension of the scores, and round the variances, which stay half way to their average.

        The components follow the network with a delay, so along features that hardly vary they would be too narrow
        for samples that have moved on. The density of an online head is that of the rounded variances.
        """
        self.variance.copy_(_rounded(self.variance))
        self.log_temperature.fill_(math.log(self.dimension))

    def _assigned(self, present: Int[Tensor, " P"]) -> Int[Tensor, "P S"]:
        """Balanced component assignment of the stored samples of some classes, indexed within the class."""
        members, memory = self.groups.members[present], self.memory[present]
        there = members < len(self.mean)
        known = members.clamp_max(len(self.mean) - 1)
        score = torch.vmap(_log_density)(memory, self.mean[known], self.variance[known])
        score = torch.where(there[:, None, :], score, -torch.inf)
        row = (torch.arange(memory.shape[1], device=memory.device) < self.filled[present, None]).to(score.dtype)
        row, column = (mass / mass.sum(1, keepdim=True) for mass in (row, there.to(score.dtype)))
        return sinkhorn(score, row, column, SINKHORN_REGULARIZATION * self.dimension, SINKHORN_STEPS).plan.argmax(2)

    def _remember(self, z: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> None:
        """Overwrite the oldest stored samples of each class."""
        slots = self.memory.shape[1]
        one_hot = nn.functional.one_hot(labels, self.n_classes)
        count = one_hot.sum(0)
        rank = (one_hot.cumsum(0) - 1).gather(1, labels[:, None])[:, 0]
        last = rank >= count[labels] - slots
        slot = (self.cursor[labels] + rank) % slots
        self.memory[labels[last], slot[last]] = z[last].to(self.memory.dtype)
        self.cursor.copy_((self.cursor + count) % slots)
        self.filled.copy_((self.filled + count).clamp_max(slots))

    def _least(self, mean: Float[Tensor, "J D"], variance: Float[Tensor, "J D"]) -> Float[Tensor, ""]:
        """Variance floor, in squared units of z: a share of the variance within and between the components."""
        total = variance.mean() + (mean - mean.mean(0)).square().mean()
        return (self.floor * total).clamp_min(torch.finfo(total.dtype).eps)


def _log_density(
    rows: Float[Tensor, "S D"], mean: Float[Tensor, "G D"], variance: Float[Tensor, "G D"]
) -> Float[Tensor, "S G"]:
    center = mean.sum(0) / len(mean)  # not .mean(0): the ONNX exporter would produce two values named mean
    return Diagonal.score(Diagonal(variance).operands(mean - center), rows - center)


def _rounded(variance: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
    return variance.lerp(variance.mean(-1, keepdim=True).expand_as(variance), ROUND_SHARE)


def _fitted(
    memory: Float[Tensor, "P S D"], own: Float[Tensor, "P S G"]
) -> tuple[Float[Tensor, "P G"], Float[Tensor, "P G D"], Float[Tensor, "P G D"]]:
    """Sample count, mean and variance of each component of some classes."""
    weight = own.sum(1)
    share = (own / weight.clamp_min(1)[:, None, :]).mT
    center = memory.mean(1, keepdim=True)
    mean = share @ (memory - center)
    variance = (share @ (memory - center).square() - mean.square()).clamp_min(0)
    return weight, mean + center, variance


def _check(memory: int, momentum: float, floor: float) -> None:
    if memory < 2:
        raise UsageError(f"A memory of {memory} rows a component has no spread. Give 2 or more.")
    if not 0 <= momentum < 1:
        raise UsageError(f"Momentum {momentum} is out of range. Give a share from 0 to below 1.")
    if not 0 <= floor < math.inf:
        raise UsageError(f"Floor {floor} is out of range. Give a share of the variance of zero or more.")
