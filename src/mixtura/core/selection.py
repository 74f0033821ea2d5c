"""Model selection for "auto": family, feature scale, shrinkage and component counts by out-of-fold scores.

A sample of weight two equals two copies of it, and the sample order does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core import classes, leave_one_out, linalg, temperature
from mixtura.core.classes import Plan
from mixtura.core.covariance import Diagonal, Prior, family_of
from mixtura.core.cross_fitting import Folds, OutOfFold, content_folds
from mixtura.core.mixture import Mixture
from mixtura.core.moments import feature_variance, labeled
from mixtura.core.shrinkage import ledoit_wolf, oas
from mixtura.core.span import spanned

HELD_OUT, OAS = "held-out", "oas"
Rule = float | str | Prior
"""Shrinkage of the covariances: a share of the identity in [0, 1], the best share on out-of-fold samples
(``HELD_OUT``), a share computed from the moments (``OAS``), or a full prior. A share also shrinks the covariances
toward the pooled one; a prior is used as it is."""

SHRINKAGES = (0.0, 0.01, 0.1, 0.3)  # of the identity; the Ledoit-Wolf share is tried too
LARGER_SHRINKAGES = (0.6, 0.9)  # tried while the largest share so far is the best: few samples in many dimensions
FEATURE_SCALES_TRIED = ("none", "unit", "half")  # in order of trial
SCREEN_SHRINKAGE = 0.1  # share of the identity at which feature scales are compared
PRIOR_STRENGTHS = (0.1, 1.0, 10.0)  # pseudo-observations of the pooled covariance, in average class sizes
MAX_BYTES = 1 << 30  # for the moments of the full family over all folds
MAX_COMPONENTS = 4
MIN_SAMPLES_A_CLASS = 10  # below, only the tied family is tried
MIN_HELD_OUT = 4.0  # samples; with fewer, nothing is cross-validated
FEW_HELD_OUT = 30.0  # samples; with fewer, chance would choose the family and the feature scale


@dataclass(frozen=True)
class Candidate:
    """A plan with its out-of-fold scores; ``accuracy`` is a share, ``loss`` the NLL (nats) at the best temperature."""

    plan: Plan
    held: OutOfFold
    accuracy: float
    loss: float
    temperature: float = 1.0

    def significantly_better_than(self, other: "Candidate") -> bool:
        """Whether the accuracy gain over ``other`` on the same samples exceeds its standard error."""
        return _exceeds_error(self.held.correct - other.held.correct, self.held.weight)

    def significantly_likelier_than(self, other: "Candidate") -> bool:
        """Whether the gain in the correct class's log-probability exceeds its standard error, with no accuracy lost."""
        gain = self._log_likelihood - other._log_likelihood
        return _exceeds_error(gain, self.held.weight) and not other.significantly_better_than(self)

    @property
    def _log_likelihood(self) -> Float[Tensor, " M"]:
        """Log-probability of the correct class of each sample, in nats."""
        log_posterior = (self.held.class_log_prob.double() / self.temperature).log_softmax(1)
        return log_posterior.gather(1, self.held.label[:, None])[:, 0]


def _exceeds_error(gain: Float[Tensor, " M"], weight: Float[Tensor, " M"]) -> bool:
    """Whether a weighted mean of paired gains is above its standard error."""
    total = float(weight.sum())
    mean = float(weight @ gain) / total
    variance = float(weight @ (gain - mean).square()) / max(total - 1, 1.0)
    return mean > (variance / total) ** 0.5


def cross_validate(folds: Folds, plan: Plan) -> Candidate:
    """Cross-validate a plan on the folds."""
    space, same = spanned(folds, plan)
    return evaluated(plan, folds.judged(space.cross_val_predict(same)))


def evaluated(plan: Plan, held: OutOfFold) -> Candidate:
    """The candidate of a plan with given out-of-fold scores."""
    if not float(held.weight.sum()) > 0:
        return Candidate(plan, held, 0.0, float("inf"))
    scores = (held.class_log_prob, held.label)
    best = temperature.best(*scores, held.weight)
    return Candidate(plan, held, held.accuracy, temperature.nll(*scores, best, held.weight), best)


