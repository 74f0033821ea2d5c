"""Rebuild the model of a catalog, as a pure function of the bundle and of the items with their products."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.catalog.newcomers import NewcomerCalibration, stand_in
from mixtura.catalog.priors import under_prior
from mixtura.catalog.scores import edited, newcomer_scores
from mixtura.catalog.statistics import FittedStatistics, sums_of
from mixtura.catalog.subclasses import ClassKinds, Placed
from mixtura.core import novel
from mixtura.core.classes import NO_WEIGHT
from mixtura.core.mixture import Mixture, join
from mixtura.core.moments import LabeledItems, Moments
from mixtura.core.novel import NovelComponents
from mixtura.model.model import Model
from mixtura.model.prior import AskedPrior
from mixtura.model.subclasses import Subclasses
from mixtura.scores.typicality import Typicality


@dataclass(frozen=True)
class ComponentGroup:
    """Components of one product: those of the model's class ``base``, or new ones made from ``rows``.

    New ones may be of a ``kind`` of their product, and have a ``share`` of the rows that were enrolled together.
    """

    product: int
    base: int | None
    rows: Float[Tensor, "N D"] | None = None
    kind: str = ""
    share: float = 1.0


@dataclass(frozen=True)
class CatalogState:
    """What a catalog holds beyond its bundle.

    Args:
        names: of the products, in order.
        parts: component groups of all products.
        added: items of the model's classes that were not in its training set.
        removed: items of its training set that have left their class.
        kinds: of the model's classes that edits have divided.
    """

    names: tuple[str, ...]
    parts: tuple[ComponentGroup, ...]
    added: LabeledItems
    removed: LabeledItems
    kinds: tuple[ClassKinds, ...] = ()


def model_of(
    base: FittedStatistics,
    state: CatalogState,
    gauge: Callable[[Moments], NewcomerCalibration | None],
    calibration: tuple[Typicality, float] | None,
    asked: AskedPrior | None = None,
) -> Model:
    """The model of a catalog state.

    Args:
        base: the model as it was fitted.
        state: the items with their products.
        gauge: returns the newcomer calibration for the sums of the model's classes; called only if there are newcomers,
            ``None`` if too few items can be held out.
        calibration: typicality and temperature that replace the fitted ones.
        asked: the class prior, with shares of the fitted classes; that of the bundle if left out.
    """
    asked = base.asked if asked is None else asked
    fitted = [part for part in state.parts if part.base is not None]
    new = [part for part in state.parts if part.base is None]
    typicality, temperature = calibration or (base.model.typicality, base.model.temperature)
    product = torch.full((len(base.model.classes),), -1)
    for part in fitted:
        product[part.base] = part.product
    predicted = typicality.predicted
    moved = torch.where(predicted < 0, -1, product[predicted.clamp_min(0)])  # -1: of a removed class, counts for all
    divided = tuple(one for one in state.kinds if product[one.base] >= 0)
    placed = Placed.of(base.model, product, state.names, divided)
    finer = typicality.subclass
    typicality = replace(typicality, predicted=moved, subclass=placed.place[finer] if len(finer) else finer)
    total = _sums(base, state)
    kept, sums = _fitted(base, total, product, divided)
    mixture, lift, test = replace(kept, component_class=product[_owner(kept)]), None, None
    handfuls = [part.rows for part in new if part.rows is not None]
    if new:
        made = novel.novel_components(kept, sums, handfuls, base.floor, base.prior)
        known = gauge(total)
        lifts, residuals = _measured(made, handfuls, known, typicality)
        if base.model.score is not None:
            residuals = newcomer_scores(base.model, known, typicality, handfuls)
        mixture = _joined(mixture, made.mixture, len(fitted), new)
        lift = torch.zeros(len(state.names), dtype=torch.float64)
        alone = {part.product for part in new} - {part.product for part in fitted}
        lift[list(alone)] = -torch.inf
        shots = [(part.product, part.rows) for part in new if part.product in alone and part.rows is not None]
        test = None if known is None else known.players.test(shots)
        for part, own, scores in zip(new, lifts.tolist(), residuals, strict=True):
            if part.product in alone:
                lift[part.product] = max(float(lift[part.product]), own)
                typicality = _with(typicality, scores, part.product)
    order = torch.argsort(_owner(mixture), stable=True)
    mixture = replace(mixture.select(order), n_classes=len(state.names))
    edited_model = replace(
        base.model,
        classes=state.names,
        mixture=mixture.to(torch.float32),
        temperature=temperature,
        typicality=typicality,
        lift=None if lift is None else lift.float(),
        fitted=kept if new else None,
        newcomers=test,
        score=edited(base.model.score, product, state.added, state.removed, handfuls),
        subclasses=_owned(placed, state, product, order),
    )
    parts = [(part.product, part.base, part.share) for part in state.parts]
    edited_model = under_prior(edited_model, base, parts, asked)
    return _reaching(edited_model, torch.cat([state.added.x, *(one.items.x for one in divided), *handfuls]))


@torch.inference_mode()
def _reaching(model: Model, rows: Float[Tensor, "N D"]) -> Model:
    """The model to which these rows, which its fit has not seen, are known."""
    if not len(rows):
        return model
    log_prob = model.evidence(rows.to(model.mixture.mean)).log_prob
    return replace(model, typicality=model.typicality.reaching(log_prob))


def _sums(base: FittedStatistics, state: CatalogState) -> Moments:
    """The current sums over the items of the model's classes."""
    if not len(state.added.x) and not len(state.removed.x):
        return base.sums
    mixture = base.model.mixture
    sums = base.sums + sums_of(mixture, state.added) - sums_of(mixture, state.removed)
    return replace(sums, weight=torch.where(sums.weight < NO_WEIGHT, 0.0, sums.weight))


