"""Base classes of heads: drop-in replacements for the last linear layer that return log-posteriors."""

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.core.mixture import MAX_OFFSET
from mixtura.core.ownership import ClassLogSumExp, class_log_sum_exp
from mixtura.core.scale import upcast, within
from mixtura.errors import NoDensity, UsageError
from mixtura.heads.joint import held, rows_of_all

TILE_ROWS = 4096  # samples that a head scores at once
REACH = {torch.float32: 1e4, torch.float64: 1e12}  # spreads of the data at which squares leave digits to compare


class Head(nn.Module):
    r"""Map features to class log-posteriors, N x D to N x C; N may be any number of dimensions, as in ``nn.Linear``.

    .. math:: \log p(c \mid x) = s_c(x) - \operatorname{logsumexp}_{c'} s_{c'}(x)

    A head has no state besides its parameters and buffers. Derived values are computed in ``class_scores``, so
    gradients accumulate and copies are independent. Only the precision of the scores is settled ahead: ``exact`` says
    that float32 would lose their digits; see :meth:`settle_precision`. ``name`` is its key in ``HEADS``; ``config()``
    returns plain values, and ``type(head)(**config)`` is the same head before its state is loaded.
    Initialized heads have float32 or float64 parameters whatever the features. After ``half()`` or ``bfloat16()``,
    scores are still computed in float32, for samples in float64 in float64; ``forward`` returns the parameters'
    dtype. ``supports_vmap``: several heads can be trained as one batch. ``multi_component``: a class may have
    several components. ``takes_shrinkage``: ``from_rows`` takes a ``shrinkage``. ``knows_shares``: the scores of
    ``from_rows`` stand under the class shares of its samples, not under equal ones. ``options_class``: the callable
    that receives and checks the ``**options`` of ``from_rows``; ``None`` for the class itself. ``preprocessed``:
    set while the samples have already passed :meth:`preprocess`, once for all training steps. ``joined``: a network
    has been trained through the head; see :meth:`follows`.
    """

    name: ClassVar[str]
    dimension: int
    n_classes: int
    supports_vmap: ClassVar[bool] = True
    multi_component: ClassVar[bool] = True
    takes_shrinkage: ClassVar[bool] = False
    knows_shares: ClassVar[bool] = True
    options_class: ClassVar[Callable[..., Any] | None] = None
    preprocessed: bool = False
    exact: bool = False
    joined: Tensor
    has_joined: bool = False

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()
        self.register_buffer("joined", torch.tensor(False))
        self.register_load_state_dict_post_hook(_settle)

    @classmethod
    @abstractmethod
    def from_rows(
        cls,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        n_classes: int,
        *,
        components: int = 1,
        seed: int = 0,
        **options: Any,
    ) -> "Head":
        """Head initialized from samples without gradients; call it before training or instead of it."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values; they rebuild the head before its state is loaded."""

    @abstractmethod
    def class_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Class scores whose softmax is the posterior; for a head with a density, log p(x, c) in nats."""

    def preprocess(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N W"]:
        """Apply the fixed input transform, which precedes all trained parameters; the identity for most heads."""
        return x

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Log-posterior of each class, in nats and in the dtype of the parameters."""
        return self.class_scores(x).log_softmax(-1).to(self.dtype)

    def cancellation(self) -> Float[Tensor, "*K"]:
        """Squared distances, or twice the scores, of which the scores near the data keep only the difference."""
        return torch.zeros(())

    @torch.no_grad()
    def settle_precision(self) -> None:
        """Have scores computed in float64 if float32 loses their digits: as a mixture does, by its parameters alone.

        It is settled when a state is loaded and whenever the mode is set by ``train()`` or ``eval()``, so that training
        steps and compiled graphs need no decision; call it after changing the parameters of a head in use.
        """
        lost = self.cancellation()
        self.exact = not lost.is_meta and bool((lost > MAX_OFFSET).any())

    def train(self, mode: bool = True) -> Any:
        """Set the mode, and settle what follows from the tensors: the precision, and whether the head has joined."""
        super().train(mode)
        _settle(self, None)
        return self

    def working(self, x: Tensor) -> torch.dtype:
        """Compute dtype for samples: float64 if they or the parameters have it, or if float32 loses digits."""
        wide = self.exact or torch.float64 in (x.dtype, self.dtype)
        return torch.float64 if wide else torch.float32

    def in_reach(self, x: Float[Tensor, "*N D"], unit: Tensor | float = 1.0) -> Float[Tensor, "*N D"]:
        """Samples in the compute dtype, those beyond its reach scaled down; ``unit`` is the spread of the data."""
        dtype = self.working(x)
        return within(x.to(dtype), REACH[dtype] * unit)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""
        tensors = itertools.chain(self.parameters(), self.buffers())
        return next(tensor.dtype for tensor in tensors if tensor.is_floating_point())

    def posterior(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Posterior probability of each class given each sample."""
        return self(x).exp()

    def component_log_prob(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Joint log-density of each sample and component, in nats.

        Raises:
            NoDensity: the head has no density.
        """
        raise no_density(self)

    def log_prob(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
        """Log-density of each sample, in nats.

        Raises:
            NoDensity: the head has no density.
        """
        raise no_density(self)

    def penalty(self) -> Float[Tensor, ""]:
        """Penalty added to the training loss summed over N samples, in nats; zero for most heads."""
        return torch.zeros((), device=next(self.parameters()).device)

    def input_gradients(self) -> Float[Tensor, "K D"]:
        """Gradients of the scores at the data center, in units of the data's spread; the ``l2`` option penalizes them.

        Raises:
            UsageError: the head has no such gradients.
        """
        raise no_input_gradients(self.name)

    def set_temperature(self, degrees: float) -> None:
        """Calibrate an initialized head: divide the scores (component scores, if a class has several) by a temperature.
        A head whose scores are a density keeps them and may apply the temperature to its posteriors instead.
        """

    def follows(self, x: Float[Tensor, "*N D"]) -> bool:
        """Whether a network is trained through the head: it computed the samples, and takes their gradient.

        Then the head's units are those of the mini-batch, and what only scales its scores is held. Before the first
        such mini-batch the head is made as round as a new one; see :meth:`join`.
        """
        following = self.training and not self.preprocessed and x.requires_grad and not x.is_leaf
        # One row has no units of its own. Processes count together, since all of them exchange sums or none does.
        following = following and rows_of_all(x) > 1
        if following and not self.has_joined:
            self._join()
        return following

    @torch.compiler.disable()
    @torch.no_grad()
    def _join(self) -> None:
        self.join()
        self.has_joined = True
        self.joined.fill_(True)
        self.settle_precision()

    def join(self) -> None:
        """Prepare an initialized head for joint training; called once, before the first step."""

    def update_memory(self, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> None:
        """Update from a mini-batch without a gradient, called after each training step; a no-op for most heads."""

    def extra_repr(self) -> str:
        """What ``print(head)`` shows."""
        return ", ".join(f"{name}={value}" for name, value in self.config().items())

    @property
    def n_parameters(self) -> int:
        """Number of free parameters that a prediction uses."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}joined", torch.tensor(False))  # of heads older than joint training
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def sparsity(self) -> float:
        """Share of weights that are zero and need no storage, 0 to 1."""
        return 0.0


def _settle(head: Head, _: object) -> None:
    head.has_joined = not head.joined.is_meta and bool(head.joined)
    head.settle_precision()


def no_density(head: Head) -> NoDensity:
    """Error to raise when a head without a density is asked for one."""
    return NoDensity(
        f"The head {head.name!r} has no density: its scores are not log p(x, c). "
        "Use its posterior, or a Gaussian head for typicality, evidence and samples."
    )


def no_input_gradients(name: str) -> UsageError:
    """Error to raise when a head without input gradients is given an ``l2``."""
    return UsageError(f"The head {name!r} takes no l2. Leave fit.l2 out, or take gaussian or linear.")


class GenerativeHead(Head):
    r"""Head whose scores are densities; subclasses define ``component_log_prob``, and ``groups`` derives the rest.

    .. math:: \log p(c \mid x) = \log\operatorname{softmax}_c \tfrac1T \log p(x, c)

    The temperature T, stored as ``log_temperature``, calibrates the posteriors and does not affect the density.
    """

    groups: "Groups"
    log_temperature: Tensor

    @abstractmethod
    def component_log_prob(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Joint log-density of each sample and component, in nats."""

    @property
    def density_dimension(self) -> int:
        """Number of dimensions of the density."""
        return self.dimension

    def class_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Joint log-density of each sample and class, in nats."""
        return self.groups(self.component_log_prob(x))

    def log_prob(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
        """Log-density of each sample, in nats; may exceed 0."""
        return self.class_scores(x).logsumexp(-1)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Log-posterior of each class at the head's temperature, in nats and in the dtype of the parameters."""
        scores, log_temperature = self.class_scores(x), upcast(self.log_temperature)
        if self.follows(x):
            log_temperature = held(log_temperature)
        return (scores * (-log_temperature).exp()).log_softmax(-1).to(self.log_temperature.dtype)

    @torch.no_grad()
    def set_temperature(self, degrees: float) -> None:
        """Set the temperature of the posteriors; the density is unchanged."""
        self.log_temperature.fill_(math.log(degrees))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}log_temperature", torch.zeros(()))  # older heads had no temperature
        super()._load_from_state_dict(state_dict, prefix, *args)


class Groups(nn.Module):
    """:class:`~mixtura.core.ownership.ClassLogSumExp` with its indices as buffers, which move and load with a head.

    Args:
        component_class: the class of each component; every class has at least one.
        n_classes: C.

    Raises:
        UsageError: a class without components.
    """

    component_class: Tensor
    members: Tensor

    def __init__(self, component_class: list[int], n_classes: int) -> None:
        super().__init__()
        if set(component_class) != set(range(n_classes)):
            raise UsageError(f"Components of classes {sorted(set(component_class))} leave one of {n_classes} without.")
        over_classes = ClassLogSumExp.of(torch.tensor(component_class, device="cpu"), n_classes)
        self.n_classes, self.single = n_classes, over_classes.single
        self.register_buffer("component_class", torch.tensor(component_class))
        self.register_buffer("members", over_classes.members.to(self.component_class.device))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if f"{prefix}owner" in state_dict:  # its name in older states
            state_dict[f"{prefix}component_class"] = state_dict.pop(f"{prefix}owner")
        component_class = state_dict.get(f"{prefix}component_class")
        if component_class is not None and f"{prefix}members" not in state_dict:  # an older state
            state_dict[f"{prefix}members"] = ClassLogSumExp.of(component_class, self.n_classes).members
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, joint: Float[Tensor, "*N K"]) -> Float[Tensor, "*N C"]:
        """Joint log-density of each class, from those of the components."""
        return joint if self.single else class_log_sum_exp(joint, self.members)

    def within(self, logits: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        """Log-weights within each class: log-softmax of the logits over the class's components."""
        if self.single:
            return logits - logits
        return logits - self(logits)[self.component_class]

    def log_weight(self, prior_logit: Float[Tensor, " C"], weight_logit: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        """Log-weights of all components, from the class-prior logits and the within-class weight logits."""
        prior = upcast(prior_logit).log_softmax(0)
        return (prior if self.single else prior[self.component_class]) + self.within(upcast(weight_logit))


def as_rows(
    function: Callable[[Float[Tensor, "N D"]], Float[Tensor, "N K"]], x: Float[Tensor, "*N D"]
) -> Float[Tensor, "*N K"]:
    """Apply a function of N x D samples to an input with any number of leading dimensions."""
    if x.ndim == 2:
        return function(x)
    out = function(x.reshape(-1, x.shape[-1]))
    return out.reshape(*x.shape[:-1], out.shape[-1])


def in_tiles(answer: Callable[[Tensor], Tensor], x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
    """Output of a head, computed a few thousand samples at a time."""
    return torch.cat([answer(part) for part in x.split(TILE_ROWS)])
