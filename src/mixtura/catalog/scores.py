"""Scores other than the density in a catalog: which edits they follow, and how a newcomer's own items score."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.catalog.newcomers import HELD_OUT_CLASSES, MIN_SPARE_ITEMS, SIMULATION_SEED, NewcomerCalibration, stand_in
from mixtura.catalog.statistics import LabeledItems
from mixtura.core.moments import present
from mixtura.model.model import Model
from mixtura.scores.base import Edits, Score, WeightedRows
from mixtura.scores.typicality import Typicality


def edited(
    score: Score | None,
    product: Int[Tensor, " C"],
    added: LabeledItems,
    removed: LabeledItems,
    newcomers: list[Float[Tensor, "_ D"]],
) -> Score | None:
    """A model's score after the edits of a catalog.

    Args:
        score: as it was fitted; ``None`` for the density.
        product: the product of each fitted class, -1 for one that was removed.
        added: items of the fitted classes that were not in the training set.
        removed: items of the training set that have left their class.
        newcomers: the items of each new class.
    """
    if score is None:
        return None
    came, went = (WeightedRows(items.x, items.labels, items.weight) for items in (added, removed))
    return score.follow(Edits(product < 0, came, went, tuple(newcomers)))


def newcomer_scores(
    model: Model, gauge: NewcomerCalibration | None, typicality: Typicality, handfuls: list[Float[Tensor, "_ D"]]
) -> list[Float[Tensor, " Q"]]:
    """Typicality scores that represent each newcomer's own validation items; none if nothing can be held out.

    Fitted classes play newcomers: each is left out of the score and enrolled again with as many items, and its
    validation items are scored.
    """
    if gauge is None or model.score is None:
        return [torch.zeros(0, dtype=torch.float64)] * len(handfuls)
    counts = {len(rows) for rows in handfuls}
    scores = {count: stand_in(_played(model, model.score, gauge, typicality, count)) for count in counts}
    return [scores[len(rows)] for rows in handfuls]


def _played(
    model: Model, score: Score, gauge: NewcomerCalibration, typicality: Typicality, count: int
) -> Float[Tensor, " R"]:
    """Sorted scores of the validation items of all classes that can play newcomers with ``count`` items."""
    generator = torch.Generator().manual_seed(SIMULATION_SEED)
    items, parts, played = gauge.items, [torch.zeros(0, dtype=torch.float64)], 0
    none = WeightedRows(items.x[:0], items.labels[:0], items.weight[:0])
    for c in present(items.labels):
        own, judge = (((items.labels == c) & part).nonzero()[:, 0] for part in (~gauge.judge, gauge.judge))
        if len(own) < count + MIN_SPARE_ITEMS or not len(judge) or played == HELD_OUT_CLASSES:
            continue
        played += 1
        shots = items.x[own[torch.randperm(len(own), generator=generator)[:count]]]
        gone = torch.arange(len(model.classes)) == c
        x = items.x[judge]
        log_prob, behind = model.mixture.log_prob(x), model.background.log_prob(x)
        raw = score.follow(Edits(gone, none, none, (shots,)))(x, log_prob, behind)
        parts.append(typicality.score(log_prob, behind, raw))
    return torch.cat(parts).sort().values
