"""What a network computes below the first block that is trained, kept for a fixed set of views of each photo.

An epoch then costs the last blocks only. Epochs take the views in turn, so a photo looks different in each of them.
Where batches have two views of each photo, the second is another kept one, so two are kept at least.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from mixtura.encoders.stages import Stages
from mixtura.errors import NoInput
from mixtura.training.classifier import ACTIVATION, PHOTOS, ROW, VECTOR
from mixtura.training.loaders import OTHER, Batch, Loader
from mixtura.training.order import RowOrder
from mixtura.training.state import evaluating

VIEWS = 4
MAX_BYTES = 1 << 30
"""Memory for the activations of all views, beyond those that batches need."""


@torch.no_grad()
def with_activations(batch: Batch, network: nn.Module, stages: Stages, first: int) -> Batch:
    """A batch with the activations before block ``first`` in place of the photos; for block 0, as it is.

    After the last block, these are the vectors.
    """
    if not first or not len(batch[ROW]):
        return batch
    device = next(network.parameters()).device
    with evaluating(network):
        made = stages.run(network, batch[PHOTOS].to(device), 0, first)
    rest = {name: tensor for name, tensor in batch.items() if name != PHOTOS}
    found = {VECTOR: made} if isinstance(made, Tensor) else made
    return rest | {f"{ACTIVATION}{name}": tensor.cpu() for name, tensor in found.items()}


def chunks(count: int, size: int) -> list[Int[np.ndarray, " _"]]:
    """The rows from 0 to ``count`` in batches of a size."""
    return np.split(np.arange(count), range(size, count, size))


class KeptViews:
    """Batches of activations in the order of an epoch, as the loader has them of photos.

    Args:
        loader: of the training photos.
        network: whose blocks below ``first`` stay as they are.
        stages: its blocks.
        first: number of the first block that is trained, at least 1.
        batch_size: photos per pass.

    Raises:
        NoInput: no photo can be read.
    """

    def __init__(self, loader: Loader, network: nn.Module, stages: Stages, first: int, batch_size: int) -> None:
        self._count, self._views = len(loader.dataset.items), list[tuple[Int[Tensor, " N"], Batch]]()
        self._pairs = loader.augmentation is not None and loader.augmentation.count > 1
        rows = chunks(self._count, batch_size)
        for epoch in range(VIEWS if loader.augmentation else 1):
            batches = (with_activations(batch, network, stages, first) for batch in loader.read(rows, epoch))
            view = self._joined([batch for batch in batches if len(batch[ROW])], loader)
            place = torch.full((self._count,), -1).index_copy_(0, view[ROW], torch.arange(len(view[ROW])))
            self._views.append((place, view))
            size = sum(tensor.nbytes for tensor in view.values())
            # Two views that were one would have nothing to learn from, so a pair is kept whatever it takes.
            if len(self._views) > self._pairs and (len(self._views) + 1) * size > MAX_BYTES:
                break

    def batches(
        self, order: RowOrder, epoch: int, first: int = 0, rank: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        """The batches of one process from step ``first`` of an epoch on; photos that could not be read are left out."""
        place, view = self._views[epoch % len(self._views)]
        second, other = self._views[self._second(epoch)]
        for rows in map(torch.from_numpy, order.batches(epoch, first, rank, processes)):
            rows = rows[(place[rows] >= 0) & (second[rows] >= 0)]
            batch = {name: tensor[place[rows]] for name, tensor in view.items()}
            if self._pairs:
                again = {name: tensor for name, tensor in other.items() if name.startswith(ACTIVATION)}
                batch |= {f"{OTHER}{name}": tensor[second[rows]] for name, tensor in again.items()}
            yield batch

    def _second(self, epoch: int) -> int:
        """The number of the second view in an epoch: in later epochs, the first is paired with each other one."""
        count = len(self._views)
        first, turn = epoch % count, epoch // count
        return (first + 1 + turn % (count - 1)) % count if self._pairs and count > 1 else first

    def _joined(self, batches: Sequence[Batch], loader: Loader) -> Batch:
        if not batches:
            raise NoInput(f"None of the {self._count} training photos can be read. {loader.problems[0].message}")
        return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
