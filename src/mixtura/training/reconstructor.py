"""A network with a decoder on it: its loss, and that of validation photos."""

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from mixtura.encoders.stages import Stages
from mixtura.errors import NoInput
from mixtura.generators.autoencoder import Decoder
from mixtura.objectives.reconstruction import Reconstruction
from mixtura.training import distributed
from mixtura.training.classifier import PHOTOS, UNREADABLE, WEIGHT
from mixtura.training.setup import Batch, count

MAX_BYTE = 255.0


class Reconstructor(nn.Module):
    """Reconstructions of photos, before the logistic function.

    Args:
        network: from photos to vectors.
        head: the decoder, from vectors to photos.
        stages: the blocks of the network.
    """

    first = 0

    def __init__(self, network: nn.Module, head: Decoder, stages: Stages) -> None:
        super().__init__()
        self.network, self.head, self.stages = network, head, stages

    def forward(self, batch: Batch) -> Float[Tensor, "N 3 H W"]:
        """The logits of the reconstructions of a batch."""
        return self.head.logits(self.network(batch[PHOTOS]))


def unit_range(photos: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 H W"]:
    """Prepared photos, which are bytes, as numbers in [0, 1]: what a decoder is to draw."""
    return photos.float() / MAX_BYTE


def loss_of(objective: Reconstruction) -> Callable[[nn.Module, Batch], Tensor]:
    """The loss of a batch, to be given to the trainer as objective; each photo is compared with the view that it is."""

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        return objective(module(batch), unit_range(batch[PHOTOS]), weight=batch[WEIGHT])

    return loss


def results_of(objective: Reconstruction) -> Callable[[nn.Module, Iterable[Batch]], Mapping[str, float]]:
    """The mean loss of the photos of some batches, over all processes.

    Raises:
        NoInput: there is no photo.
    """

    @torch.no_grad()
    def results(module: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        device, sums = next(module.parameters()).device, {"loss": 0.0, "photos": 0.0}
        for batch in batches:
            if count(batch):
                moved = {name: tensor.to(device) for name, tensor in batch.items()}
                loss = objective.of_each(module(moved), unit_range(moved[PHOTOS]))
                sums["loss"] += float(loss.sum(dtype=torch.float64))
                sums["photos"] += count(batch)
        sums = distributed.totals(sums)
        if not sums["photos"]:
            raise NoInput(UNREADABLE)
        return {"loss": sums["loss"] / sums["photos"]}

    return results
