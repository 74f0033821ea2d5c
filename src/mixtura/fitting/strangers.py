"""Leave classes out: how many strangers a model would notice, and the score that notices most of them.

Ten draws each leave out a fifth of the classes. The other classes' rows are genuine and set the limits, those of the
left-out classes are strangers; both are scored by mixtures that know neither their fold nor the left-out classes. The
draws compare the scores of :data:`mixtura.scores.SCORES` too. The density stays unless another score notices more of
the strangers at the stated false-reject rate, by more than the standard error of the gain, and has a higher AUROC. The
share decides because it is what the verdicts are made of. Where it is low for every score, the AUROC, which counts
every pair of a genuine row and a stranger, keeps chance from choosing.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core import left_out
from mixtura.features.projected_folds import CrossFittedFolds, cross_fit_projection
from mixtura.features.selection import Selected
from mixtura.fitting.draws import Draws, Judged, Outcome
from mixtura.fitting.fitted import Fitted
from mixtura.fitting.score_views import Views, known_rows
from mixtura.fitting.selection import TrainingSamples, folds_of
from mixtura.metrics.intervals import share_over_classes
from mixtura.names import find
from mixtura.recipe import Recipe
from mixtura.records.strangers import ESTIMATE_FACT, LeftOutClass, ScoreTrial, StrangerEstimate
from mixtura.scores import AUTO, DENSITY, SCORES
from mixtura.scores.base import Score
from mixtura.scores.typicality import can_reject

STRANGERS_A_CLASS = 0.25  # kinds of strangers for each known class, as in the draws: one fifth against four
THRESHOLD_FOLDS = 20  # folds for the limits of another score than the density
LEVEL = 0.9  # of the interval
TRIAL_DRAWS = 3  # draws after which a score that does not beat the density is dropped
NOTHING_HELD_OUT = (
    "How often something new would be reported as unknown is not estimated: too few items can be held out."
)


def leave_classes_out(
    recipe: Recipe, rows: TrainingSamples, choice: Selected, fitted: Fitted, names: Sequence[str]
) -> Fitted:
    """The fit with a :class:`StrangerEstimate` among its facts, and with the score that was chosen.

    Args:
        recipe: the score to use or ``auto``, the false-reject rate and the seed.
        rows: the training samples.
        choice: projection and plan.
        fitted: the fit.
        names: of the classes.
    """
    asked, held = recipe.decision.score, int((fitted.out_of_fold.weight > 0).sum())
    able = can_reject(held, recipe.decision.false_reject_rate)
    count = choice.folds.n_parents
    if count < left_out.MIN_CLASSES or not able:
        score = DENSITY if asked == AUTO else asked
        why = _too_few(count) if able else NOTHING_HELD_OUT
        estimate = StrangerEstimate(None, score=score, notes=(why,))
    else:
        folds, plan = choice.folds, choice.candidate.plan
        draws = Draws(Views.of(folds, plan).at_once(), recipe.decision.false_reject_rate, recipe.seed)
        estimate = estimated(draws, asked, names)
        estimate = replace(estimate, notes=estimate.notes or _notes(choice, fitted, rows.encoder_trained))
    fitted = replace(fitted, facts=fitted.facts | {ESTIMATE_FACT: estimate.to_dict()})
    return fitted if estimate.score == DENSITY else with_score(fitted, rows, choice, estimate.score, recipe.seed)


def estimated(draws: Draws, asked: str, names: Sequence[str]) -> StrangerEstimate:
    """The estimate for a score, or for the score that ``auto`` chooses."""
    if asked not in (AUTO, DENSITY):
        outcomes = {asked: _outcomes(draws, asked)}
        trials = {asked: _trial(outcomes[asked], outcomes[asked])}
        return _summary(draws, asked, outcomes[asked], trials, names)
    outcomes, trials = _raced(draws, list(SCORES) if asked == AUTO else [])
    score = winner(trials)
    return _summary(draws, score, outcomes if score == DENSITY else _outcomes(draws, score), trials, names)


def _outcomes(draws: Draws, score: str) -> list[Outcome]:
    """The outcomes of all draws by one score."""
    found = []
    for draw in range(len(draws.gone)):
        parts = [draws.judged(draw, *space, [score]) for space in draws.spaces_of(draw)]
        found.append(draws.outcome(draw, Judged.join(parts), score))
    return [outcome for outcome in found if outcome is not None]


def _raced(draws: Draws, rivals: list[str]) -> tuple[list[Outcome], dict[str, ScoreTrial]]:
    """The outcomes of all draws by the density, and the trials of it and of its rivals on the same rows.

    A rival is dropped if it is behind the density in both figures of the first draw, or does not beat it in both over
    the first ``TRIAL_DRAWS``.
    """
    own: list[Outcome] = []
    paired: dict[str, list[tuple[Outcome, Outcome]]] = {name: [] for name in [DENSITY, *rivals]}
    for draw in range(len(draws.gone)):
        if draw == 1:
            rivals = [name for name in rivals if not _trial_of(paired[name]).behind]
        if draw == TRIAL_DRAWS:
            rivals = [name for name in rivals if _trial_of(paired[name]).promising]
        judged = Judged.join([draws.judged(draw, *space, rivals) for space in draws.spaces_of(draw)])
        base = draws.outcome(draw, judged, DENSITY)
        if base is None:
            continue
        own.append(base)
        for name in [DENSITY, *rivals]:
            rival = draws.outcome(draw, judged, name)
            assert rival is not None
            paired[name].append((rival, base))
    return own, {name: _trial_of(pairs) for name, pairs in paired.items() if pairs}


def _trial_of(pairs: list[tuple[Outcome, Outcome]]) -> ScoreTrial:
    return _trial([rival for rival, _ in pairs], [base for _, base in pairs])


def _trial(rival: list[Outcome], base: list[Outcome]) -> ScoreTrial:
    """The trial of a score against the density.

    The draws leave each class out once in every ``PARTS`` of them, so only so many are independent.
    """
    if not rival:
        return ScoreTrial(float("nan"), float("nan"), 0)
    gain = np.array([one.share - other.share for one, other in zip(rival, base, strict=True)])
    error = float(gain.std(ddof=1)) / min(len(gain), left_out.PARTS) ** 0.5 if len(gain) > 1 else 0.0
    area = np.array([one.auroc for one in rival])
    ahead = float((area - [one.auroc for one in base]).mean())
    share = float(np.mean([one.share for one in rival]))
    return ScoreTrial(float(area.mean()), share, len(rival), float(gain.mean()), error, ahead)


def winner(trials: dict[str, ScoreTrial]) -> str:
    """The score with the largest gain of those that gain more than a standard error in all draws; else the density."""
    most = max((trial.draws for trial in trials.values()), default=0)
    final = {name: trial for name, trial in trials.items() if trial.draws == most and trial.promising}
    better = [name for name, trial in final.items() if trial.gain > trial.error]
    return max(better, key=lambda name: trials[name].gain, default=DENSITY)


def _summary(
    draws: Draws, score: str, outcomes: list[Outcome], trials: dict[str, ScoreTrial], names: Sequence[str]
) -> StrangerEstimate:
    """The estimate from the outcomes of all draws by the chosen score."""
    if not outcomes:
        return StrangerEstimate(None, score=score, trials=trials, notes=(NOTHING_HELD_OUT,))
    label, predicted, weight = (
        torch.cat([getattr(one, name) for one in outcomes]) for name in ("label", "predicted", "weight")
    )
    noticed, count = torch.cat([one.noticed for one in outcomes]), draws.folds.n_parents
    hits, total = (torch.bincount(label, weight * part, minlength=count).double() for part in (noticed, 1.0))
    share, low, high = share_over_classes(hits.numpy(), total.numpy(), STRANGERS_A_CLASS * count, LEVEL)
    confused = torch.zeros(count, count, dtype=torch.float64)
    confused.index_put_((label, predicted), (weight * ~noticed).double(), accumulate=True)
    rival = confused.max(1)
    classes = {
        str(names[c]): LeftOutClass(
            float(hits[c] / total[c]), float(total[c]), names[int(rival.indices[c])], float(rival.values[c] / total[c])
        )
        for c in total.nonzero()[:, 0].tolist()
    }
    area = float(np.mean([one.auroc for one in outcomes]))
    each = tuple(one.share for one in outcomes)
    return StrangerEstimate(share, low, high, LEVEL, area, each, score, trials, classes)


def with_score(fitted: Fitted, rows: TrainingSamples, choice: Selected, name: str, seed: int) -> Fitted:
    """The fit with another score than the density, fitted to all rows, and its out-of-fold values for the limits."""
    plan, folds = choice.candidate.plan, choice.folds
    every = (folds.counts > 0).nonzero()[:, 0]
    known = known_rows(folds, every, plan, folds.mixture(plan))
    kind, held = find(SCORES, name), fitted.out_of_fold
    score = kind.fit(replace(known, background_peak=left_out.background_peak(fitted.mixture)))
    raw = kind.left_out(held)
    if raw is None:
        raw = _out_of_fold(name, choice, rows, seed, held.row)[held.row]
    return replace(fitted, score=score, raw=raw)


def _out_of_fold(
    name: str, choice: Selected, rows: TrainingSamples, seed: int, asked: Int[Tensor, " M"]
) -> Float[Tensor, " N"]:
    """The score of each of the rows asked for by one that was fitted without its fold; NaN for all others."""
    choice.folds.clear_cache()
    plain = folds_of(rows, seed, THRESHOLD_FOLDS)
    wanted = torch.zeros(len(rows.x), dtype=torch.bool).index_fill_(0, asked, True)
    plain = replace(plain, fold=torch.where(wanted, plain.fold, THRESHOLD_FOLDS))
    _, folds = cross_fit_projection(choice.steps, rows.x, plain)
    raw = torch.full((len(rows.x),), torch.nan, dtype=torch.float64)
    none = torch.zeros(rows.n_classes, dtype=torch.bool)
    spaces, plan, kind = folds.held_out_spaces(), choice.candidate.plan, find(SCORES, name)
    make = Views.of if hasattr(kind, "sees") else Views.same
    # with the sum of all rows, not of each fold
    views = {id(space): make(replace(space, n_folds=0), plan) for space, _ in spaces}
    for space, fold in spaces:
        known = left_out.rows_without(space, none, fold)
        if len(known) and bool((gone := space.fold == fold).any()):
            raw[gone] = _scored(kind, views[id(space)], gone, known)
    return raw


def _scored(kind: type[Score], views: Views, gone: Bool[Tensor, " N"], known: Int[Tensor, " K"]) -> Float[Tensor, " M"]:
    """The score of some rows by one that was fitted to the known rows, which are all others."""
    folds, plan = views.distances
    mixture = left_out.mixture_without_rows(folds, plan, gone)
    joint, background, peak = left_out.scores_with_peak(mixture, folds.x[gone])
    rows, x = views.known(kind, known, mixture, partial(left_out.mixture_without_rows, gone=gone))
    score = kind.fit(replace(rows, background_peak=peak))
    return score(x[gone], joint.logsumexp(1), background).double()


def _too_few(count: int) -> str:
    return (
        f"How often something new would be reported as unknown is not estimated: {count} classes are too few to leave "
        f"a fifth of them out. It takes {left_out.MIN_CLASSES}."
    )


def _notes(choice: Selected, fitted: Fitted, encoder_trained: bool) -> tuple[str, ...]:
    """What the draws did not leave out or did not repeat."""
    said = ["The network had learned from the left-out classes, too."] if encoder_trained else []
    if isinstance(choice.folds, CrossFittedFolds):
        said.append("The projection had learned from the left-out classes, too.")
    if fitted.facts.get("from_sums") is False:
        said.append("The draws used the mixture from before the training by gradients.")
    return tuple(said)
