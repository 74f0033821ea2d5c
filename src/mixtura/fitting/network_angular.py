"""What SCGM-A adds to the training of a network: keys of a second view beside the assignment to subclasses."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mixtura.coarse_sections import SCGM_A, CoarseSection
from mixtura.core.balanced import ONLINE, assign_batch
from mixtura.core.subclass_model import SubclassModel
from mixtura.fitting.network_contrast import MOMENTUM
from mixtura.fitting.network_subclasses import SubclassTraining
from mixtura.names import find
from mixtura.objectives import SUBCLASS_OBJECTIVES
from mixtura.objectives.angular import ScgmA
from mixtura.objectives.contrast import Pairs
from mixtura.training import distributed
from mixtura.training.checkpoint import Fact
from mixtura.training.classifier import LABEL, ROW, without_rows
from mixtura.training.contrast import SlowKeys
from mixtura.training.embedding import Embedding
from mixtura.training.hooks import Hook
from mixtura.training.queues import Queues, queue_sizes
from mixtura.training.setup import Batch, Loss
from mixtura.training.subclasses import Embeds, SubclassClassifier, SubclassHead
from mixtura.training_sections import TrainSection


@dataclass(frozen=True, eq=False)
class AngularTraining:
    """The training of one network: its loss, and what is done before an epoch.

    Args:
        subclasses: assigns photos to subclasses.
        keys: makes the keys of second views, and has those of earlier photos.
    """

    subclasses: SubclassTraining
    keys: SlowKeys

    @classmethod
    def of(cls, section: TrainSection, subclasses: SubclassTraining) -> "AngularTraining":
        """With empty queues, and a slow copy of the classifier.

        Args:
            section: the section ``train`` of the recipe.
            subclasses: of the same network.
        """
        coarse, classifier, labels = subclasses.section, subclasses.classifier, torch.from_numpy(subclasses.labels)
        means = classifier.head.class_mean
        sizes = queue_sizes(coarse.queue_size, labels, len(means)) if coarse.queue == "multi" else None
        queues = None if coarse.queue == "none" else Queues(
            sizes or (min(coarse.queue_size, len(labels)),), means.shape[1], means.device
        )  # fmt: skip
        momentum = MOMENTUM if section.momentum_encoder is None else section.momentum_encoder
        return cls(subclasses, SlowKeys.of(Embedding(classifier), momentum, queues))

    @cached_property
    def objective(self) -> ScgmA:
        """The loss, of embeddings and keys."""
        own = self.coarse
        given = {} if own.contrast_temperature is None else {"temperature": own.contrast_temperature}
        make = find(SUBCLASS_OBJECTIVES, SCGM_A).from_options
        return make(own.weight, own.class_temperature, metric=own.metric, losses=own.losses, **given)

    @property
    def coarse(self) -> CoarseSection:
        """The section of the recipe."""
        return self.subclasses.section

    @property
    def classifier(self) -> Embeds:
        """The network that is trained."""
        return self.subclasses.classifier

    @property
    def hooks(self) -> dict[str, Hook]:
        """The state beside the network."""
        return self.subclasses.hooks | self.keys.hooks

    @property
    def facts(self) -> dict[str, Fact]:
        """What must be equal when a run goes on."""
        return self.subclasses.facts

    @property
    def logged(self) -> tuple[str, ...]:
        """The names of what the loss logs."""
        return "accuracy", "class_loss", "contrast_loss", "subclass_loss", "owner_loss"

    def forget(self) -> None:
        """Drop the keys and the assignment of steps that only measured, before the first one."""
        self.subclasses.forget()
        if self.keys.queues is not None:
            self.keys.queues.clear()

    def loss(self, module: nn.Module, batch: Batch) -> Loss:
        """The loss of a batch in nats, its terms, and the accuracy of the class through the subclasses."""
        assert isinstance(module, SubclassClassifier)
        x, kept, head = module.vectors(batch), self.subclasses.assignment, module.head
        embedding = head.embed(x)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 has three digits, of scores over 0.1
            v, model = embedding.float(), head.model()
            pairs = self.keys.pairs(v, batch)
            self._assign(model, pairs)
            of_row = kept.likeliest.to(v.device)
            loss, terms = self.objective(model, self.scores(head, x.float(), v), pairs, kept.of(batch[ROW]), of_row)
            with torch.no_grad():
                right = (model.class_posterior(v).argmax(1) == batch[LABEL]).double().mean()
        return loss, {"accuracy": right, **terms}

    def scores(self, head: SubclassHead, x: Float[Tensor, "N D"], v: Float[Tensor, "N W"]) -> Float[Tensor, "N C"]:
        """The class scores of the first term."""
        if head.class_layer is not None:
            return head.class_layer(x if head.on_vectors else v)
        v = functional.normalize(v, dim=1) if self.coarse.normalize_head else v
        return v.relu() @ head.class_mean.T

    @property
    def in_steps(self) -> bool:
        """Whether the photos of a step are assigned in it, once all have been."""
        return self.coarse.assign == "steps"

    def without_rows(self, module: nn.Module, batch: Batch) -> Tensor:
        """A loss of zero of a batch without rows; keys are exchanged and photos assigned all the same."""
        assert isinstance(module, SubclassClassifier)
        self._assign(module.head.model(), self.keys.none(module.head.class_mean.shape[1], batch))
        return without_rows(module, batch)

    @torch.no_grad()
    def _assign(self, model: SubclassModel, pairs: Pairs) -> None:
        """Assign the photos of a step, if it is time; they share the subclasses with the keys of earlier photos."""
        if not (self.in_steps and self.subclasses.assignment.is_made):
            return
        v, labels, rows = (distributed.gathered(one) for one in (pairs.v.detach(), pairs.own.label, pairs.own.row))
        queues, earlier = self.keys.queues, None
        if queues is not None:
            keys = queues.all()
            earlier = model.score(keys.key.to(v), keys.label)
        balance = replace(ONLINE, regularization=self.coarse.regularization)
        self.subclasses.assignment.update(assign_batch(model.score(v, labels), earlier, balance=balance).labels, rows)

    def before(self, epoch: int) -> None:
        """Assign all photos to subclasses, if it is time; every process must call it."""
        if not (self.in_steps and self.subclasses.assignment.is_made):
            self.subclasses.before(epoch)

    def rehearse(self) -> None:
        """Assign and change nothing, to see how long it takes; every process must call it."""
        self.subclasses.rehearse()

    def settled(
        self, batches: Iterable[Batch], labels: Int[np.ndarray, " N"], learned: Bool[np.ndarray, " N"]
    ) -> Int[np.ndarray, " N"]:
        """The subclass of each photo; see :meth:`~.network_subclasses.SubclassTraining.settled`."""
        return self.subclasses.settled(batches, labels, learned)


FindsSubclasses = SubclassTraining | AngularTraining
"""What assigns photos to subclasses as a network is trained."""
