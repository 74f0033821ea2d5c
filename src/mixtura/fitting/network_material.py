"""What every part of an encoder's network is trained with: photos, settings, and the network as it begins."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.coarse_sections import CONDITIONAL, CONTRASTS, FINDS_SUBCLASSES, SCGM_G, CoarseSection
from mixtura.encoders.common import drawn
from mixtura.encoders.stages import stages_of
from mixtura.features.records import Unreadable
from mixtura.fitting import network_contrast, network_head, network_subclasses
from mixtura.fitting.heads import HeadSpec
from mixtura.fitting.network_angular import AngularTraining, FindsSubclasses
from mixtura.fitting.network_contrast import ContrastTraining
from mixtura.fitting.network_episodes import NetworkEpisodes, episodes_of
from mixtura.fitting.network_subclasses import SubclassTraining
from mixtura.heads.base import Head
from mixtura.heads.linear import LinearHead
from mixtura.interfaces import TrainableEncoder
from mixtura.pipeline import factory, network_setup
from mixtura.pipeline.training_photos import TrainingPhotos
from mixtura.records.training import TrainingProgress
from mixtura.training import distributed
from mixtura.training.activations import chunks, with_activations
from mixtura.training.classifier import Classifier
from mixtura.training.embedding import EmbeddingClassifier
from mixtura.training.episodic import Embedder, EpisodeOrder
from mixtura.training.loaders import Batch, Loader
from mixtura.training.order import Order
from mixtura.training.reconstructor import Reconstructor
from mixtura.training.subclasses import SubclassClassifier
from mixtura.training_sections import PROTOTYPICAL, TrainSection

FIRST_PHOTOS = 100  # of each class, to which a head is fitted before its network has learned anything


@dataclass(frozen=True)
class Material:
    """What every part of a network is trained with.

    Args:
        section: how.
        encoder: whose network it is. One with weights has no taps here: by these, the head would know the photos by
            heart before the network has learned anything from them.
        photos: training and validation photos.
        start: the vectors of the training photos by the encoder as it is; ``None`` where it has no incumbent: its
            weights are drawn, or it is trained for reconstruction, which looks at no classes.
        seed: of order, views, and drawn weights.
        workers: threads that decode.
        progress: called after each step.
        head: that is trained jointly; ``None`` for a linear one.
        coarse: the embedder, and what else the objective reads of the section; ``None`` without.
    """

    section: TrainSection
    encoder: TrainableEncoder
    photos: TrainingPhotos
    start: Float[Tensor, "T D"] | None
    seed: int
    workers: int
    progress: Callable[[TrainingProgress], None] | None = None
    head: HeadSpec | None = None
    coarse: CoarseSection | None = None

    @cached_property
    def episodes(self) -> NetworkEpisodes | None:
        """What the network is trained and validated by, if that is episodes.

        Raises:
            UsageError: there are fewer classes or photos than an episode needs.
        """
        design = self.section.episode_design
        return None if design is None else episodes_of(design, self.photos, self.seed)

    @property
    def used(self) -> TrainingPhotos:
        """The photos as the network uses them: those of the fit, unless episodes keep classes apart."""
        return self.photos if self.episodes is None else self.episodes.photos

    @property
    def facts(self) -> dict[str, str]:
        """What must be equal of the data when a run goes on: photos and their parts, and the episodes, if any."""
        drawn = {} if self.episodes is None else {"episodes": self.episodes.digest}
        return {"data": self.used.digest} | drawn

    @property
    def order(self) -> Order | EpisodeOrder:
        """Which training photos each step takes."""
        if self.episodes is not None:
            return self.episodes.order
        labels = self.photos.labels[self.photos.training]
        size = min(self.section.batch_size, len(labels))
        return Order(self.seed, len(labels), size, labels, self.section.balance)

    @property
    def pretrained(self) -> bool:
        """Whether the start is an incumbent, with weights worth keeping; never so in reconstruction."""
        return self.start is not None

    def classifier(self) -> Classifier:
        """The network as it begins, with its head."""
        network = self.encoder.network()
        device = next(network.parameters()).device
        head = distributed.of_first(lambda: self._first_head(network))
        return Classifier(network, head.to(device), stages_of(self.encoder, network))

    def module(self) -> network_setup.Trained:
        """The network as it begins, with what the objective wants on it: a head, a decoder, or nothing."""
        if self.section.objective == CONDITIONAL and self.coarse is None:
            return self.classifier()
        network = self.encoder.network()
        if self.section.objective in FINDS_SUBCLASSES:
            assert self.coarse is not None
            return network_subclasses.network_with_head(
                self.coarse, network, stages_of(self.encoder, network), self.encoder.dimension, self.training_labels,
                self.photos.classes, self.seed,
            )  # fmt: skip
        if self.coarse is not None:
            classes = len(self.photos.classes) if network_contrast.learns_classes(self.section) else 0
            return network_contrast.network_with_embedder(
                self.coarse, network, stages_of(self.encoder, network), self.encoder.dimension, classes, self.seed
            )
        if self.section.objective == PROTOTYPICAL:
            return Embedder(network, stages_of(self.encoder, network))
        device = next(network.parameters()).device
        decoder = factory.decoder_of(self.encoder, self.seed).to(device)
        return Reconstructor(network, decoder, stages_of(self.encoder, network))

    @property
    def training_labels(self) -> Int[np.ndarray, " T"]:
        """The class of each training photo."""
        return self.used.labels[self.used.training]

    @property
    def keeps_last(self) -> bool:
        """Whether the last epoch is kept, and not the one that is best by validation."""
        return self.section.keeps_kinds_apart and self.coarse is not None and self.coarse.select == "last"

    def subclasses(self, classifier: SubclassClassifier, say: Callable[[str], None]) -> FindsSubclasses:
        """What finds subclasses as a network is trained, whose blocks below its ``first`` stay as they are.

        Args:
            classifier: the network.
            say: shows a sentence to the user.
        """
        assert self.coarse is not None
        batches = partial(self._plain, classifier, self.used.training)
        found = SubclassTraining.of(self.coarse, classifier, self.training_labels, batches, self.seed, say)
        return found if self.section.objective == SCGM_G else AngularTraining.of(self.section, found)

    def contrast(self, classifier: EmbeddingClassifier) -> ContrastTraining | None:
        """What compares views as a network is trained; ``None`` where nothing does."""
        if self.section.objective not in CONTRASTS:
            return None
        assert self.coarse is not None
        classes = len(self.photos.classes)
        return ContrastTraining.of(self.section, self.coarse, classifier, self.training_labels, classes)

    def settled_subclasses(self, found: FindsSubclasses) -> Int[np.ndarray, " N"]:
        """The subclass of each photo by a trained network; every process must call it."""
        every = np.arange(len(self.used.labels))
        assert isinstance(found.classifier, SubclassClassifier)
        batches = self._plain(found.classifier, every)
        return found.settled(batches, self.used.labels, ~self.used.is_validation)

    def _plain(self, classifier: SubclassClassifier, rows: Int[np.ndarray, " M"]) -> Iterator[Batch]:
        """This process's share of some photos, without random views, as far as a classifier takes them."""
        own = np.asarray(distributed.own_rows(len(rows)))
        below = partial(with_activations, network=classifier.network, stages=classifier.stages, first=classifier.first)
        batches = self._loader(rows, False).read([own[part] for part in chunks(len(own), self.section.batch_size)])
        return map(below, batches)

    def _first_head(self, network: nn.Module) -> Head:
        """The head as it begins: fitted to the vectors of the network as it is, if it is trained jointly.

        A linear head that only serves for training starts from zero where the network comes with weights. One that is
        fitted to the training photos is steep where it errs on another view of them, and in two epochs the network
        loses what it knew.
        """
        labels, count = torch.from_numpy(self.photos.labels[self.photos.training]), len(self.photos.classes)
        if self.head is None and self.start is not None:
            return LinearHead.from_rows(self.start, labels, count, start="zeros")
        if self.head is None:
            return drawn(self.seed, lambda: LinearHead(self.encoder.dimension, count))
        if self.start is not None:
            return network_head.fitted_head(self.head, self.start, labels, count)
        x, labels = network_head.drawn_vectors(network, self._first_batches(labels), self.seed)
        return network_head.fitted_head(self.head, x, labels, count)

    def _first_batches(self, labels: Tensor) -> list[Batch]:
        """Some photos of each class, without random views, to which the head of a drawn network is fitted."""
        mixed = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed))
        own = nn.functional.one_hot(labels[mixed])
        few = mixed[(own.cumsum(0) * own).amax(1) <= FIRST_PHOTOS].numpy()
        rows = [few[part] for part in chunks(len(few), self.section.batch_size)]
        loader = self._loader(self.photos.training, False)
        batches = [batch for batch in loader.read(rows) if len(batch["row"])]
        return [batch for batch in batches if len(batch["row"]) > 1] or batches  # one row has no statistics

    @cached_property
    def training(self) -> Loader:
        """The training photos, each time in another view."""
        return self._loader(self.used.training, True)

    @cached_property
    def validation(self) -> Loader:
        """The validation photos, as they are encoded in prediction."""
        return self._loader(self.used.validation, False)

    def _loader(self, rows: Any, views: bool) -> Loader:
        augmentation = network_setup.augmentation_of(self.section, self.seed) if views else None
        dataset = self.used.dataset.subset(rows)
        weights = torch.tensor([item.weight for item in dataset.items], dtype=torch.float64).numpy()
        return Loader(
            dataset, self.encoder, self.used.labels[rows], weights=weights if views else None,
            augmentation=augmentation, workers=self.workers,
        )  # fmt: skip

    def with_section(self, section: TrainSection) -> "Material":
        """The same photos for another training; what was decoded is kept, where the views stay."""
        made = replace(self, section=section)
        made.__dict__["validation"] = self.validation
        if section.augment == self.section.augment:
            made.__dict__["training"] = self.training
        return made

    @property
    def problems(self) -> tuple[Unreadable, ...]:
        """The photos that could not be read."""
        return (*self.training.problems, *self.validation.problems)
