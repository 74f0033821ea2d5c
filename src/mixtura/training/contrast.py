"""Keys of the second view of photos, by a slow copy of the network, and the queues that they fill."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.objectives.contrast import Keys, Pairs
from mixtura.training import distributed
from mixtura.training.classifier import LABEL, ROW, WEIGHT, other_view
from mixtura.training.hooks import Hook, MomentumEncoder
from mixtura.training.queues import Queues
from mixtura.training.setup import Batch


@dataclass(frozen=True, eq=False)
class SlowKeys:
    """Makes the keys of batches; its state is that of its hooks.

    Args:
        encoder: slow copy of what gives the embeddings of a batch.
        queues: of earlier keys; ``None`` to compare with the keys of the batch alone.
    """

    encoder: MomentumEncoder
    queues: Queues | None = None

    @classmethod
    def of(cls, embedding: nn.Module, momentum: float, queues: Queues | None = None) -> "SlowKeys":
        """With a copy of a network that gives embeddings, which then follows it.

        The copy is in the mode of the network: where that trains batch norms, keys have the statistics of their batch
        too. By running statistics, which lag, keys would differ from embeddings by more than by photos, and training
        makes all embeddings alike.

        Args:
            embedding: from a batch to embeddings.
            momentum: share of the copy that stays in each step, in [0, 1); with little, keys of a queue are of
                networks that differ.
            queues: of earlier keys.
        """
        return cls(MomentumEncoder(embedding, momentum), queues)

    @property
    def hooks(self) -> dict[str, Hook]:
        """The state beside the network."""
        queues: dict[str, Hook] = {} if self.queues is None else {"queues": self.queues}
        return {"key_encoder": self.encoder} | queues

    def pairs(self, v: Float[Tensor, "N D"], batch: Batch) -> Pairs:
        """What an objective reads; without queues, a process without rows must call :meth:`none` meanwhile.

        Args:
            v: embeddings of the first view.
            batch: with both views.
        """
        return self._pairs(v, self.encoder(other_view(batch)).float(), batch)

    def none(self, width: int, batch: Batch) -> Pairs:
        """The pairs of a batch without rows, for which no network is needed.

        Args:
            width: numbers in a key.
            batch: without rows.
        """
        empty = torch.zeros(0, width, device=batch[LABEL].device)
        return self._pairs(empty, empty, batch)

    def _pairs(self, v: Float[Tensor, "N D"], made: Float[Tensor, "N D"], batch: Batch) -> Pairs:
        own = Keys(nn.functional.normalize(made, dim=1), batch[LABEL], batch[ROW])
        if self.queues is not None:
            self.queues.push(own)
        return Pairs(v, own, self.queues or _gathered(own), batch[WEIGHT])


def _gathered(own: Keys) -> Keys:
    """The keys of all processes."""
    return Keys(*(distributed.gathered(part) for part in vars(own).values()))
