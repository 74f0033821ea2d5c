"""Distance to the k-th nearest known row, on unit vectors."""

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.content import content_order
from mixtura.core.cross_fitting import OutOfFold
from mixtura.core.moments import LabeledItems
from mixtura.scores.base import ROWS, Edits, KnownRows, unit

NEIGHBORS = 5  # k: in the range of shots of a small class
MAX_ROWS = 5000  # rows kept; 25 MB of float32 at 1,280 dimensions
SAME_ROW = 1e-5  # difference of the cosine from 1, up to which a stored row is the one that was removed


@final
@dataclass(frozen=True)
class KNearest:
    r"""Distance to the k-th nearest of the kept rows, all at unit length.

    .. math:: s(x) = -\| z - z_{(k)} \|_2, \qquad z = x / \|x\|

    At most ``MAX_ROWS`` rows are kept, as evenly over the classes as they allow. A class with fewer than k rows has
    each of them several times, so its own rows are its nearest ones. The bank follows the edits of a catalog row by
    row: newcomers add theirs, and removed rows leave it.

    Source: Sun, Ming, Zhu, Li, Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022.
    """

    bank: Float[Tensor, "B D"]
    label: Int[Tensor, " B"]
    neighbors: int = NEIGHBORS
    sees: ClassVar[str] = ROWS

    @classmethod
    def fit(cls, known: KnownRows) -> "KNearest":
        """The score of known rows."""
        kept = _evenly(known.rows)
        bank, label = _filled(unit(known.rows.x[kept]), known.rows.labels[kept], NEIGHBORS)
        return cls(bank, label, min(NEIGHBORS, len(bank)))

    @classmethod
    def left_out(cls, held: OutOfFold) -> None:
        """``None``: the scores of rows that were left out do not follow from their densities."""

    def __call__(
        self, x: Float[Tensor, "N D"], log_prob: Float[Tensor, " N"], background: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Minus the distance of each row to the k-th nearest one in the bank."""
        cosine = (unit(x) @ self.bank.T).topk(self.neighbors, dim=1).values[:, -1]
        return -(2 - 2 * cosine).clamp_min(0).sqrt()

    def follow(self, edits: Edits) -> "KNearest":
        """The score after the edits of a catalog."""
        bank, label = _once(self.bank, self.label, NEIGHBORS)
        stays = ~edits.gone[label] & ~_among(bank, label, edits.removed)
        added = unit(edits.added.x).to(bank)
        bank, label = torch.cat([bank[stays], added]), torch.cat([label[stays], edits.added.labels])
        for place, rows in enumerate(edits.newcomers):
            bank = torch.cat([bank, unit(rows).to(bank)])
            label = torch.cat([label, torch.full((len(rows),), len(edits.gone) + place)])
        bank, label = _filled(bank, label, NEIGHBORS)
        return replace(self, bank=bank, label=label, neighbors=min(NEIGHBORS, len(bank)))

    def state(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {"bank": self.bank, "label": self.label}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "KNearest":
        """The inverse of :meth:`state`."""
        return cls(state["bank"], state["label"], min(NEIGHBORS, len(state["bank"])))


def _evenly(rows: LabeledItems) -> Int[Tensor, " M"]:
    """Indices of at most ``MAX_ROWS`` rows, chosen by their values, the first of each class before any second."""
    if len(rows.x) <= MAX_ROWS:
        return torch.arange(len(rows.x))
    order, _ = content_order(rows.x, 0)
    place = _place_in_class(rows.labels[order])
    return order[place.argsort(stable=True)[:MAX_ROWS]].sort().values


def _place_in_class(label: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """How many earlier rows have the same label."""
    order = label.argsort(stable=True)
    count = torch.bincount(label)
    within = torch.arange(len(label)) - (count.cumsum(0) - count)[label[order]]
    return torch.empty_like(label).scatter_(0, order, within)


def _filled(bank: Float[Tensor, "B D"], label: Int[Tensor, " B"], least: int) -> tuple[Tensor, Tensor]:
    """The bank with the rows of small classes repeated until each class has ``least``."""
    count = torch.bincount(label).clamp_min(1)
    times = (least / count.double()).ceil().long().clamp_min(1)[label]
    return bank.repeat_interleave(times, 0), label.repeat_interleave(times)


def _once(bank: Float[Tensor, "B D"], label: Int[Tensor, " B"], least: int) -> tuple[Tensor, Tensor]:
    """The bank before its small classes were filled: the copies of a row follow it."""
    first = torch.ones_like(label, dtype=torch.bool)
    first[1:] = (label[1:] != label[:-1]) | (bank[1:] != bank[:-1]).any(1)
    small = torch.bincount(label[first], minlength=int(label.max()) + 1 if len(label) else 0) < least
    kept = first | ~small[label]
    return bank[kept], label[kept]


def _among(bank: Float[Tensor, "B D"], label: Int[Tensor, " B"], removed: LabeledItems) -> Tensor:
    """Which rows of the bank are among the removed rows of their class."""
    if not len(removed.x):
        return torch.zeros_like(label, dtype=torch.bool)
    same = (bank @ unit(removed.x).to(bank).T > 1 - SAME_ROW) & (label[:, None] == removed.labels)
    return same.any(1)
