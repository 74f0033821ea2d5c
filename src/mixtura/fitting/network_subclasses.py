"""What SCGM-G adds to the training of a network: its head, its loss, and the assignment of photos to subclasses."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mixtura.coarse_sections import SCGM_G, CoarseSection
from mixtura.core.balanced import CHUNK_ENTRIES, Assignment, Balance, assign
from mixtura.core.init import kmeans_plus_plus
from mixtura.core.ownership import mask_others
from mixtura.core.two_levels import SubclassScores, assign_within, share_subclasses
from mixtura.encoders.common import drawn
from mixtura.encoders.stages import Stages
from mixtura.errors import UsageError
from mixtura.names import find
from mixtura.objectives import SUBCLASS_OBJECTIVES
from mixtura.objectives.coarse_to_fine import UNASSIGNED, ScgmG
from mixtura.training.checkpoint import Fact
from mixtura.training.classifier import LABEL, ROW, WEIGHT, outputs
from mixtura.training.embedding import Embedding
from mixtura.training.hooks import Hook, MomentumEncoder
from mixtura.training.setup import Batch, Loss
from mixtura.training.state import evaluating
from mixtura.training.subclasses import AssignedRows, Embeds, SubclassClassifier, SubclassHead

MAX_STEPS = 1000  # of an assignment
ERROR = 1e-2  # of a subclass's own mass, at which an assignment is good enough: most rows settle far earlier
HEADS = {
    "seq_em": ("means", True),
    "seq": ("embeddings", True),
    "fork": ("vectors", True),
    "cls": ("vectors", False),
    "none": ("means", False),
}
"""Name of a head in the section -> where its class scores come from, and whether it has an embedder."""

SOFT_BYTES = 1 << 30  # for the shares of all photos


def network_with_head(
    section: CoarseSection, network: nn.Module, stages: Stages, dimension: int, labels: Int[np.ndarray, " T"],
    classes: Sequence[str], seed: int,
) -> SubclassClassifier:  # fmt: skip
    """A network with a new head, on the device of the network.

    Args:
        section: of the recipe.
        network: from photos to vectors.
        stages: its blocks.
        dimension: of the vectors.
        labels: of the training photos.
        classes: their names.
        seed: of the head's tensors.

    Raises:
        UsageError: there are fewer subclasses than classes, or more than photos.
    """
    check_counts(section, labels, classes)
    n_classes = len(classes)
    counts = counts_of(section, labels, n_classes)
    owner = torch.from_numpy(np.repeat(np.arange(n_classes), counts)) if section.mask else None
    scores, embeds = HEADS[section.head]
    embedder = section.embedder if embeds else "none"
    head = drawn(
        seed,
        lambda: SubclassHead(
            dimension, n_classes, sum(counts), section.dimension, embedder,
            subclass_class=owner, class_scores=scores, variance=section.variance, class_variance=section.class_variance,
            mixture_prior=section.mixture_prior,
        ),
    )  # fmt: skip
    device = next(network.parameters()).device
    return SubclassClassifier(network, head.to(device), stages)


def check_counts(section: CoarseSection, labels: Int[np.ndarray, " T"], classes: Sequence[str]) -> None:
    """Check the number of subclasses that the section gives.

    Args:
        section: of the recipe, with a number.
        labels: of the training photos.
        classes: their names.

    Raises:
        UsageError: there are fewer subclasses than classes, or more than photos.
    """
    given, sizes = section.subclasses, np.bincount(labels, minlength=len(classes)).tolist()
    assert given is not None, "a number is settled before"
    if not isinstance(given, tuple):
        if not len(classes) <= given <= len(labels):
            raise UsageError(
                f"coarse.subclasses is {given}, with {len(classes)} classes and {len(labels)} training photos. Give a "
                "number between these."
            )
        return
    if len(given) != len(classes):
        raise UsageError(f"coarse.subclasses has {len(given)} numbers for {len(classes)} classes. Give one per class.")
    for own, size, name in zip(given, sizes, classes, strict=True):
        if own > size:
            raise UsageError(
                f"coarse.subclasses asks for {own} subclasses of class {name!r}, which has {size} training photos. "
                "Give at most as many."
            )


def counts_of(section: CoarseSection, labels: Int[np.ndarray, " T"], n_classes: int) -> tuple[int, ...]:
    """The subclasses of each class, by its share of the training photos; with a list in the section, as given there."""
    given = section.subclasses
    assert given is not None, "a number is settled before"
    if isinstance(given, tuple):
        return given
    shares = share_subclasses(torch.bincount(torch.from_numpy(labels), minlength=n_classes), given)
    return tuple(shares.tolist())


@dataclass(frozen=True, eq=False)
class SubclassTraining:
    """The training of one network: its loss, and what is done before an epoch.

    Args:
        section: of the recipe.
        classifier: that is trained.
        labels: of the training photos.
        batches: gives this process's training photos without random views, each once.
        seed: of k-means.
        assignment: of the training photos.
        teacher: slow copy of the classifier; ``None`` without distillation.
        say: shows a sentence, such as that an assignment has not converged; each is said once.
    """

    section: CoarseSection
    classifier: Embeds
    labels: Int[np.ndarray, " T"]
    batches: Callable[[], Iterable[Batch]]
    seed: int
    assignment: AssignedRows
    teacher: MomentumEncoder | None
    say: Callable[[str], None]
    _said: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls, section: CoarseSection, classifier: Embeds, labels: Int[np.ndarray, " T"],
        batches: Callable[[], Iterable[Batch]], seed: int, say: Callable[[str], None],
    ) -> "SubclassTraining":  # fmt: skip
        """With no row assigned yet.

        Raises:
            UsageError: the shares of soft assignments would take too much memory.
        """
        count = len(classifier.head.subclass_mean)
        if section.soft and 4 * len(labels) * count > SOFT_BYTES:
            raise UsageError(
                f"The shares of {len(labels)} photos in {count} subclasses do not fit into {SOFT_BYTES >> 20} MiB. "
                "Leave out coarse.soft, or lower coarse.subclasses."
            )
        teacher = None
        if section.distill.weight:
            teacher = MomentumEncoder(classifier, section.distill.momentum).eval()
        kept = AssignedRows(len(labels), count if section.soft else None)
        return cls(section, classifier, labels, batches, seed, kept, teacher, say)

    @cached_property
    def objective(self) -> ScgmG:
        """The loss, of embeddings."""
        section = self.section
        make = find(SUBCLASS_OBJECTIVES, SCGM_G).from_options
        distill = section.distill
        return make(section.weight, section.angular, section.normalize, distill.weight, distill.temperature)

    @property
    def hooks(self) -> dict[str, Hook]:
        """The state beside the network."""
        teacher: dict[str, Hook] = {} if self.teacher is None else {"teacher": self.teacher}
        return {"subclasses": self.assignment} | teacher

    @property
    def facts(self) -> dict[str, Fact]:
        """What must be equal when a run goes on."""
        return {f"coarse.{key}": str(value) for key, value in self.section.model_dump().items()}

    @property
    def logged(self) -> tuple[str, ...]:
        """The names of what the loss logs."""
        return "accuracy", "class_loss", "subclass_loss", "owner_loss"

    def loss(self, module: nn.Module, batch: Batch) -> Loss:
        """The loss of a batch in nats, its terms, and the accuracy of the class through the subclasses."""
        assert isinstance(module, Embeds)
        objective, labels = self.objective, batch[LABEL]
        embedding = module.embed(batch)
        with torch.autocast(embedding.device.type, enabled=False):  # see SubclassHead.forward
            v, assigned = embedding.float(), self.assignment.of(batch[ROW])
            model = module.head.model()
            loss, terms = objective(model, v, labels, assigned, batch[WEIGHT])
            if self.teacher is not None and self.assignment.is_made:  # before, nobody knows subclasses
                loss = (1 - objective.distill_weight) * loss + objective.distill_weight * self._taught(module, v, batch)
            with torch.no_grad():
                right = (model.class_posterior(v).argmax(1) == labels).double().mean()
        return loss, {"accuracy": right, **terms}

    def _taught(self, module: Embeds, v: Tensor, batch: Batch) -> Tensor:
        assert self.teacher is not None
        slow = self.teacher.network
        assert isinstance(slow, Embeds)
        with torch.no_grad():
            taught, means = slow.embed(batch).float(), slow.head.model()
        return self.objective.distilled(module.head.model(), v, means, taught, batch[LABEL], batch[WEIGHT])

    def before(self, epoch: int) -> None:
        """Assign the photos to subclasses, if it is time; every process must call it.

        The network is in evaluation mode and sees the photos without random views, and every photo that can be read is
        assigned. A network that is in training mode and sees random views gives assignments that are mostly noise.

        Raises:
            DataError: an embedding is not finite.
        """
        since = epoch - self.section.warmup
        if since < 0 or since % self.section.every:
            return
        with evaluating(self.classifier), torch.no_grad():
            v, rows, labels = self._embedded(self.batches(), self.labels)
            if not since and self.section.init == "kmeans":
                self._start_at_centers(v, labels)
            found = self._assigned(v, labels)
            if (said := found.objection(ERROR)) and not self._said:
                self._said.add(said)
                self.say(said)
            self.assignment.set(self._shares(found, v, labels) if self.section.soft else found.labels, rows)

    def forget(self) -> None:
        """Drop the assignment of steps that only measured, before the first one."""
        self.assignment.clear()

    def rehearse(self) -> None:
        """Assign as :meth:`before` does and change nothing, to see how long it takes; every process must call it."""
        with evaluating(self.classifier), torch.no_grad():
            v, _, labels = self._embedded(self.batches(), self.labels)
            self._assigned(v, labels)

    def settled(
        self, batches: Iterable[Batch], labels: Int[np.ndarray, " N"], learned: Bool[np.ndarray, " N"]
    ) -> Int[np.ndarray, " N"]:
        """The subclass of each photo by the network as it is, :data:`UNASSIGNED` for one that is unreadable.

        The training photos share the subclasses. Each subclass then belongs to the class with most of its photos, and
        each photo has the most suitable one of its own class, if that has any. Every process must call it.

        Args:
            batches: this process's share of all photos, without random views, each once.
            labels: class of each photo.
            learned: which are training photos.

        Raises:
            DataError: an embedding is not finite.
        """
        found = np.full(len(labels), UNASSIGNED)
        with evaluating(self.classifier), torch.no_grad():
            v, rows, own = self._embedded(batches, labels)
            train = torch.from_numpy(learned)[rows]
            shared = self._assigned(v[train], own[train])
            table = torch.zeros(len(self.classifier.head.class_mean), len(shared.mass), dtype=torch.int64)
            table.index_put_((own[train], shared.labels), torch.ones_like(shared.labels), accumulate=True)
            owner = torch.where(table.sum(0) > 0, table.argmax(0), -1)
            size = max(1, CHUNK_ENTRIES // len(self.classifier.head.subclass_mean))
            parts = zip(v.split(size), own.split(size), strict=True)
            found[rows] = torch.cat([self._best(shared, owner, *part) for part in parts]).numpy()
        return found

    def _embedded(
        self, batches: Iterable[Batch], labels: Int[np.ndarray, " N"]
    ) -> tuple[Float[Tensor, "M W"], Int[Tensor, " M"], Int[Tensor, " M"]]:
        """The embeddings of the photos that can be read, of all processes, with their rows and classes."""
        v, rows = outputs(Embedding(self.classifier), batches, ROW)
        return v, rows, torch.from_numpy(labels)[rows]

    def _start_at_centers(self, v: Float[Tensor, "N W"], labels: Int[Tensor, " N"]) -> None:
        """Begin with subclass means at the centers of k-means within each class."""
        unit, found = nn.functional.normalize(v, dim=1), []
        head = self.classifier.head
        counts = counts_of(self.section, self.labels, len(head.class_mean))
        generator = torch.Generator().manual_seed(self.seed)
        for c, count in enumerate(counts):
            own = unit[labels == c]
            cluster = kmeans_plus_plus(own, min(count, len(own)), generator)
            centers = torch.stack([own[cluster == k].mean(0) for k in cluster.unique()])
            found.append(centers[torch.arange(count) % len(centers)])
        head.subclass_mean.copy_(torch.cat(found))
        if self.teacher is not None:  # else it would pull towards means of other subclasses
            slow = self.teacher.network
            assert isinstance(slow, Embeds)
            slow.head.subclass_mean.copy_(head.subclass_mean)

    def _assigned(self, v: Float[Tensor, "N W"], labels: Int[Tensor, " N"]) -> Assignment:
        """The assignment of some rows to the subclasses, which they share."""
        head, section = self.classifier.head, self.section
        strength = math.inf if section.strength is None else section.strength
        balance = Balance(section.regularization, strength, MAX_STEPS, ERROR)
        if head.subclass_class is None:
            return assign(self._scores(v, labels), balance=balance)
        counts = torch.bincount(head.subclass_class.cpu(), minlength=len(head.class_mean))
        return assign_within(self._scores(v, labels), labels, counts, balance)

    def _best(
        self, found: Assignment, owner: Int[Tensor, " R"], v: Float[Tensor, "N W"], labels: Int[Tensor, " N"]
    ) -> Int[Tensor, " N"]:
        """The subclass of each row among those of its class; :data:`UNASSIGNED` where that has none."""
        score = mask_others(self._scores(v, labels).chunk(0, len(v)), owner, labels) / found.regularization
        best = (score + found.potential.to(score.dtype)).max(1)
        return torch.where(best.values > -torch.inf, best.indices, UNASSIGNED)

    def _shares(self, found: Assignment, v: Float[Tensor, "N W"], labels: Int[Tensor, " N"]) -> Float[Tensor, "N R"]:
        """The share of each subclass in each row."""
        score, owner = self._scores(v, labels).chunk(0, len(v)), self.classifier.head.subclass_class
        return found.responsibilities(score if owner is None else mask_others(score, owner.cpu(), labels))

    def _scores(self, v: Float[Tensor, "N W"], labels: Int[Tensor, " N"]) -> SubclassScores:
        model = self.classifier.head.model()
        return SubclassScores(v, labels, model.mean.cpu(), model.superclass_table().cpu(), self.section.variance)
