"""What few-shot classifiers work on: the rows they read, what they learn once from base classes, and their scores."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.catalog import create, statistics
from mixtura.catalog.statistics import FittedStatistics
from mixtura.core import few_shot, transduction
from mixtura.core.axes import axes_of
from mixtura.datasets.items import Problem
from mixtura.errors import UsageError
from mixtura.features.nonlinear import Power
from mixtura.features.projection import L2
from mixtura.features.records import Features, Unreadable
from mixtura.fitting.fit import learn_density
from mixtura.model.model import Model
from mixtura.pipeline.training_set import Gathered
from mixtura.recipe import Recipe
from mixtura.sections import DataSection, EncoderSection

Scores = Callable[[Float[Tensor, "E W S D"], Float[Tensor, "E M D"]], Float[Tensor, "E M W"]]
TWO = 2  # classes, of which scikit-learn scores the second alone
CALIBRATION_AXES, AXES_ROWS = 64, 1000  # principal axes of the base classes, and rows that they are found from, at most


@dataclass(frozen=True)
class Space:
    """Rows of the novel items as a classifier reads them, and its scores of many episodes at once.

    ``numbers`` is what it needs in memory for one item of an episode, in numbers.
    """

    rows: Float[Tensor, "N D"]
    scores: Scores
    numbers: int


@dataclass(frozen=True)
class Material:
    """Features of the novel items and of the base classes; ``model`` is the one of the base classes if there is one.

    ``recipe`` says how a model is fitted to the base classes otherwise; ``problems`` are the files that were left out.
    ``normalize``: classifiers without a space of their own read vectors of unit length. ``photos`` say where the novel
    items lie, if they are not features. ``embedder`` maps the network's own numbers, which features begin with,
    before any classifier reads them.
    """

    novel: Features
    base: Features | None
    recipe: Recipe
    encoder: EncoderSection
    model: Model | None = None
    problems: tuple[Problem | Unreadable, ...] = ()
    normalize: bool = True
    photos: DataSection | None = None
    embedder: nn.Module | None = None

    @cached_property
    def unit(self) -> Float[Tensor, "N D"]:
        """The novel items' features, scaled to unit length."""
        return L2()(torch.from_numpy(self.novel.embedding))

    @cached_property
    def raw(self) -> Float[Tensor, "N D"]:
        """The novel items' features as they are, about their mean: distances stay, and squares keep their digits."""
        rows = torch.from_numpy(self.novel.embedding).float()
        return rows - rows.mean(0)

    def embedded(self) -> "Material":
        """The same with features that the embedder has mapped, of which the model knows nothing."""
        if self.embedder is None:
            return self
        base = None if self.base is None else _mapped(self.base, self.embedder)
        return replace(self, novel=_mapped(self.novel, self.embedder), base=base, model=None, embedder=None)

    @property
    def known(self) -> Features:
        """The items of the base classes.

        Raises:
            UsageError: there are none.
        """
        if self.base is None:
            raise UsageError(
                "gaussian and calibration borrow from base classes, and there are none. Give some with --base, or a "
                "model that knows them; or choose other classifiers with --classifier."
            )
        return self.base

    @cached_property
    def enrolling(self) -> FittedStatistics:
        """The model of the base classes, as a catalog has it when products are enrolled.

        Raises:
            UsageError: it has a head with a fixed set of classes.
            LabelError: the base classes have too few items for a fit.
        """
        known = self.known
        model = self.model or learn_density(self.recipe, Gathered(known, self.encoder, ()))
        statistics.check(model)
        items = create.items_of(model, known, model.classes)
        floor = statistics.floor_of(model, items, self.recipe.head.variance_floor)
        return statistics.base_of(model, statistics.sums_of(model.mixture, items), floor)


def _plain(material: Material, scores: Scores) -> Space:
    rows = material.unit if material.normalize else material.raw
    return Space(rows, scores, rows.shape[1])


def prototype(material: Material) -> Space:
    """Nearest class mean of features of unit length."""
    return _plain(material, few_shot.prototype)


