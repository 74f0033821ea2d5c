"""A network with an embedder and the means of classes and hidden subclasses on it, and which subclass each row has."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.core.subclass_model import SubclassModel
from mixtura.encoders.stages import Stages
from mixtura.objectives.coarse_to_fine import UNASSIGNED
from mixtura.training.classifier import VECTOR, vectors_of
from mixtura.training.embedding import embedder_of
from mixtura.training.setup import Batch

CLASS_SCORES = ("means", "embeddings", "vectors")
"""Where class scores come from: products of embeddings and class means, a layer on embeddings, or one on vectors."""


class SubclassHead(nn.Module):
    """Class log-posteriors of vectors, through subclasses.

    Args:
        dimension: length of the vectors.
        n_classes: C.
        n_subclasses: R.
        width: length of the embeddings; without an embedder, that of the vectors.
        embedder: one of :data:`~mixtura.training.embedding.EMBEDDERS`.
        subclass_class: class that owns each subclass; ``None`` for no owners.
        class_scores: one of :data:`CLASS_SCORES`; a layer is for training only.
        options: of :class:`~mixtura.core.subclass_model.SubclassModel`.
    """

    subclass_class: Tensor | None

    def __init__(
        self,
        dimension: int,
        n_classes: int,
        n_subclasses: int,
        width: int = 128,
        embedder: str = "linear",
        *,
        subclass_class: Int[Tensor, " R"] | None = None,
        class_scores: str = CLASS_SCORES[0],
        **options: Any,
    ) -> None:
        super().__init__()
        self.embedder, width = embedder_of(embedder, dimension, width)
        self.subclass_mean = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_subclasses, width)))
        self.class_mean = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_classes, width)))
        self.register_buffer("subclass_class", subclass_class)
        self.class_layer, self.on_vectors = None, class_scores == CLASS_SCORES[2]
        if class_scores != CLASS_SCORES[0]:
            self.class_layer = nn.Linear(dimension if self.on_vectors else width, n_classes)
        self._options = options

    def model(self) -> SubclassModel:
        """The means as a model, with a gradient."""
        return SubclassModel(self.subclass_mean, self.class_mean, **self._options)

    def embed(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N W"]:
        """The embeddings of vectors, not scaled to unit length."""
        return self.embedder(x)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """The class log-posteriors of vectors, in nats."""
        v = self.embed(x)
        with torch.autocast(v.device.type, enabled=False):  # bfloat16 has three digits, of scores that span 20 nats
            return self.model().class_posterior(v.float())


class SubclassClassifier(nn.Module):
    """A network with a :class:`SubclassHead`, from batches to class log-posteriors.

    Args:
        network: from photos to vectors.
        head: from vectors to classes.
        stages: the blocks of the network.
    """

    def __init__(self, network: nn.Module, head: SubclassHead, stages: Stages) -> None:
        super().__init__()
        self.network, self.head = network, head
        self.stages, self.first = stages, 0

    def forward(self, batch: Batch) -> Float[Tensor, "N C"]:
        """The class log-posteriors of a batch, in nats."""
        return self.head(self.vectors(batch))

    def embed(self, batch: Batch) -> Float[Tensor, "N W"]:
        """The embeddings of a batch."""
        return self.head.embed(self.vectors(batch))

    def vectors(self, batch: Batch) -> Float[Tensor, "N D"]:
        """The vectors of a batch, which the head takes."""
        return vectors_of(self.network, self.stages, batch, self.first)


class VectorClassifier(nn.Module):
    """A :class:`SubclassHead` on vectors that are there already, which no network has to make.

    Args:
        head: from vectors to classes.
    """

    def __init__(self, head: SubclassHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, batch: Batch) -> Float[Tensor, "N C"]:
        """The class log-posteriors of a batch, in nats."""
        return self.head(batch[VECTOR])

    def embed(self, batch: Batch) -> Float[Tensor, "N W"]:
        """The embeddings of a batch."""
        return self.head.embed(batch[VECTOR])


Embeds = SubclassClassifier | VectorClassifier
"""What gives batches embeddings, by a head with the means of subclasses."""


class AssignedRows:
    """The subclass of each training row; state of a run, which a checkpoint keeps.

    Args:
        rows: of the training photos.
        n_subclasses: R, to keep the share of each subclass in each row; ``None`` to keep one subclass a row.
    """

    def __init__(self, rows: int, n_subclasses: int | None = None) -> None:
        if n_subclasses is None:
            self.assigned = torch.full((rows,), UNASSIGNED)
        else:
            self.assigned = torch.zeros(rows, n_subclasses)

    @property
    def is_made(self) -> bool:
        """Whether any row has a subclass."""
        return bool((self.assigned > 0).any() if self.assigned.is_floating_point() else (self.assigned >= 0).any())

    def of(self, rows: Int[Tensor, " B"]) -> Tensor:
        """The subclasses of some rows, on their device."""
        return self.assigned[rows.cpu()].to(rows.device)

    @property
    def likeliest(self) -> Int[Tensor, " T"]:
        """The subclass of each row, or that with the largest share."""
        if not self.assigned.is_floating_point():
            return self.assigned
        best = self.assigned.max(1)
        return torch.where(best.values > 0, best.indices, UNASSIGNED)

    def set(self, assigned: Tensor, rows: Int[Tensor, " M"]) -> None:
        """Replace the subclasses of some rows; all others have none."""
        self.clear()
        self.assigned[rows] = assigned.to(self.assigned)

    def clear(self) -> None:
        """Take the subclasses of all rows away."""
        self.assigned.fill_(0 if self.assigned.is_floating_point() else UNASSIGNED)

    def update(self, assigned: Int[Tensor, " M"], rows: Int[Tensor, " M"]) -> None:
        """Replace the subclasses of some rows; all others keep theirs."""
        self.assigned[rows.cpu()] = assigned.cpu()

    def tensors(self) -> Mapping[str, Tensor]:
        """The subclasses."""
        return {"assigned": self.assigned}

    def after_step(self, step: int) -> None:
        """Nothing: subclasses are assigned before an epoch."""

    def averaged(self) -> Mapping[str, Tensor]:
        """Nothing."""
        return {}
