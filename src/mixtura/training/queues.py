"""Queues of keys: the last embeddings of the photos of each class, or of all, which later batches are compared with."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from mixtura.objectives.contrast import Keys
from mixtura.training import distributed


class Queues:
    """First-in, first-out queues of keys, one of each class or one of all; state of a run, which a checkpoint keeps.

    They begin empty, and what is not filled is never read. What a step puts in replaces the oldest keys after it, so
    every part of a batch meets the same keys. Several processes put in the keys of all, in the order of their ranks,
    which is that of the batch, so their queues are equal.

    Args:
        sizes: length of the queue of each class; one number for one queue of all classes.
        width: numbers in a key.
        device: of the keys.

    Source: He et al., Momentum contrast for unsupervised visual representation learning (CVPR 2020), section 3.2;
    Bukchin et al., Fine-grained angular contrastive learning with coarse labels (CVPR 2021), section 3 (by class).
    """

    def __init__(self, sizes: Sequence[int], width: int, device: torch.device | None = None) -> None:
        total = sum(sizes)
        self.keys = Keys(
            torch.zeros(total, width, device=device),
            torch.full((total,), -1, device=device),
            torch.full((total,), -1, device=device),
        )
        self.sizes = torch.tensor(list(sizes))
        self.starts = self.sizes.cumsum(0) - self.sizes
        # On the CPU: a slice up to the fill level would wait for a GPU otherwise.
        self.place, self.filled = torch.zeros_like(self.sizes), torch.zeros_like(self.sizes)
        self._pushed: list[Keys] = []

    def push(self, keys: Keys) -> None:
        """Put keys in after the step; they are scaled to unit length."""
        key = functional.normalize(keys.key.detach().float(), dim=1)
        self._pushed.append(Keys(key, keys.label, keys.row))

    def of_class(self, label: int) -> Keys:
        """The keys of one class; views where it has a queue of its own."""
        return self._held(label) if len(self.sizes) > 1 else self._held(0).of_class(label)

    def all(self) -> Keys:
        """The keys of all classes; views where all queues are full."""
        if torch.equal(self.filled, self.sizes):
            return self.keys
        held = [self._held(number) for number in range(len(self.sizes))]
        return Keys(*(torch.cat([getattr(one, name) for one in held]) for name in ("key", "label", "row")))

    def tensors(self) -> Mapping[str, Tensor]:
        """The keys with their classes and photos, and of each queue the next place and the fill level."""
        keys = self.keys
        return {
            "key": keys.key, "label": keys.label, "row": keys.row, "place": self.place, "filled": self.filled,
        }  # fmt: skip

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Put in what all processes have pushed in this step; every process must call it."""
        pushed, device = self._pushed, self.keys.key.device
        none = Keys(self.keys.key[:0], self.keys.label[:0], self.keys.row[:0])
        mine = [torch.cat([getattr(one, name).to(device) for one in (none, *pushed)]) for name in vars(none)]
        self._put(Keys(*(distributed.gathered(part) for part in mine)))
        self._pushed.clear()

    def averaged(self) -> Mapping[str, Tensor]:
        """Nothing."""
        return {}

    def clear(self) -> None:
        """Empty all queues, and forget what was pushed."""
        self._pushed.clear()
        self.place.zero_()
        self.filled.zero_()
        self.keys.key.zero_()
        self.keys.label.fill_(-1)
        self.keys.row.fill_(-1)

    def _held(self, number: int) -> Keys:
        start, keys = int(self.starts[number]), self.keys
        part = slice(start, start + int(self.filled[number]))
        return Keys(keys.key[part], keys.label[part], keys.row[part])

    def _put(self, new: Keys) -> None:
        """Replace the oldest keys of each queue; of more than a queue holds, the last ones go in."""
        which = new.label.cpu() if len(self.sizes) > 1 else torch.zeros(len(new.label), dtype=torch.int64)
        order = which.argsort(stable=True)
        queue, counts = which[order], torch.bincount(which, minlength=len(self.sizes))
        turn = torch.arange(len(order)) - (counts.cumsum(0) - counts)[queue]  # of a key among the new of its queue
        last = turn >= (counts - self.sizes)[queue]
        order, queue, turn = order[last], queue[last], turn[last]
        slot = (self.starts[queue] + (self.place[queue] + turn) % self.sizes[queue]).to(new.key.device)
        order = order.to(new.key.device)
        for live, fresh in zip(vars(self.keys).values(), vars(new).values(), strict=True):
            live[slot] = fresh[order].to(live)
        self.place.copy_((self.place + counts) % self.sizes.clamp_min(1))  # a class without photos has no queue
        self.filled.copy_(torch.minimum(self.filled + counts, self.sizes))


def queue_sizes(most: int, labels: Int[Tensor, " T"], n_classes: int) -> tuple[int, ...]:
    """Length of the queue of each class: ``most``, or the number of its photos if that is smaller.

    A longer queue would hold keys of the same photos twice.
    """
    return tuple(min(most, int(count)) for count in torch.bincount(labels, minlength=n_classes))
