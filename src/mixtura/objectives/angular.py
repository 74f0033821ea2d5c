"""The loss of SCGM-A: subclass means, and beside them photos of one class that come apart as seen from its mean."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mixtura.core.subclass_model import SubclassModel
from mixtura.errors import UsageError
from mixtura.objectives.coarse_to_fine import UNASSIGNED, Assigned, mean_of, subclass_terms
from mixtura.objectives.contrast import KeyBank, Keys, Pairs, info_nce, log_sum

CLASS_LOSS = "cls"
METRICS = ("angular", "norm")
"""Where directions are seen from: the mean of the class, or the origin."""


@dataclass(frozen=True)
class Compared:
    """What the contrasts of a batch read: its pairs, and the classes and subclasses that part the keys.

    Args:
        pairs: embeddings, keys and the bank.
        scores: of the classes.
        centers: unit vectors of the classes from which directions are seen; ``None`` for the origin.
        subclass_centers: those of the subclasses.
        subclass_of: subclass of each training row, or :data:`UNASSIGNED`.
    """

    pairs: Pairs
    scores: Float[Tensor, "N C"]
    centers: Float[Tensor, "C D"] | None
    subclass_centers: Float[Tensor, "R D"]
    subclass_of: Int[Tensor, " T"]

    def loss(
        self, temperature: float, others: Float[Tensor, " N"], center: Float[Tensor, "N D"] | None
    ) -> Float[Tensor, " N"]:
        """The cross-entropy of the own key among others."""
        return info_nce(self.pairs.v, self.pairs.own.key.to(self.pairs.v), others, temperature, center)

    @property
    def of_class(self) -> tuple[Float[Tensor, "C D"], Int[Tensor, " N"]] | None:
        """The centers, and that of each row."""
        return None if self.centers is None else (self.centers, self.pairs.own.label)

    @property
    def own_center(self) -> Float[Tensor, "N D"] | None:
        """The center of each row."""
        return None if self.centers is None else self.centers[self.pairs.own.label]


@dataclass(frozen=True)
class BySubclass:
    """Keys of a bank, of which those of a subclass can be asked for."""

    keys: Keys
    subclass: Int[Tensor, " L"]

    @classmethod
    def of(cls, bank: KeyBank, subclass_of: Int[Tensor, " T"]) -> "BySubclass":
        """The keys of a bank with the subclass of their rows."""
        keys = bank.all()
        return cls(keys, subclass_of[keys.row])

    def of_class(self, label: int) -> Keys:
        """The keys of one subclass."""
        own = self.subclass == label
        return Keys(self.keys.key[own], self.keys.label[own], self.keys.row[own])

    def all(self) -> Keys:
        """All keys."""
        return self.keys


Contrast = Callable[[Compared, float], Float[Tensor, " N"]]
"""From what is compared and a temperature to the loss of each row, in nats."""


def by_class(x: Compared, temperature: float) -> Float[Tensor, " N"]:
    """Against the keys of the own class."""
    pairs = x.pairs
    others = log_sum(pairs.v, pairs.own.row, pairs.bank, temperature, of=pairs.own.label, centers=x.of_class)
    return x.loss(temperature, others, x.own_center)


def against_all(x: Compared, temperature: float) -> Float[Tensor, " N"]:
    """Against the keys of all classes, as seen from the origin."""
    pairs = x.pairs
    return x.loss(temperature, log_sum(pairs.v, pairs.own.row, pairs.bank, temperature), None)


def against_all_by_class(x: Compared, temperature: float) -> Float[Tensor, " N"]:
    """Against the keys of all classes, as seen from the own class."""
    pairs = x.pairs
    others = log_sum(pairs.v, pairs.own.row, pairs.bank, temperature, centers=x.of_class)
    return x.loss(temperature, others, x.own_center)


def of_two_classes(x: Compared, temperature: float) -> Float[Tensor, " N"]:
    """Against the keys of the own class and of the other class with the highest score."""
    pairs, labels = x.pairs, x.pairs.own.label
    if x.scores.shape[1] == 1:
        return by_class(x, temperature)
    rival = x.scores.detach().scatter(1, labels[:, None], -torch.inf).argmax(1)
    sums = [
        log_sum(pairs.v, pairs.own.row, pairs.bank, temperature, of=of, centers=x.of_class) for of in (labels, rival)
    ]
    return x.loss(temperature, torch.logaddexp(*sums), x.own_center)


def by_subclass(x: Compared, temperature: float) -> Float[Tensor, " N"]:
    """Against the keys of the own subclass, as seen from the origin; zero for a row without a subclass."""
    return _by_subclass(x, temperature, angular=False)


def by_subclass_angular(x: Compared, temperature: float) -> Float[Tensor, " N"]:
    """Against the keys of the own subclass, as seen from its mean; zero for a row without a subclass."""
    return _by_subclass(x, temperature, angular=True)


def _by_subclass(x: Compared, temperature: float, *, angular: bool) -> Float[Tensor, " N"]:
    pairs, subclass = x.pairs, x.subclass_of[x.pairs.own.row]
    known = subclass != UNASSIGNED
    some = subclass.clamp_min(0)  # rows without one are left out below
    centers = (x.subclass_centers, some) if angular else None
    bank = BySubclass.of(pairs.bank, x.subclass_of)
    others = log_sum(pairs.v, pairs.own.row, bank, temperature, of=some, centers=centers)
    return x.loss(temperature, others, x.subclass_centers[some] if angular else None) * known


CONTRAST_LOSSES: Mapping[str, Contrast] = {
    "cst_by_class": by_class,
    "cst_all": against_all,
    "cst_all_by_class": against_all_by_class,
    "cst_two_class": of_two_classes,
    "cst_by_subclass": by_subclass,
    "cst_by_subclass_angnorm": by_subclass_angular,
}
"""Contrasts by the names that the published program has for them."""

LOSSES = (CLASS_LOSS, *CONTRAST_LOSSES)


@final
@dataclass(frozen=True)
class ScgmA:
    r"""Classify, tell photos of one class apart as seen from its mean, and draw them to their subclass means.

    .. math:: \mathcal L_{CE} + \mathcal L_{ang} + \gamma \left[ -\log p(z \mid v) - \log p(y \mid z) \right]

    with :math:`z` the subclass that is assigned to the row. All means have a gradient by the last two terms; the
    contrasts take the means, from which they see, as they are. A row without a subclass has the first two terms only.

    Args:
        weight: :math:`\gamma`, zero or more.
        class_temperature: divides class scores, above 0.
        temperature: of the contrasts, above 0.
        metric: ``angular`` for directions as seen from the mean of the class, ``norm`` for those from the origin.
        losses: those of :data:`LOSSES` that are added up for the first two terms.

    Raises:
        UsageError: an argument is out of range.

    Source: Ni et al., Superclass-Conditional Gaussian Mixture Model for Learning Fine-Grained Embeddings, ICLR 2022,
    equations 18 and 19, on Bukchin et al., Fine-grained Angular Contrastive Learning with Coarse Labels, CVPR 2021.
    """

    reads: ClassVar[str] = "subclasses"
    needs_density: ClassVar[bool] = False
    views: ClassVar[int] = 2
    weight: float = 0.5
    class_temperature: float = 1.0
    temperature: float = 0.2
    metric: str = "angular"
    losses: Sequence[str] = (CLASS_LOSS, "cst_by_class")

    @classmethod
    def from_options(
        cls,
        weight: float = 0.5,
        class_temperature: float = 1.0,
        temperature: float = 0.2,
        metric: str = "angular",
        losses: Sequence[str] = (CLASS_LOSS, "cst_by_class"),
    ) -> "ScgmA":
        """Build from the options of a recipe."""
        return cls(weight, class_temperature, temperature, metric, tuple(losses))

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise UsageError(f"A weight of {self.weight} is out of range. Give a number of zero or more.")
        for one in (self.class_temperature, self.temperature):
            if not 0 < one < math.inf:
                raise UsageError(f"A temperature of {one} is out of range. Give a number above 0.")
        if self.metric not in METRICS:
            raise UsageError(f"There is no metric {self.metric!r}. Use one of: {', '.join(METRICS)}.")
        for name in self.losses:
            if name not in LOSSES:
                raise UsageError(f"There is no loss {name!r}. Use some of: {', '.join(LOSSES)}.")

    def __call__(
        self,
        model: SubclassModel,
        scores: Float[Tensor, "N C"],
        pairs: Pairs,
        assigned: Assigned,
        subclass_of: Int[Tensor, " T"],
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        """Mean loss in nats, and its terms: ``class_loss``, ``contrast_loss``, ``subclass_loss`` and ``owner_loss``.

        Args:
            model: class and subclass means.
            scores: of the classes.
            pairs: embeddings and keys of the batch, and keys of earlier rows.
            assigned: subclass of each row of the batch, or the shares.
            subclass_of: subclass of each training row, or :data:`UNASSIGNED`.
        """
        labels, v = pairs.own.label, pairs.v
        centers, of_subclasses = (functional.normalize(one, dim=1).detach() for one in (model.class_mean, model.mean))
        compared = Compared(pairs, scores, centers if self.metric == METRICS[0] else None, of_subclasses, subclass_of)
        none = torch.zeros_like(v[:, 0])
        wrong = functional.cross_entropy(scores / self.class_temperature, labels, reduction="none")
        apart = [CONTRAST_LOSSES[name](compared, self.temperature) for name in self.losses if name != CLASS_LOSS]
        near, owner = subclass_terms(model, v, labels, assigned)
        terms = {
            "class_loss": wrong if CLASS_LOSS in self.losses else none,
            "contrast_loss": torch.stack([none, *apart]).sum(0),
            "subclass_loss": near,
            "owner_loss": owner,
        }
        means = {name: mean_of(loss, pairs.weight) for name, loss in terms.items()}
        loss = means["class_loss"] + means["contrast_loss"]
        loss = loss + self.weight * (means["subclass_loss"] + means["owner_loss"])
        return loss, {name: mean.detach() for name, mean in means.items()}
