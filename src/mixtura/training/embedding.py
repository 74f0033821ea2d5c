"""A network with an embedder on it: embeddings of photos, and class scores of these where there are class weights."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.encoders.stages import Stages
from mixtura.training.classifier import PHOTOS, VECTOR, activations_in, vectors_of
from mixtura.training.setup import Batch

EMBEDDERS = ("none", "linear", "mlp")
"""What maps vectors to embeddings: nothing, one linear layer, or two with a rectifier between them."""


class EmbeddingHead(nn.Module):
    """Embeddings of vectors, and class scores that are products of embeddings and weights.

    Args:
        dimension: length of the vectors.
        n_classes: C; 0 for embeddings alone.
        width: length of the embeddings; without an embedder, that of the vectors.
        embedder: one of :data:`EMBEDDERS`.
    """

    class_weight: Float[Tensor, "C W"] | None

    def __init__(self, dimension: int, n_classes: int, width: int = 128, embedder: str = "linear") -> None:
        super().__init__()
        self.embedder, self.width = embedder_of(embedder, dimension, width)
        self.class_weight = None
        if n_classes:
            self.class_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_classes, self.width)))

    def embed(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N W"]:
        """The embeddings of vectors, not scaled to unit length."""
        return self.embedder(x)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """The class scores of vectors, or their embeddings without class weights."""
        v = self.embed(x)
        return v if self.class_weight is None else v @ self.class_weight.T


class EmbeddingClassifier(nn.Module):
    """A network with an :class:`EmbeddingHead`.

    Args:
        network: from photos to vectors.
        head: from vectors to embeddings and class scores.
        stages: the blocks of the network.
    """

    def __init__(self, network: nn.Module, head: EmbeddingHead, stages: Stages) -> None:
        super().__init__()
        self.network, self.head = network, head
        self.stages, self.first = stages, 0

    def forward(self, batch: Batch) -> Float[Tensor, "N K"]:
        """The class scores of a batch, or its embeddings without class weights."""
        return self.head(self._vectors(batch))

    def embed(self, batch: Batch) -> Float[Tensor, "N W"]:
        """The embeddings of a batch."""
        return self.head.embed(self._vectors(batch))

    def _vectors(self, batch: Batch) -> Float[Tensor, "N D"]:
        if PHOTOS not in batch and self.first == len(self.stages):
            return activations_in(batch)[VECTOR]
        return vectors_of(self.network, self.stages, batch, self.first)


class Embedding(nn.Module):
    """The embeddings of a classifier, as a network of its own that shares its tensors.

    Args:
        classifier: a module with a method ``embed``.
    """

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, batch: Batch) -> Float[Tensor, "N W"]:
        """The embeddings of a batch."""
        return self.classifier.embed(batch)


def embedder_of(name: str, dimension: int, width: int) -> tuple[nn.Module, int]:
    """A new embedder, and the length of its embeddings; see :class:`EmbeddingHead`."""
    if name == "none":
        return nn.Identity(), dimension
    last = nn.Linear(dimension, width)
    if name == "linear":
        return last, width
    return nn.Sequential(nn.Linear(dimension, dimension), nn.ReLU(), last), width