def most_accurate(trials: list[Candidate]) -> Candidate:
    """Trial with the lowest loss (the first, if tied) among those within half a standard error of the best accuracy."""
    top = max(trial.accuracy for trial in trials)
    error = (top * (1 - top) / max(1.0, float(trials[0].held.weight.sum()))) ** 0.5
    return min((trial for trial in trials if trial.accuracy >= top - 0.5 * error), key=lambda trial: trial.loss)


def choose(
    folds: Folds,
    plan: Plan,
    family: str = "auto",
    shrinkage: Rule = HELD_OUT,
    components: int | str | tuple[int, ...] = 1,
    feature_scale: str = "auto",
    tried: Sequence[Candidate] = (),
) -> Candidate:
    """Resolve every ``"auto"`` of a plan by cross-validation; returns the plan with its out-of-fold scores.

    If fewer than ``FEW_HELD_OUT`` samples can be held out, ``"auto"`` means the tied family and half feature scales.
    With fewer than ``MIN_HELD_OUT``, it means unit scales, one component and shrinkage from the moments.

    Args:
        folds: the samples, with their folds.
        plan: provides floor, rank, steps and seed.
        family: a name in ``FAMILIES``, or ``"auto"``.
        shrinkage: a share of the identity in [0, 1], ``"held-out"``, ``"oas"``, or the whole prior.
        components: a number for all classes, one per class, or ``"auto"`` (held-out likelihood).
        feature_scale: a name in ``FEATURE_SCALES``, or ``"auto"``.
        tried: candidates already cross-validated on these folds.
    """
    held, plan = float(folds.held_out.sum()), replace(plan, components=1)
    if held < FEW_HELD_OUT:
        scale = "unit" if held < MIN_HELD_OUT else "half"
        family, feature_scale = _unless_auto(family, "tied"), _unless_auto(feature_scale, scale)
    if held < MIN_HELD_OUT:
        shrinkage = OAS if shrinkage == HELD_OUT else shrinkage
        components = 1 if isinstance(components, str) else components
    search = Search(folds, shrinkage, feature_scale, {trial.plan: trial for trial in tried})
    trial = search.best_family(plan) if family == "auto" else search.best(replace(plan, family=family))
    if components == 1:
        return trial
    counts = components if not isinstance(components, str) else _auto_counts(folds, trial.plan)
    if counts == 1:
        return trial
    richer = cross_validate(folds, replace(trial.plan, components=counts))
    # An explicit number of components is kept; one chosen by likelihood must not cost accuracy.
    if not isinstance(components, str):
        return richer
    simple = search.cross_validate(trial.plan)
    return simple if simple.significantly_better_than(richer) else richer


def temperature_of(x: Float[Tensor, "N D"], held: OutOfFold) -> float:
    """Temperature fitted to out-of-fold scores; each sample's half follows from its values."""
    held = held.counted
    return temperature.fit(held.class_log_prob, held.label, held.weight, half_of(x, held))


def half_of(x: Float[Tensor, "N D"], held: OutOfFold) -> Bool[Tensor, " M"]:
    """Mask of one half of the samples, which follows from their values; the other half checks its temperature."""
    return content_folds(x[held.row], held.label, 2, 0) == 0


