"""A network that is trained on episodes: which photos each step takes, its loss, and that of validation episodes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn
from torch.nn import functional

from mixtura.datasets.episodes import Design, Episode, Pool, nway_episode
from mixtura.encoders.stages import Stages
from mixtura.errors import NoInput
from mixtura.objectives.prototypical import Prototypical
from mixtura.training.classifier import LABEL, ROW, UNREADABLE, WEIGHT, outputs, vectors_of
from mixtura.training.setup import Batch, Loss


class Embedder(nn.Module):
    """Vectors of photos, or of the activations with which block ``first`` of the network begins; it has no head.

    Args:
        network: from photos to vectors.
        stages: the blocks of the network.
    """

    def __init__(self, network: nn.Module, stages: Stages) -> None:
        super().__init__()
        self.network, self.head = network, nn.Identity()
        self.stages, self.first = stages, 0

    def forward(self, batch: Batch) -> Float[Tensor, "N D"]:
        """The vectors of a batch."""
        return vectors_of(self.network, self.stages, batch, self.first)


@dataclass(frozen=True, eq=False)
class EpisodeOrder:
    """The rows of each step: an episode, with the support photos of all its classes before the queries.

    Step k of epoch e is episode ``e * design.episodes + k`` of the list that the seed of the design gives, so it
    follows from seed, epoch and step.

    Args:
        pool: classes and photos to draw from, with what an episode needs.
        design: of an episode; ``episodes`` is their number in an epoch.
        row: of each item of the pool.
        count: rows of the data.
    """

    pool: Pool
    design: Design
    row: Int[np.ndarray, " N"]
    count: int

    @property
    def steps(self) -> int:
        """Episodes of an epoch."""
        return self.design.episodes

    def rows(self, epoch: int) -> Int64[np.ndarray, " N"]:
        """The rows of an epoch."""
        return np.concatenate([self._rows(epoch, step) for step in range(self.steps)])

    def slices(self, first: int = 0, rank: int = 0, processes: int = 1) -> Iterator[slice]:
        """The rows of each step, from step ``first`` on; an episode is not divided among processes."""
        size = self.design.way * self.design.needed
        bounds = range(first * size, (self.steps + 1) * size, size)
        return (slice(start, end) for start, end in pairwise(bounds))

    def batches(
        self, epoch: int, first: int = 0, rank: int = 0, processes: int = 1
    ) -> Iterator[Int64[np.ndarray, " B"]]:
        """The rows of each step of an epoch, from step ``first`` on."""
        return (self._rows(epoch, step) for step in range(first, self.steps))

    def _rows(self, epoch: int, step: int) -> Int64[np.ndarray, " B"]:
        drawn = nway_episode(self.pool, self.design, epoch * self.steps + step).at(self.row)
        return np.concatenate([drawn.support.ravel(), drawn.query.ravel()])


def parted(labels: Int[Tensor, " N"], shot: int) -> tuple[Int[Tensor, "W S"], Int[Tensor, " M"], Int[Tensor, " M"]]:
    """The rows of an episode as those of the support, by class, those of the queries, and the class of each query.

    The first ``shot`` rows of a class are its support, so a photo that cannot be read is replaced by the next one. A
    class that has fewer is left out.
    """
    local = labels.unique(return_inverse=True)[1]
    own = functional.one_hot(local)
    before = (own.cumsum(0) * own).sum(1) - 1
    whole = torch.bincount(local) >= shot
    support = ((before < shot) & whole[local]).nonzero()[:, 0]
    query = (before >= shot).nonzero()[:, 0]
    support = support[local[support].argsort(stable=True)].reshape(-1, shot)
    return support, query, (whole.cumsum(0) - 1)[local[query]]


def loss_of(objective: Prototypical, shot: int) -> Callable[[nn.Module, Batch], Loss]:
    """The mean loss of the queries of an episode, and their accuracy, to be given to the trainer as objective."""

    def loss(module: nn.Module, batch: Batch) -> Loss:
        vectors = module(batch)
        support, query, labels = parted(batch[LABEL], shot)
        if not len(query):  # none of its photos can be read
            return vectors.sum() * 0.0, {"accuracy": vectors.new_zeros(())}
        scores = objective.scores(vectors[support][None], vectors[query][None])[0]
        right = (scores.detach().argmax(1) == labels).double().mean()
        return objective.of_scores(scores, labels, batch[WEIGHT][query]), {"accuracy": right}

    return loss


@torch.no_grad()
def scored(
    objective: Prototypical, episodes: Sequence[Episode], module: nn.Module, batches: Iterable[Batch]
) -> tuple[Float[Tensor, "Q W"], Int[Tensor, " Q"]]:
    """The scores of all queries of some episodes of one shape, and the class of each, on the CPU.

    Each photo is encoded once. Queries without a photo that can be read, and those of a class without, are left out.

    Args:
        objective: gives the scores.
        episodes: whose indices are rows of the batches.
        module: from a batch to vectors.
        batches: of the photos.

    Raises:
        NoInput: no query is left.
    """
    support = torch.from_numpy(np.stack([one.support for one in episodes]))
    query = torch.from_numpy(np.stack([one.query for one in episodes])).flatten(1)
    labels = torch.arange(support.shape[1]).repeat_interleave(query.shape[1] // support.shape[1])
    vectors, known = _vectors(module, batches, 1 + max(int(rows.max()) for rows in (support, query)))
    scores, kept = [], known[query] & known[support].flatten(1).all(1)[:, None]
    for shots, asked in zip(support, query, strict=True):  # one after the other: all at once may not fit into memory
        scores.append(objective.scores(vectors[shots][None], vectors[asked][None])[0])
    if not bool(kept.any()):
        raise NoInput(UNREADABLE)
    return torch.stack(scores)[kept], labels.expand(len(query), -1)[kept]


def _vectors(
    module: nn.Module, batches: Iterable[Batch], least: int
) -> tuple[Float[Tensor, "N D"], Bool[Tensor, " N"]]:
    """The vector of each row on the CPU, zero where there is none, and where there is one; ``least`` rows or more."""
    found, place = outputs(module, batches, ROW)
    size = max(least, int(place.max()) + 1)
    vectors = torch.zeros(size, found.shape[1]).index_copy_(0, place, found.float())
    return vectors, torch.zeros(size, dtype=torch.bool).index_fill_(0, place, True)
