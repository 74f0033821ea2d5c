"""The named subclasses of a model's classes: which of them an item is, how probable, and how typical of it."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core.ownership import ClassLogSumExp
from mixtura.scores.typicality import Typicality

MIN_ITEMS = 20
"""Out-of-fold items that a subclass needs for a typicality of its own; with fewer, that of its class is shown."""


@dataclass(frozen=True)
class SubclassAnswers:
    """The most probable subclass of each row within its predicted class, as an index into the names.

    ``probability`` is given the class. ``typicality`` is that within the subclass where ``own``, else of the class.
    """

    subclass: Int[Tensor, " N"]
    probability: Float[Tensor, " N"]
    typicality: Float[Tensor, " N"]
    own: Bool[Tensor, " N"]


@dataclass(frozen=True)
class Subclasses:
    r"""Subclasses of the classes of a mixture, each the owner of some of its components.

    Which subclass an item is, is asked within its predicted class c, so it changes nothing about the class:

    .. math:: p(s \mid x, c) \propto \Big( \sum_{k \in s} p(x, k) \Big)^{1/T}, \qquad s \in c

    Args:
        names: of the subclasses; a class without any is the only one of its own, by its own name.
        class_parent: the class of each subclass.
        component_subclass: the subclass of each component.
        temperature: T, fitted to out-of-fold items.
    """

    names: tuple[str, ...]
    class_parent: Int[Tensor, " S"]
    component_subclass: Int[Tensor, " K"]
    temperature: float = 1.0

    def check(self, component_class: Int[Tensor, " K"]) -> None:
        """Check that every component belongs to a subclass of its class, and that every subclass has a component.

        Raises:
            ValueError: one does not.
        """
        shapes = self.class_parent.shape == (len(self.names),), self.component_subclass.shape == component_class.shape
        full = len(self.component_subclass.unique()) == len(self.names)
        if not (full and all(shapes)) or not torch.equal(self.class_parent[self.component_subclass], component_class):
            raise ValueError("subclasses do not fit the components")

    def state(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {"class_parent": self.class_parent, "component_subclass": self.component_subclass}

    @cached_property
    def over_subclasses(self) -> ClassLogSumExp:
        """Log-sum-exp from components to subclasses."""
        return ClassLogSumExp.of(self.component_subclass, len(self.names))

    def posterior(self, joint: Float[Tensor, "N K"], predicted: Int[Tensor, " N"]) -> Float[Tensor, "N S"]:
        """Probability of each subclass given the predicted class; 0 for subclasses of others.

        Args:
            joint: component log-probabilities, in nats.
            predicted: the class of each row.
        """
        return within(self.over_subclasses(joint), self.class_parent, predicted, self.temperature)

    def answers(
        self,
        joint: Float[Tensor, "N K"],
        predicted: Int[Tensor, " N"],
        score: Float[Tensor, " N"],
        typicality: Float[Tensor, " N"],
        ranks: Typicality,
    ) -> SubclassAnswers:
        """The subclass of each row.

        Args:
            joint: component log-probabilities, in nats.
            predicted: the class of each row.
            score: of the typicality.
            typicality: of each row within its class.
            ranks: the typicality of the model.
        """
        probability, subclass = self.posterior(joint, predicted).max(1)
        finer = ranks.of_subclasses
        own = finer.count(subclass) >= MIN_ITEMS
        inside = torch.where(typicality == 0, 0.0, finer(score, subclass))  # 0: beyond everything
        return SubclassAnswers(subclass, probability, torch.where(own, inside, typicality), own)


def within(
    log_prob: Float[Tensor, "N S"], class_parent: Int[Tensor, " S"], predicted: Int[Tensor, " N"], temperature: float
) -> Float[Tensor, "N S"]:
    """Probability of each subclass given a class, from log-probabilities in nats; equal where no digits are left."""
    own = class_parent == predicted[:, None]
    posterior = (log_prob.double() / temperature).masked_fill(~own, -torch.inf).softmax(1)
    return torch.where(posterior.isnan(), own / own.sum(1, keepdim=True), posterior)