def raw_prototype(material: Material) -> Space:
    """Nearest class mean of features as they are: what a prototypical network is trained for."""
    return Space(material.raw, few_shot.prototype, material.raw.shape[1])


def nearest(material: Material) -> Space:
    """Nearest support item by features of unit length."""
    return _plain(material, few_shot.nearest)


def cosine(material: Material) -> Space:
    """Largest cosine with the class mean of features of unit length, or of features as they are."""
    rows = material.unit if material.normalize else torch.from_numpy(material.novel.embedding).float()
    return Space(rows, few_shot.cosine, rows.shape[1])


def logistic(material: Material) -> Space:
    """Logistic regression on features of unit length, L2 penalty with C = 1."""
    return _plain(material, few_shot.logistic)


def knn(material: Material) -> Space:
    """Five nearest support items, weighted by inverse distance."""
    return _plain(material, few_shot.knn)


def sgd_logistic(material: Material) -> Space:
    """Logistic regression by scikit-learn's SGDClassifier, with its defaults, for one episode after another."""
    return _plain(material, _by_sgd)


def _by_sgd(support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"]) -> Float[Tensor, "E M W"]:
    from sklearn.linear_model import SGDClassifier

    way, shot = support.shape[1:3]
    labels = np.repeat(np.arange(way), shot)
    made = SGDClassifier(loss="log_loss", random_state=0)
    pairs = zip(support.flatten(1, 2).numpy(), query.numpy(), strict=True)
    found = np.stack([made.fit(x, labels).decision_function(q) for x, q in pairs])
    if way == TWO:
        found = np.stack([-found, found], axis=2)
    return torch.from_numpy(found).to(query)


def gaussian(material: Material) -> Space:
    """The catalog's enrollment: newcomers beside a mixture of the base classes, in the space of that model."""
    fitted = material.enrolling
    rows = fitted.model.project(material.novel.embedding)
    enroll = few_shot.Newcomers(fitted.mixture, fitted.sums, fitted.floor, fitted.prior)
    return Space(rows, enroll, 2 * rows.shape[1])


def _mapped(features: Features, embedder: nn.Module) -> Features:
    """Features that the embedder has mapped, which have no blocks; those of other layers follow what it takes."""
    bare = {key: said for key, said in features.identity.items() if key != "taps"}
    taken = next(one.shape[1] for one in embedder.parameters() if one.ndim == 2)
    with torch.inference_mode():
        made = embedder(torch.from_numpy(features.embedding[:, :taken]).float()).numpy()
    return replace(features, embedding=made, identity=bare)


def transductive_prototype(material: Material) -> Space:
    """Nearest class mean of features of unit length, with means that all queries of the episode have moved."""
    return _plain(material, transduction.soft_prototype)


def transductive_gaussian(material: Material) -> Space:
    """The catalog's enrollment, with newcomers that all queries of the episode have moved."""
    space = gaussian(material)
    assert isinstance(space.scores, few_shot.Newcomers)
    return replace(space, scores=transduction.TransductiveNewcomers(space.scores))


def calibration(material: Material) -> Space:
    """Distribution calibration, on signed roots of unit features along the base classes' principal axes."""
    known = material.known
    bent, base = (Power()(rows) for rows in (material.unit, L2()(torch.from_numpy(known.embedding))))
    chosen = torch.randperm(len(base), generator=torch.Generator().manual_seed(0))[:AXES_ROWS]
    center, axes, _ = axes_of(base[chosen])
    axes = axes[:, :CALIBRATION_AXES]
    rows, base = ((x - center.to(x.dtype)) @ axes.to(x.dtype) for x in (bent, base))
    labels = torch.from_numpy(known.label_index(known.classes))
    parts = [base[labels == c] for c in range(len(known.classes))]
    covariance = torch.stack([(own - own.mean(0)).T @ (own - own.mean(0)) / max(1, len(own) - 1) for own in parts])
    calibrated = few_shot.Calibration(torch.stack([own.mean(0) for own in parts]), covariance)
    return Space(rows, calibrated, 3 * rows.shape[1] ** 2)
