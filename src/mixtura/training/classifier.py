"""A network with a head on it: its loss, and its scores of validation rows."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import cast

import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor, nn

from mixtura.encoders.stages import Activations, Stages
from mixtura.errors import NoInput
from mixtura.heads.base import Head
from mixtura.objectives.classification import PLAIN_CONDITIONAL
from mixtura.training import distributed
from mixtura.training.loaders import OTHER
from mixtura.training.setup import Batch, count
from mixtura.training.state import evaluating

PHOTOS, LABEL, WEIGHT, ROW = "x", "label", "weight", "row"
VECTOR = "vector"
"""The name of the vectors among activations, where no block is left to run."""

ACTIVATION = "activation "
"""Begins the names of activations in a batch; photos are under ``x``."""

UNREADABLE = "None of the validation photos can be read. Check that their folder is still there."


class Classifier(nn.Module):
    """Class scores of photos, or of the activations with which block ``first`` of the network begins.

    Args:
        network: from photos to vectors.
        head: from vectors to class scores.
        stages: the blocks of the network.
        first: number of the first block that is run; the number of blocks to run the head alone.
    """

    def __init__(self, network: nn.Module, head: Head, stages: Stages, first: int = 0) -> None:
        super().__init__()
        self.network, self.head = network, head
        self.stages, self.first = stages, first

    def forward(self, batch: Batch) -> Float[Tensor, "N C"]:
        """The class scores of a batch."""
        if PHOTOS not in batch and self.first == len(self.stages):
            # With a gradient, as from a network: so the head is trained alone as it is trained with the network.
            return self.head(activations_in(batch)[VECTOR].requires_grad_().clone())
        return self.head(vectors_of(self.network, self.stages, batch, self.first))


def vectors_of(network: nn.Module, stages: Stages, batch: Batch, first: int) -> Float[Tensor, "N D"]:
    """The vectors of a batch of photos, or of the activations with which block ``first`` of the network begins."""
    if PHOTOS in batch:
        return stages.run(network, batch[PHOTOS], 0)
    return stages.run(network, activations_in(batch), first)


def other_view(batch: Batch) -> Batch:
    """A batch with the second view of each photo in place of the first; the batch itself where it has one view."""
    other = {name.removeprefix(OTHER): tensor for name, tensor in batch.items() if name.startswith(OTHER)}
    return {name: tensor for name, tensor in batch.items() if not name.startswith(OTHER)} | other


def activations_in(batch: Batch) -> Activations:
    """The activations of a batch, by the names that the blocks of a network know."""
    return {name.removeprefix(ACTIVATION): tensor for name, tensor in batch.items() if name.startswith(ACTIVATION)}


def cross_entropy(classifier: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The loss of a batch, in nats, and its accuracy, to be given to the trainer as objective."""
    scores, labels = classifier(batch), batch[LABEL]
    right = (scores.detach().argmax(1) == labels).double().mean()
    return PLAIN_CONDITIONAL.of_log_posterior(scores, labels, batch[WEIGHT]), {"accuracy": right}


def without_rows(classifier: nn.Module, batch: Batch) -> Tensor:
    """A loss of zero of a batch without rows; the head exchanges its statistics all the same."""
    network = cast(Classifier, classifier).network
    synced = any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
    # Batch norm in training refuses no rows, unless it is synchronized; then the other processes wait for its sums.
    with nullcontext() if synced else evaluating(network):
        return classifier(batch).sum() * 0.0


def scored(classifier: nn.Module, batches: Iterable[Batch]) -> tuple[Float64[Tensor, "N C"], Int[Tensor, " N"]]:
    """The class scores and the class of each row of some batches, on the CPU; those of all processes, in each.

    Every process calls it with its own batches, each row in one of them.

    Raises:
        NoInput: there is no row.
    """
    scores, labels = outputs(classifier, batches, LABEL)
    return scores.double(), labels


@torch.no_grad()
def outputs(
    module: nn.Module, batches: Iterable[Batch], key: str
) -> tuple[Float[Tensor, "N ..."], Shaped[Tensor, "N ..."]]:
    """What a network gives for each row of some batches, and what these hold of it; of all processes, on the CPU.

    Every process calls it with its own batches, each row in one of them.

    Args:
        module: from a batch to a tensor with its rows.
        batches: of the photos.
        key: what is wanted of the batches, such as their labels.

    Raises:
        NoInput: there is no row.
    """
    device, found, held = next(module.parameters()).device, list[Tensor](), list[Tensor]()
    for batch in batches:
        if count(batch):
            found.append(module({name: tensor.to(device) for name, tensor in batch.items()}).cpu())
            held.append(batch[key].cpu())
    made = distributed.gathered_values((found, held))
    found, held = [part for one, _ in made for part in one], [part for _, one in made for part in one]
    if not held:
        raise NoInput(UNREADABLE)
    return torch.cat(found), torch.cat(held)