def _fitted(
    base: FittedStatistics, sums: Moments, product: Int[Tensor, " C"], divided: Sequence[ClassKinds]
) -> tuple[Mixture, Moments]:
    """The remaining components of the fitted model, then one for each kind of a divided class, and their sums."""
    component_class = _owner(base.model.mixture)
    gone = product < 0
    gone[[one.base for one in divided]] = True
    index = (~gone[component_class]).nonzero()[:, 0]
    if divided:
        return base.divided(sums, index, divided)
    if sums is base.sums or not base.exact:
        kept = base.mixture if len(index) == len(component_class) else base.mixture.select(index)
    else:
        kept = base.rebuilt(sums, index)
    return kept, sums.select(index)


def _measured(
    made: NovelComponents, handfuls: list[Tensor], gauge: NewcomerCalibration | None, typicality: Typicality
) -> tuple[Float[Tensor, " P"], list[Tensor]]:
    """The lift of each newcomer in nats, and the scores that represent its own validation items."""
    if gauge is None:
        return made.lift.clamp_max(0), [torch.zeros(0, dtype=torch.float64)] * len(handfuls)
    counts = {len(rows) for rows in handfuls}
    residuals = {count: stand_in(gauge.residuals(count, typicality)) for count in counts}
    return gauge.lifts(handfuls), [residuals[len(rows)] for rows in handfuls]


def _joined(fitted: Mixture, made: Mixture, parts: int, new: Sequence[ComponentGroup]) -> Mixture:
    """Both mixtures joined; what was enrolled together has the weight of an average one of the fitted parts."""
    share = torch.tensor([part.share for part in new], dtype=torch.float64)
    weight = torch.stack([share.new_tensor(float(parts)), share.sum()])
    component_class = torch.cat([_owner(fitted), torch.tensor([part.product for part in new])])
    made = replace(made, log_weight=(share / share.sum()).log())
    return replace(join([fitted, made], weight), component_class=component_class)


def _owned(
    placed: Placed, state: CatalogState, product: Int[Tensor, " C"], order: Int[Tensor, " K"]
) -> Subclasses | None:
    """The named subclasses of the components, in this order; ``None`` where there are none."""
    divided = [one for one in state.kinds if product[one.base] >= 0]
    new = [part for part in state.parts if part.base is None]
    if not placed.fitted and not divided and not any(part.kind for part in new):
        return None
    others = [(name, int(product[one.base])) for one in divided for name in one.names]
    others += [(part.kind, part.product) for part in new]
    return placed.with_others([(kind or state.names[above], above) for kind, above in others], order)


def _with(typicality: Typicality, scores: Float[Tensor, " Q"], product: int) -> Typicality:
    """The typicality with added scores that represent validation items of a product."""
    return replace(
        typicality,
        stand_in=torch.cat([typicality.stand_in, scores]),
        stand_for=torch.cat([typicality.stand_for, torch.full((len(scores),), product)]),
    )


def _owner(mixture: Mixture) -> Tensor:
    assert mixture.component_class is not None
    return mixture.component_class