@dataclass(frozen=True)
class Search:
    """Search over plans: the requested options and a cache of the candidates so far."""

    folds: Folds
    shrinkage: Rule = HELD_OUT
    feature_scale: str = "auto"
    tried: dict[Plan, Candidate] = field(default_factory=dict[Plan, Candidate])

    def cross_validate(self, plan: Plan) -> Candidate:
        """Cross-validate a plan, or return its cached result."""
        if plan not in self.tried:
            self.tried[plan] = cross_validate(self.folds, plan)
        return self.tried[plan]

    def best(self, plan: Plan) -> Candidate:
        """Best candidate of a plan's family: first the feature scale, then the share of the identity.

        It is not compared with other plans before it is cross-validated like them: see :meth:`trials`.
        """
        plan = self.with_prior(plan, SCREEN_SHRINKAGE)
        if family_of(plan.family).round:  # spherical is a scaled identity already, with one unit for all features
            return self.cross_validate(self.with_prior(replace(plan, feature_scale="none"), 0.0))
        plan = self.best_scale(plan).plan
        if self.shrinkage != HELD_OUT:
            return self.cross_validate(plan)
        trials = self.trials(plan, self.shares(plan))
        for share in LARGER_SHRINKAGES:
            if most_accurate(trials) is not trials[-1]:
                break
            trials += self.trials(plan, (share,))
        return most_accurate(trials)

    def trials(self, plan: Plan, shares: Sequence[float]) -> list[Candidate]:
        """Candidates of a plan with several shares of the identity.

        Where one decomposition serves all shares, every sample is scored by all others, and not by other folds only.
        """
        plans = [self.with_prior(plan, share) for share in shares]
        if family_of(plan.family).shared and leave_one_out.has_exact_form(self.folds, plan):
            spaces = [spanned(self.folds, one) for one in plans]
            scores = leave_one_out.cross_val_predict(spaces[0][0], [same for _, same in spaces], exact=False)
            return [evaluated(one, self.folds.judged(held)) for one, held in zip(plans, scores, strict=True)]
        return [self.cross_validate(one) for one in plans]

    def best_scale(self, plan: Plan) -> Candidate:
        """Candidate with the best feature scale at a fixed share of the identity; "none" wins ties.

        "half" is tried only if "unit" is better than "none".
        """
        names = [name for name in FEATURE_SCALES_TRIED if self.feature_scale in ("auto", name)]
        plans = [self.with_prior(replace(plan, feature_scale=name), SCREEN_SHRINKAGE) for name in names]
        if len(plans) == 1 or plans[0].prior.identity == 0:
            return self.cross_validate(plans[0])
        plain, unit, half = plans
        if (best := most_accurate([self.cross_validate(plain), self.cross_validate(unit)])).plan == plain:
            return best
        return most_accurate([best, self.cross_validate(half)])

    def with_prior(self, plan: Plan, share: float, strength: float | None = None) -> Plan:
        """The plan with the prior of the shrinkage rule; ``share`` of the identity applies if the rule is ``HELD_OUT``.

        Families with a covariance per class also shrink toward the pooled one, by a tenth of a class or ``strength``.
        """
        if isinstance(self.shrinkage, Prior):
            return replace(plan, prior=self.shrinkage)
        if self.shrinkage == OAS:
            return replace(plan, prior=automatic_prior(self.folds, plan))
        if strength is None:
            tenth = max(1.0, 0.1 * float(self.folds.counts.sum()) / self.folds.n_classes)
            strength = 0.0 if family_of(plan.family).shared else tenth
        return replace(plan, prior=Prior(strength, share if self.shrinkage == HELD_OUT else float(self.shrinkage)))

    def shares(self, plan: Plan) -> tuple[float, ...]:
        """Shares of the identity to try; 0 is included only if the pooled covariance has full rank."""
        folds = self.folds
        least = 0.0 if float(folds.counts.sum()) > 3 * folds.x.shape[1] else 0.01
        scale = plan.resolved(folds.feature_variance(plan.family))[1].scale
        known = folds.total(plan.family).centered().second[0] if family_of(plan.family).shared else None
        automatic = ledoit_wolf(folds.x, folds.labels, folds.n_classes, folds.weight, scale, known)
        return tuple(sorted({share for share in (*SHRINKAGES, round(automatic, 4)) if share >= least}))

    def best_family(self, plan: Plan) -> Candidate:
        """The tied candidate, unless another family is more accurate by more than a standard error."""
        incumbent = self.best(replace(plan, family="tied"))
        trials = [self.cross_validate(rival) for rival in dict.fromkeys(self.rivals(incumbent.plan))]
        if not trials:
            return incumbent
        rival, screened = most_accurate(trials), self.with_prior(incumbent.plan, SCREEN_SHRINKAGE)
        for plan in (screened, incumbent.plan):  # the first has been cross-validated already and mostly settles it
            if not rival.significantly_better_than(self.cross_validate(plan)):
                return incumbent
        return rival

    def rivals(self, plan: Plan) -> list[Plan]:
        """Plans of the other families with enough data, each with a few prior strengths."""
        folds = self.folds
        size, dimension = float(folds.class_weight.mean()), folds.x.shape[1]
        if float(folds.class_weight.median()) < MIN_SAMPLES_A_CLASS:
            return []
        found = [("diagonal", 0.1, 0.0)]
        if size >= 16 * plan.rank and dimension > 4 * plan.rank:
            found.append(("lowrank", 0.1, 0.0))
        held = 8 * folds.n_classes * dimension**2 * (len(folds.used) + 2)
        if held <= MAX_BYTES and size >= dimension / 8:
            rounds = sorted({plan.prior.identity, SCREEN_SHRINKAGE})
            found += [("full", strength, share) for strength in PRIOR_STRENGTHS for share in rounds]
        return [self.with_prior(replace(plan, family=f), share, strength * size) for f, strength, share in found]


