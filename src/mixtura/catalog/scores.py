"""Scores other than the density in a catalog: which edits they follow, and how a newcomer's own items score."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.catalog.newcomers import NewcomerCalibration, stand_in
from mixtura.core.moments import LabeledItems
from mixtura.model.model import Model
from mixtura.scores.base import Edits, Score
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
    return score.follow(Edits(product < 0, added, removed, tuple(newcomers)))


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
    items, parts = gauge.items, [torch.zeros(0, dtype=torch.float64)]
    none = items.select(torch.zeros(0, dtype=torch.int64))
    for c, shots in gauge.support_sets(count).items():
        x = items.x[(items.labels == c) & gauge.judge]
        gone = torch.arange(len(model.classes)) == c
        log_prob, behind = model.mixture.log_prob(x), model.background.log_prob(x)
        raw = score.follow(Edits(gone, none, none, (shots,)))(x, log_prob, behind)
        parts.append(typicality.score(log_prob, behind, raw))
    return torch.cat(parts).sort().values
