"""What SupCon, ANCOR and MaskCon add to the training of a network: its head, its loss, and what validates it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mixtura.coarse_sections import COARSE_KEYS, CoarseSection
from mixtura.encoders.common import drawn
from mixtura.encoders.stages import Stages
from mixtura.names import find
from mixtura.objectives import PAIR_OBJECTIVES
from mixtura.training.checkpoint import Fact
from mixtura.training.classifier import LABEL, outputs, scored
from mixtura.training.contrast import SlowKeys
from mixtura.training.embedding import Embedding, EmbeddingClassifier, EmbeddingHead
from mixtura.training.hooks import Hook
from mixtura.training.queues import Queues, queue_sizes
from mixtura.training.setup import Batch, Loss
from mixtura.training_sections import TrainSection

MOMENTUM = 0.99
OPTIONS = {
    "temperature": "contrast_temperature",
    "target_weight": "target_weight",
    "target_temperature": "target_temperature",
}
"""Option of an objective -> key of the section."""


def network_with_embedder(
    coarse: CoarseSection, network: nn.Module, stages: Stages, dimension: int, n_classes: int, seed: int
) -> EmbeddingClassifier:
    """A network with a new embedder, on the device of the network.

    Args:
        coarse: the section of the recipe.
        network: from photos to vectors.
        stages: its blocks.
        dimension: of the vectors.
        n_classes: that have weights below which the embedder is; 0 for none.
        seed: of the head's tensors.
    """
    head = drawn(seed, lambda: EmbeddingHead(dimension, n_classes, coarse.dimension, coarse.embedder))
    return EmbeddingClassifier(network, head.to(next(network.parameters()).device), stages)


def learns_classes(section: TrainSection) -> bool:
    """Whether embeddings have class scores, which the objective of a section lowers the loss of."""
    return section.objective not in PAIR_OBJECTIVES or find(PAIR_OBJECTIVES, section.objective).learns_classes


@dataclass(frozen=True, eq=False)
class ContrastTraining:
    """The training of one network on two views of each photo.

    Args:
        coarse: the section of the recipe.
        objective: of embeddings and keys.
        keys: makes the keys, and has those of earlier photos.
        n_classes: C.
    """

    coarse: CoarseSection
    objective: Any
    keys: SlowKeys
    n_classes: int

    @classmethod
    def of(
        cls, section: TrainSection, coarse: CoarseSection, classifier: EmbeddingClassifier,
        labels: Int[np.ndarray, " T"], n_classes: int,
    ) -> "ContrastTraining":  # fmt: skip
        """With empty queues, and a slow copy of the classifier.

        Args:
            section: the section ``train`` of the recipe.
            coarse: the section ``coarse``.
            classifier: that is trained.
            labels: of the training photos.
            n_classes: C.
        """
        kind = find(PAIR_OBJECTIVES, section.objective)
        own = {option: getattr(coarse, key) for option, key in OPTIONS.items() if key in COARSE_KEYS[section.objective]}
        objective = kind.from_options(**{option: value for option, value in own.items() if value is not None})
        sizes = queue_sizes(coarse.queue_size, torch.from_numpy(labels), n_classes)
        sizes = sizes if kind.queue_of_class else (min(coarse.queue_size, len(labels)),)
        queues = Queues(sizes, classifier.head.width, next(classifier.parameters()).device)
        momentum = MOMENTUM if section.momentum_encoder is None else section.momentum_encoder
        return cls(coarse, objective, SlowKeys.of(Embedding(classifier), momentum, queues), n_classes)

    @property
    def hooks(self) -> dict[str, Hook]:
        """The state beside the network."""
        return self.keys.hooks

    @property
    def facts(self) -> dict[str, Fact]:
        """What must be equal when a run goes on."""
        return {f"coarse.{key}": str(value) for key, value in self.coarse.model_dump().items()}

    @property
    def logged(self) -> tuple[str, ...]:
        """The names of what the loss logs."""
        return ("accuracy", "class_loss", "contrast_loss") if self.objective.learns_classes else ()

    def forget(self) -> None:
        """Drop the keys of steps that only measured, before the first one."""
        if self.keys.queues is not None:
            self.keys.queues.clear()

    def loss(self, module: nn.Module, batch: Batch) -> Loss:
        """The loss of a batch in nats and, where classes are learned, its terms and the accuracy."""
        assert isinstance(module, EmbeddingClassifier)
        embedding, weight = module.embed(batch), module.head.class_weight
        with torch.autocast(embedding.device.type, enabled=False):  # bfloat16 has three digits, of scores over 0.1
            v = embedding.float()
            pairs = self.keys.pairs(v, batch)
            if weight is None:
                return self.objective(pairs)
            loss, terms = self.objective(pairs, weight)
            with torch.no_grad():
                right = ((v @ weight.T).argmax(1) == batch[LABEL]).double().mean()
        return loss, {"accuracy": right, **terms}

    def scored(self, module: nn.Module, batches: Iterable[Batch]) -> tuple[Float[Tensor, "N C"], Int[Tensor, " N"]]:
        """Class scores and class of each row of some batches, on the CPU.

        Where no classes are learned, a score is the cosine to the mean of the class's keys in the queue, which are of
        training photos.

        Raises:
            NoInput: there is no row.
        """
        assert isinstance(module, EmbeddingClassifier)
        if module.head.class_weight is not None:
            return scored(module, batches)
        v, labels = outputs(module, batches, LABEL)
        return functional.normalize(v.double(), dim=1) @ self._class_means().T, labels

    def _class_means(self) -> Float[Tensor, "C W"]:
        """The mean direction of the keys of each class; zero for a class without."""
        assert self.keys.queues is not None
        keys = self.keys.queues.all()
        sums = torch.zeros(self.n_classes, keys.key.shape[1], dtype=torch.float64)
        return functional.normalize(sums.index_add_(0, keys.label.cpu(), keys.key.cpu().double()), dim=1)
