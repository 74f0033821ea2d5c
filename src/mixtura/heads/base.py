"""The bases of heads, drop-ins for the last linear layer that give log-posteriors, and what heads share."""

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.core.ownership import ClassLogSumExp, class_log_sum_exp
from mixtura.errors import NoDensity, UsageError

TILE_ROWS = 4096  # that a head answers at once


class Head(nn.Module):
    r"""Features to class log-posteriors, N x D to N x C; N is any number of dimensions, as for ``nn.Linear``.

    .. math:: \log p(c \mid x) = s_c(x) - \operatorname{logsumexp}_{c'} s_{c'}(x)

    A head is stateless beside its parameters and buffers: whatever is derived from them is derived in ``class_scores``,
    so gradients accumulate, copies are copies, and there is nothing to refresh. ``name`` is its key in ``HEADS``;
    ``config()`` holds plain values with which ``type(head)(**config)`` is the same head before its state is loaded.
    A start has float32 or float64 parameters whatever the features are. After ``half()`` or ``bfloat16()``, scores are
    computed in float32 still, and ``forward`` answers in the precision of the parameters. ``supports_vmap`` says
    that several can be trained as one batch, ``multi_component`` that a class may have more than one component,
    ``takes_shrinkage`` that ``from_rows`` takes a ``shrinkage``. Where ``from_rows`` takes ``**options``, ``further``
    is what it hands them to (the class itself if ``None``), and there they are checked. ``preprocessed`` is set while
    the samples are as :meth:`preprocess` has made them, once for all steps of a training.
    """

    name: ClassVar[str]
    dimension: int
    n_classes: int
    supports_vmap: ClassVar[bool] = True
    multi_component: ClassVar[bool] = True
    takes_shrinkage: ClassVar[bool] = False
    further: ClassVar[Callable[..., Any] | None] = None
    preprocessed: bool = False

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
        """The head at its start, which is what can be had of the rows without a gradient."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain values that build the same head before its state is loaded."""

    @abstractmethod
    def class_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Log-scores whose softmax is the posterior; for a head with a density, log p(x, c) in nats."""

    def preprocess(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N W"]:
        """The rows as the head takes them in, before any parameter that learns; most heads take them as they are."""
        return x

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Log-posterior of each class, in nats and in the precision of the parameters."""
        return self.class_scores(x).log_softmax(-1).to(self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the parameters."""
        tensors = itertools.chain(self.parameters(), self.buffers())
        return next(tensor.dtype for tensor in tensors if tensor.is_floating_point())

    def posterior(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Posterior probability of each class."""
        return self(x).exp()

    def component_log_prob(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Log-density of each point together with each component, in nats.

        Raises:
            NoDensity: the head has none.
        """
        raise no_density(self)

    def log_prob(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
        """Log-density of each point, in nats.

        Raises:
            NoDensity: the head has none.
        """
        raise no_density(self)

    def penalty(self) -> Float[Tensor, ""]:
        """What the training of the head adds to the loss of N rows, in nats for all of them; zero for most."""
        return torch.zeros((), device=next(self.parameters()).device)

    def input_gradients(self) -> Float[Tensor, "K D"]:
        """Gradients of the scores at the center of the data, in units of its spread: what ``l2`` keeps small.

        Raises:
            UsageError: the head has none.
        """
        raise no_input_gradients(self.name)

    def set_temperature(self, degrees: float) -> None:
        """Divide the scores (of components, where a class has several) by a temperature: a start is then no surer than
        rows say that it should be. A head whose scores are a density keeps them, and may answer at the temperature.
        """

    def update_memory(self, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> None:
        """Learn from a batch without a gradient, after each step of training; most heads do nothing here."""

    def extra_repr(self) -> str:
        """What ``print(head)`` shows."""
        return ", ".join(f"{name}={value}" for name, value in self.config().items())

    @property
    def n_parameters(self) -> int:
        """Free numbers that a prediction uses."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def sparsity(self) -> float:
        """Share of the weights that are zero and need not be stored, 0 to 1."""
        return 0.0


def no_density(head: Head) -> NoDensity:
    """The error of a head that was asked for a density and has none."""
    return NoDensity(
        f"The head {head.name!r} has no density: its scores are not log p(x, c). "
        "Use its posterior, or a Gaussian head for typicality, evidence and samples."
    )


def no_input_gradients(name: str) -> UsageError:
    """The error of a head that was given an ``l2`` and has no slopes."""
    return UsageError(f"The head {name!r} takes no l2. Leave fit.l2 out, or take gaussian or linear.")


class GenerativeHead(Head):
    r"""A head whose scores are densities: it says ``component_log_prob``, and the rest is read from that by ``groups``.

    .. math:: \log p(c \mid x) = \log\operatorname{softmax}_c \tfrac1T \log p(x, c)

    The temperature T, kept as ``log_temperature``, makes the answers honest and is no part of the density.
    """

    groups: "Groups"
    log_temperature: Tensor

    @abstractmethod
    def component_log_prob(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Log-density of each point together with each component, in nats."""

    @property
    def density_dimension(self) -> int:
        """The number of dimensions that the density is one of."""
        return self.dimension

    def class_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Log-density of each point together with each class, in nats."""
        return self.groups(self.component_log_prob(x))

    def log_prob(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
        """Log-density of each point, in nats; may exceed 0."""
        return self.class_scores(x).logsumexp(-1)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Log-posterior of each class at the head's temperature, in nats and in the precision of the parameters."""
        return (
            (self.class_scores(x) * (-wide(self.log_temperature)).exp()).log_softmax(-1).to(self.log_temperature.dtype)
        )

    @torch.no_grad()
    def set_temperature(self, degrees: float) -> None:
        """Answer at a temperature; the density stays."""
        self.log_temperature.fill_(math.log(degrees))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}log_temperature", torch.zeros(()))  # older heads answered at 1
        super()._load_from_state_dict(state_dict, prefix, *args)


class Groups(nn.Module):
    """:class:`~mixtura.core.ownership.ClassLogSumExp` with its numbers as buffers: they move and load with a head.

    Args:
        component_class: the class of each component; every class owns one or more.
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
        if f"{prefix}owner" in state_dict:  # what older states call it
            state_dict[f"{prefix}component_class"] = state_dict.pop(f"{prefix}owner")
        component_class = state_dict.get(f"{prefix}component_class")
        if component_class is not None and f"{prefix}members" not in state_dict:  # an older state
            state_dict[f"{prefix}members"] = ClassLogSumExp.of(component_class, self.n_classes).members
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, joint: Float[Tensor, "*N K"]) -> Float[Tensor, "*N C"]:
        """The joint of each class."""
        return joint if self.single else class_log_sum_exp(joint, self.members)

    def within(self, logits: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        """Log-weights within each class: log-softmax of the logits over the components of a class."""
        if self.single:
            return logits - logits
        return logits - self(logits)[self.component_class]

    def log_weight(self, prior_logit: Float[Tensor, " C"], weight_logit: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        """Log-weights over all components, from the logits of the class priors and of the weights within a class."""
        prior = wide(prior_logit).log_softmax(0)
        return (prior if self.single else prior[self.component_class]) + self.within(wide(weight_logit))


def wide(tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The tensor in the precision that heads compute in: float64 stays, everything else becomes float32."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def as_rows(
    function: Callable[[Float[Tensor, "N D"]], Float[Tensor, "N K"]], x: Float[Tensor, "*N D"]
) -> Float[Tensor, "*N K"]:
    """A function of rows, applied along the last dimension of any number of them."""
    if x.ndim == 2:
        return function(x)
    out = function(x.reshape(-1, x.shape[-1]))
    return out.reshape(*x.shape[:-1], out.shape[-1])


def in_tiles(answer: Callable[[Tensor], Tensor], x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
    """What a head answers, a few thousand rows at a time."""
    return torch.cat([answer(part) for part in x.split(TILE_ROWS)])
