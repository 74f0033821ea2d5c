"""The result of every solver, and the model built from it."""

from dataclasses import dataclass, replace
from importlib import metadata

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.cross_fitting import OutOfFold
from mixtura.core.mixture import Mixture
from mixtura.core.selection import half_of, temperature_of
from mixtura.features.blocks import Blocks, described
from mixtura.features.projection import Chain
from mixtura.heads.base import Head
from mixtura.identity import blocks_of
from mixtura.model.held_out import HeldOut
from mixtura.model.model import Model
from mixtura.model.prior import recalibrated
from mixtura.model.prior_file import read_prior
from mixtura.model.subclasses import Subclasses
from mixtura.pipeline import training_set
from mixtura.recipe import Recipe
from mixtura.scores.base import Score
from mixtura.scores.typicality import Typicality


@dataclass(frozen=True)
class Fitted:
    """A projection and a density, with out-of-fold scores.

    ``head`` gives the class scores if the mixture does not. ``facts`` describe the fit: for every solver the family,
    the number of components, the prior and the feature scale. ``score`` takes the place of the density in the
    typicality, if given, and ``raw`` are its values for the out-of-fold samples, NaN where there is none.
    ``subclasses`` are the named ones, if any, and ``kind`` that of each out-of-fold sample if it is of each class.
    """

    projection: Chain
    mixture: Mixture
    head: Head | None
    out_of_fold: OutOfFold
    facts: dict[str, object]
    score: Score | None = None
    raw: Float[Tensor, " M"] | None = None
    subclasses: Subclasses | None = None
    kind: Int[Tensor, "M C"] | None = None

    @property
    def typicality(self) -> Typicality:
        """The typicality from the out-of-fold samples that have a weight, and a value of the score."""
        held, raw = self.out_of_fold, self.raw
        some = held.weight > 0 if raw is None else (held.weight > 0) & ~raw.isnan()
        columns = (held.log_prob[some], held.background[some], held.predicted[some])
        kinds = None if self.kind is None else self.kind[some].gather(1, columns[2][:, None])[:, 0]
        return Typicality.fit(*columns, None if raw is None else raw[some], kinds)

    def held(self, x: Float[Tensor, "N D"]) -> HeldOut:
        """What the bundle keeps of the out-of-fold samples that have a weight; ``x`` are the training samples."""
        held, some = self.out_of_fold.counted, self.out_of_fold.weight > 0
        none = torch.zeros(0, dtype=torch.int64)
        return HeldOut(
            held.label,
            held.class_log_prob,
            held.log_prob,
            held.background,
            held.weight,
            half_of(x, held),
            none.double() if self.raw is None else self.raw[some],
            none.expand(held.class_log_prob.shape[1], 0).T if self.kind is None else self.kind[some],
        )


def assemble(
    recipe: Recipe, gathered: training_set.Gathered, classes: tuple[str, ...], x: Float[Tensor, "N D"], fitted: Fitted
) -> Model:
    """Model from a fit to the samples ``x``; its temperature and typicality come from the out-of-fold scores.

    Raises:
        DataError: the file of the class prior does not fit the classes.
    """
    held = fitted.out_of_fold.counted
    model = Model(
        classes=classes,
        encoder=gathered.encoder,
        identity=gathered.features.identity,
        dimension=gathered.features.dimension,
        projection=fitted.projection,
        mixture=fitted.mixture.to(torch.float32),
        temperature=temperature_of(x, held),
        typicality=fitted.typicality,
        decision=recipe.decision.model_copy(update={"prior": None}),
        facts=_common_facts(gathered, fitted) | fitted.facts,
        head=fitted.head,
        score=fitted.score,
        subclasses=fitted.subclasses,
        held=fitted.held(x),
    )
    asked = recipe.decision.prior
    model = model if asked is None else recalibrated(model, read_prior(model, asked))
    return replace(model, held=model.held and model.held.thinned())


def _common_facts(gathered: training_set.Gathered, fitted: Fitted) -> dict[str, object]:
    """Facts that every solver reports."""
    held = fitted.out_of_fold
    return {
        "mixtura": metadata.version("mixtura"),
        "torch": torch.__version__,
        "encoder": gathered.encoder.name,
        "fingerprint": gathered.features.fingerprint,
        "projection": " > ".join(step.name for step in fitted.projection.steps) or "none",
        **_layers(gathered, fitted),
        **({} if fitted.subclasses is None else {"subclasses": len(fitted.subclasses.names)}),
        "left_out": len(gathered.problems),
        "data": training_set.digest_of(gathered.features),
        "held_out_items": len(held.row),
        "held_out_accuracy": held.accuracy,
        "classes_not_held_out": held.class_log_prob.shape[1] - len(held.label.unique()),
    }


def _layers(gathered: training_set.Gathered, fitted: Fitted) -> dict[str, object]:
    """The layers that the model reads, where the encoder gives several."""
    layout = blocks_of(gathered.features.identity)
    first = next(iter(fitted.projection.steps), None)
    return {"layers": described(first, layout)} if layout and isinstance(first, Blocks) else {}
