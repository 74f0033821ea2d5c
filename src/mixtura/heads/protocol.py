"""What a head is: a drop-in for the last linear layer that gives log-posteriors, and maybe a density."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.errors import NoDensity, UsageError


class Head(nn.Module):
    r"""Features to class log-posteriors, N x D to N x C.

    .. math:: \log p(c \mid x) = s_c(x) - \operatorname{logsumexp}_{c'} s_{c'}(x)

    A head is stateless beside its parameters and buffers: whatever is derived from them is derived in ``class_scores``,
    so gradients accumulate, copies are copies, and there is nothing to refresh. ``name`` is its key in ``HEADS``;
    ``config()`` holds plain values with which ``type(head)(**config)`` is the same head before its state is loaded.
    Parameters are float32 or float64 whatever the features are; float16 and bfloat16 features are cast. ``stacks`` says
    that several can be trained as one batch, ``many`` that a class may have more than one component, ``shrinks`` that
    ``from_rows`` takes a ``shrinkage``. Where ``from_rows`` takes ``**options``, ``further`` is what it hands them to
    (the class itself if ``None``), and there they are checked. ``inside`` is set while rows come as :meth:`inner` has
    made them, once for all steps of a training.
    """

    name: ClassVar[str]
    dimension: int
    n_classes: int
    stacks: ClassVar[bool] = True
    many: ClassVar[bool] = True
    shrinks: ClassVar[bool] = False
    further: ClassVar[Callable[..., Any] | None] = None
    inside: bool = False

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
    def class_scores(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Log-scores whose softmax is the posterior; for a head with a density, log p(x, c) in nats."""

    def inner(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N W"]:
        """The rows as the head takes them in, before any parameter that learns; most heads take them as they are."""
        return x

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Log-posterior of each class, in nats."""
        return self.class_scores(x).log_softmax(1)

    def posterior(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Posterior probability of each class."""
        return self(x).exp()

    def joint(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Log-density of each point together with each component, in nats.

        Raises:
            NoDensity: the head has none.
        """
        raise no_density(self)

    def evidence(self, x: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Log-density of each point, in nats.

        Raises:
            NoDensity: the head has none.
        """
        raise no_density(self)

    def penalty(self) -> Float[Tensor, ""]:
        """What the training of the head adds to the loss of N rows, in nats for all of them; zero for most."""
        return torch.zeros((), device=next(self.parameters()).device)

    def slopes(self) -> Float[Tensor, "K D"]:
        """Gradients of the scores at the center of the data, in units of its spread: what ``l2`` keeps small.

        Raises:
            UsageError: the head has none.
        """
        raise no_slopes(self.name)

    def temper(self, degrees: float) -> None:
        """Divide the scores (of components, where a class has several) by a temperature: a start is then no surer than
        rows say that it should be. A head whose scores are a density keeps them, and may answer at the temperature.
        """

    def absorb(self, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> None:
        """Learn from a batch without a gradient, after each step of training; most heads do nothing here."""

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


def no_slopes(name: str) -> UsageError:
    """The error of a head that was given an ``l2`` and has no slopes."""
    return UsageError(f"The head {name!r} takes no l2. Leave fit.l2 out, or take gaussian or linear.")


class DenseHead(Head):
    """A head whose scores are densities: it says ``joint``, and the rest is read from that by ``groups``."""

    groups: "Groups"

    @abstractmethod
    def joint(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Log-density of each point together with each component, in nats."""

    def class_scores(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Log-density of each point together with each class, in nats."""
        return self.groups(self.joint(x))

    def evidence(self, x: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Log-density of each point, in nats; may exceed 0."""
        return self.class_scores(x).logsumexp(1)


class Groups(nn.Module):
    r"""Log-sum-exp over each class's components, without a branch on data: it exports, compiles and maps.

    .. math:: \log p(x, c) = \operatorname{logsumexp}_{k:\, o_k = c} \log p(x, k)

    Args:
        owner: the class of each component; every class owns one or more.
        n_classes: C.

    Raises:
        UsageError: a class without components.
    """

    owner: Tensor
    members: Tensor

    def __init__(self, owner: list[int], n_classes: int) -> None:
        super().__init__()
        of_class = [[k for k, c in enumerate(owner) if c == own] for own in range(n_classes)]
        empty = [c for c, own in enumerate(of_class) if not own]
        if empty or min(owner, default=0) < 0 or max(owner, default=0) >= n_classes:
            raise UsageError(f"Owners {sorted(set(owner))} do not give each of {n_classes} classes a component.")
        most = max(map(len, of_class))
        self.single = owner == list(range(n_classes))
        padded = [own + [len(owner)] * (most - len(own)) for own in of_class]
        self.register_buffer("owner", torch.tensor(owner))
        self.register_buffer("members", torch.tensor(padded), persistent=False)

    def forward(self, joint: Float[Tensor, "N K"]) -> Float[Tensor, "N C"]:
        """The joint of each class."""
        if self.single:
            return joint
        padded = nn.functional.pad(joint, (0, 1), value=-torch.inf)
        return padded[:, self.members].logsumexp(2)

    def within(self, logits: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        """Log-weights within each class: log-softmax of the logits over the components of a class."""
        if self.single:
            return logits - logits
        return logits - self(logits[None])[0][self.owner]

    def log_weight(self, prior_logit: Float[Tensor, " C"], weight_logit: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        """Log-weights over all components, from the logits of the class priors and of the weights within a class."""
        prior = prior_logit.log_softmax(0)
        return (prior if self.single else prior[self.owner]) + self.within(weight_logit)