def automatic_prior(folds: Folds, plan: Plan) -> Prior:
    """Prior from the moments (OAS); low-rank moments hold no matrix, so its strength is the number of factors."""
    if family_of(plan.family).sums_depend_on_parameters:
        return Prior(strength=float(plan.rank))
    return oas(folds.total(plan.family), plan.resolved(folds.feature_variance(plan.family))[1].scale)


def _unless_auto(asked: str, instead: str) -> str:
    return instead if asked == "auto" else asked


def _auto_counts(folds: Folds, plan: Plan) -> int | tuple[int, ...]:
    counts = choose_counts(plan, folds.x, folds.labels, folds.n_classes, folds.weight)
    return 1 if set(counts) == {1} else counts


def choose_counts(
    plan: Plan,
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    n_classes: int,
    weight: Float[Tensor, " N"] | None = None,
) -> tuple[int, ...]:
    """Number of components per class with the highest held-out likelihood.

    Each half of a class's samples is scored by a mixture of the other half. For a shared matrix, samples are rotated
    onto its axes and components are diagonal there, because its scale includes the spread between components.
    """
    if weight is not None:
        some = weight > 0
        x, labels, weight = x[some], labels[some], weight[some]
    side = content_folds(x, labels, 2, plan.seed) == 0
    if family_of(plan.family).shared:
        x = _turned(classes.fit(replace(plan, components=1), x, labels, n_classes, weight), x)
        plan = replace(plan, family="diagonal", feature_scale="none")
    variance = feature_variance(labeled(Diagonal, x, labels, n_classes, weight)[0])
    counts = torch.ones(len(x), dtype=torch.float64, device=x.device) if weight is None else weight.double()
    found: list[int] = []
    for c in range(n_classes):
        halves = [SampleHalf(x[own], counts[own]) for own in ((labels == c) & half for half in (side, ~side))]
        found.append(_count(plan, halves, variance))
    return tuple(found)


def _turned(mixture: Mixture, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Samples rotated onto the axes of a shared matrix, in units of the feature scales."""
    matrix = mixture.covariance.dense(1, x.shape[1])[0]
    scale = torch.ones_like(matrix[0]) if mixture.feature_scale is None else mixture.feature_scale.to(matrix)
    axes = linalg.eigh(matrix / (scale[:, None] * scale))[1]
    return (x - mixture.mean.mean(0).to(x.dtype)) @ (axes / scale[:, None]).to(x.dtype)


@dataclass(frozen=True)
class SampleHalf:
    """Half the samples of a class, with their weights."""

    x: Float[Tensor, "N D"]
    weight: Float[Tensor, " N"]


def _count(plan: Plan, halves: list[SampleHalf], variance: Float[Tensor, " D"]) -> int:
    """Number of components; increased from 1 while the held-out likelihood rises."""
    best, likelihood = 1, -torch.inf
    sizes = [float(half.weight.sum()) for half in halves]
    for count in range(1, MAX_COMPONENTS + 1):
        if sum(sizes) < 2 * MIN_SAMPLES_A_CLASS * count or not min(sizes) > 0:
            break
        richer = replace(plan, components=count)
        gained = sum(_density(richer, learn, judge, variance) for learn, judge in (halves, halves[::-1]))
        if gained <= likelihood:
            break
        best, likelihood = count, gained
    return best


def _density(plan: Plan, learn: SampleHalf, judge: SampleHalf, variance: Float[Tensor, " D"]) -> float:
    """Mean log-density (nats per sample) of ``judge`` under a mixture fitted to ``learn``."""
    zeros = torch.zeros(len(learn.x), dtype=torch.int64, device=learn.x.device)
    density = classes.fit(plan, learn.x, zeros, 1, learn.weight, variance).log_prob(judge.x).double()
    return float(judge.weight @ density / judge.weight.sum())
