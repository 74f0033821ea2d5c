"""The out-of-fold items of a fit, which a bundle keeps so that its limits can be set again."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAX_STORED_SCORES = 1 << 24  # numbers of out-of-fold scores that a bundle keeps: 67 MB in float32


@dataclass(frozen=True)
class HeldOut:
    """The out-of-fold items of a fit, under the prior of the fit: what temperature and limits follow from.

    ``scores`` are class scores before any temperature, ``log_prob`` and ``background`` log-densities, all in nats.
    ``weight`` are item weights, ``half`` marks one half for the temperature. ``raw`` is the score in place of the
    density, NaN where there is none, and ``kind`` the subclass of each item if it is of each class; both may be empty.
    """

    label: Int[Tensor, " M"]
    scores: Float[Tensor, "M C"]
    log_prob: Float[Tensor, " M"]
    background: Float[Tensor, " M"]
    weight: Float[Tensor, " M"]
    half: Bool[Tensor, " M"]
    raw: Float[Tensor, " R"]
    kind: Int[Tensor, "S C"]

    def select(self, index: Tensor) -> "HeldOut":
        """Some of the items."""
        whole = len(self.label)
        columns = {item.name: getattr(self, item.name) for item in fields(self)}
        return HeldOut(**{name: value[index] if len(value) == whole else value for name, value in columns.items()})

    def thinned(self) -> "HeldOut":
        """So many of the items, evenly over the classes, that no more than ``MAX_STORED_SCORES`` are kept."""
        most = max(1, MAX_STORED_SCORES // self.scores.shape[1])
        if len(self.label) <= most:
            return self
        order = self.label.argsort(stable=True)
        return self.select(order[torch.linspace(0, len(order) - 1, most).round().long()].sort().values)

    def state(self) -> dict[str, Tensor]:
        """All tensors by name, contiguous."""
        return {item.name: getattr(self, item.name).contiguous() for item in fields(self)}

    def ratio(self, share: Float[Tensor, " C"], weight: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
        """New over old share of the class of each item, where items count by ``weight``."""
        old = torch.bincount(self.label, weight.double(), minlength=len(share))
        new = torch.where(old > 0, share, 0.0)
        return ((new / new.sum()) / (old / old.sum()))[self.label]
