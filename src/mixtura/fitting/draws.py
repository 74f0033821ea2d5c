"""The draws that leave classes out: which rows are strangers in each, and what a score makes of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core import left_out
from mixtura.core.cross_fitting import Folds
from mixtura.core.ownership import ClassLogSumExp
from mixtura.fitting.score_views import Views
from mixtura.metrics.detection import auroc
from mixtura.names import find
from mixtura.scores import SCORES
from mixtura.scores.typicality import MIN_HELD_OUT, Typicality

ENOUGH_GENUINE = 300  # genuine rows of a draw; the limit of a 5% rule then has a standard error of 1.3 points
MAX_KNOWN_ROWS = 10_000  # rows that the other scores are fitted to in a draw; the one that is chosen is fitted to all
MAX_ROWS_A_FOLD = 1500  # rows of a fold that are judged; classes differ more than rows do


@dataclass(frozen=True)
class Judged:
    """Rows of a draw with their scores; ``raw`` holds those of the other scores, by name."""

    row: Int[Tensor, " M"]
    label: Int[Tensor, " M"]
    predicted: Int[Tensor, " M"]
    log_prob: Float[Tensor, " M"]
    background: Float[Tensor, " M"]
    weight: Float[Tensor, " M"]
    raw: dict[str, Tensor]

    @classmethod
    def join(cls, parts: Sequence["Judged"]) -> "Judged":
        """The rows of several folds, with the scores that all of them have."""
        names = set.intersection(*(set(part.raw) for part in parts))
        raw = {name: torch.cat([part.raw[name] for part in parts]) for name in names}
        columns = {item.name for item in fields(cls)} - {"raw"}
        return cls(raw=raw, **{name: torch.cat([getattr(part, name) for part in parts]) for name in columns})


@dataclass(frozen=True)
class Outcome:
    """What a score makes of one draw: its strangers and whether each is noticed, and the AUROC."""

    label: Int[Tensor, " S"]
    predicted: Int[Tensor, " S"]
    weight: Float[Tensor, " S"]
    noticed: Bool[Tensor, " S"]
    auroc: float

    @property
    def share(self) -> float:
        """Share of the strangers that are noticed."""
        return float(self.weight @ self.noticed.to(self.weight) / self.weight.sum())


@dataclass(frozen=True)
class Draws:
    """The draws of a fit: which classes each leaves out, and its outcomes."""

    views: Views
    rate: float
    seed: int

    @property
    def folds(self) -> Folds:
        """The rows as the density sees them."""
        return self.views.distances[0]

    @cached_property
    def gone(self) -> list[Bool[Tensor, " C"]]:
        """The classes that each draw leaves out; with two levels, superclasses, with all that belongs to them."""
        return left_out.class_draws(self.folds.n_parents, self.seed)

    @cached_property
    def spaces(self) -> list[tuple[Folds, int]]:
        """The folds that can be held out, each with its space."""
        return self.folds.held_out_spaces()

    def spaces_of(self, draw: int) -> list[tuple[Folds, int]]:
        """The folds that a draw holds out in turn: enough of them, beginning with another one for each draw."""
        rows = sum(int(((space.fold == fold) & (space.counts > 0)).sum()) for space, fold in self.spaces)
        genuine = (1 - 1 / left_out.PARTS) * rows / max(1, len(self.spaces))
        count = min(len(self.spaces), max(1, math.ceil(ENOUGH_GENUINE / max(1.0, genuine))))
        return [self.spaces[(draw + place) % len(self.spaces)] for place in range(count)]

    def judged(self, draw: int, space: Folds, fold: int, names: Sequence[str]) -> Judged:
        """Rows of a fold, scored by a mixture without the fold and without the classes of the draw."""
        gone, plan = self.gone[draw][space.parents], self.views.distances[1]
        mixture = left_out.mixture_without(space, plan, gone, fold)
        row = left_out.judged_rows(space, fold, MAX_ROWS_A_FOLD, self.seed)
        row = row[(left_out.known_labels(space, gone, fold) | gone)[space.labels[row]]]
        x = space.x[row]
        joint, background, peak = left_out.scores_with_peak(mixture, x)
        log_prob = joint.logsumexp(1)
        learned = left_out.some_of(space, left_out.rows_without(space, gone, fold), MAX_KNOWN_ROWS, self.seed)
        raw = dict[str, Tensor]()
        views = self.views if space is self.folds else Views.same(space, plan)
        without = partial(left_out.mixture_without, gone=gone, fold=fold)
        for name in names:
            kind = find(SCORES, name)
            known, x = views.known(kind, learned, mixture, without)
            raw[name] = kind.fit(replace(known, background_peak=peak))(x[row], log_prob, background)
        label = space.parents[space.labels[row]]
        predicted = ClassLogSumExp.of(space.parents, space.n_parents)(joint).argmax(1)
        return Judged(row, label, predicted, log_prob, background, space.counts[row], raw)

    def outcome(self, draw: int, judged: Judged, name: str) -> Outcome | None:
        """The outcome of a draw by a score; ``None`` without strangers or with too few genuine rows."""
        strange = self.gone[draw][judged.label]
        if not bool(strange.any()) or int((~strange).sum()) < MIN_HELD_OUT:
            return None
        raw, known = judged.raw.get(name), ~strange
        columns = (judged.log_prob[known], judged.background[known], judged.predicted[known])
        typicality = Typicality.fit(*columns, None if raw is None else raw[known])
        score = typicality.score(judged.log_prob, judged.background, raw)
        noticed = typicality(score[strange], judged.predicted[strange]) < self.rate
        area = auroc(score.numpy(), (~strange).numpy(), judged.weight.numpy())
        return Outcome(judged.label[strange], judged.predicted[strange], judged.weight[strange], noticed, area)
