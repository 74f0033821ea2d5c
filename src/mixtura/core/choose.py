"""What "auto" means: family, shrinkage and component counts by cross-fitting, never by rows that were fitted."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import classes, linalg, temperature
from mixtura.core.classes import Plan
from mixtura.core.covariance import FAMILIES, Prior
from mixtura.core.cross import Folds, OutOfFold
from mixtura.core.mixture import Mixture
from mixtura.core.shrinkage import ledoit_wolf

SHARES = (0.0, 0.01, 0.1, 0.3)  # of the identity; Ledoit and Wolf's own is tried beside them
STRENGTHS = (0.1, 1.0, 10.0)  # pseudo-observations of the pooled covariance, in average class sizes
MOST_BYTES = 1 << 30  # for the sums of the full family over the folds
MOST_COMPONENTS = 4
FEW = 10  # rows a class; below, only the tied family is tried


@dataclass(frozen=True)
class Trial:
    """A plan with its held-out rows: ``accuracy`` is a share, ``loss`` the NLL (nats) at the best temperature."""

    plan: Plan
    held: OutOfFold
    accuracy: float
    loss: float

    def beats(self, other: "Trial") -> bool:
        """Whether the gain over ``other`` on the same rows exceeds its own standard error."""
        gain = self.held.correct - other.held.correct
        return float(gain.mean()) > float(gain.std() / len(gain) ** 0.5)


def attempt(folds: Folds, plan: Plan) -> Trial:
    """Cross-fit a plan."""
    held = folds.cross_val_predict(plan)
    best = temperature.best(held.class_log_prob, held.label)
    return Trial(plan, held, float(held.correct.mean()), temperature.nll(held.class_log_prob, held.label, best))


def most_accurate(trials: list[Trial]) -> Trial:
    """The lowest loss among the trials whose accuracy is within half a standard error of the best."""
    top = max(trial.accuracy for trial in trials)
    error = (top * (1 - top) / max(1, len(trials[0].held.row))) ** 0.5
    return min((trial for trial in trials if trial.accuracy >= top - 0.5 * error), key=lambda trial: trial.loss)


def shares(folds: Folds) -> tuple[float, ...]:
    """The shares of the identity to try; none at all is tried only where the pooled covariance has full rank."""
    least = 0.0 if len(folds.labels) > 3 * folds.x.shape[1] else 0.01
    automatic = ledoit_wolf(folds.x, folds.labels, folds.n_classes)
    return tuple(sorted({share for share in (*SHARES, round(automatic, 4)) if share >= least}))


def best_share(folds: Folds, plan: Plan) -> Trial:
    """The plan with the share of the identity that serves held-out rows best."""
    if FAMILIES[plan.family].round:  # a sphere is its own identity
        return attempt(folds, plan)
    return most_accurate([attempt(folds, replace(plan, prior=Prior(plan.prior.strength, s))) for s in shares(folds)])


def challengers(folds: Folds, plan: Plan) -> list[Plan]:
    """The other families that the data can carry, each with a few strengths of its prior."""
    counts = torch.bincount(folds.labels, minlength=folds.n_classes).double()
    size, dimension = float(counts.mean()), folds.x.shape[1]
    if float(counts.median()) < FEW:
        return []
    plans = [replace(plan, family="diagonal", prior=Prior(0.1 * size, 0.0))]
    if size >= 16 * plan.rank and dimension > 4 * plan.rank:
        plans.append(replace(plan, family="lowrank", prior=Prior(0.1 * size, 0.0)))
    held = 8 * folds.n_classes * dimension**2 * (len(folds.used) + 2)
    if held <= MOST_BYTES and size >= dimension / 8:
        identity = plan.prior.identity
        rounds = sorted({identity, 0.1})
        plans += [replace(plan, family="full", prior=Prior(s * size, i)) for s in STRENGTHS for i in rounds]
    return plans


def choose_family(folds: Folds, plan: Plan, shrinkage: float | None) -> Trial:
    """Tied with its best shrinkage, unless another family is more accurate by more than a standard error."""
    tied = replace(plan, family="tied")
    incumbent = with_shrinkage(folds, tied, shrinkage)
    rivals = challengers(folds, incumbent.plan)
    if shrinkage is not None:
        rivals = [replace(rival, prior=Prior(rival.prior.strength, shrinkage)) for rival in rivals]
    trials = [attempt(folds, rival) for rival in dict.fromkeys(rivals)]
    if trials and (rival := most_accurate(trials)).beats(incumbent):
        return rival
    return incumbent


def with_shrinkage(folds: Folds, plan: Plan, shrinkage: float | None) -> Trial:
    """A plan of a given family with a given share of the identity, or the best."""
    if shrinkage is not None:
        return attempt(folds, replace(plan, prior=Prior(_strength(folds, plan), shrinkage)))
    return best_share(folds, replace(plan, prior=Prior(_strength(folds, plan), 0.0)))


def _strength(folds: Folds, plan: Plan) -> float:
    """Pseudo-observations for families with a spread for each component: a tenth of a class, or more."""
    if FAMILIES[plan.family].shared:
        return 0.0
    return max(1.0, 0.1 * len(folds.labels) / folds.n_classes)


def choose_counts(plan: Plan, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_classes: int) -> tuple[int, ...]:
    """For each class the number of components that gives its held-out rows the highest density.

    Half the rows of a class judge the other half, and the reverse. For a shared matrix the rows are turned onto its
    axes, and components are diagonal there: its scale along them is partly the spread between components.
    """
    mixture = classes.fit(replace(plan, components=1), x, labels, n_classes)
    family = plan.family
    if FAMILIES[family].shared:
        shared = mixture.covariance.dense(1, x.shape[1])[0]
        x, family = (x - mixture.mean.mean(0).to(x.dtype)) @ linalg.eigh(shared)[1].to(x.dtype), "diagonal"
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(plan.seed)).to(x.device)  # halves by chance
    x, labels = x[order], labels[order]
    return tuple(_count(replace(plan, family=family), x[labels == c]) for c in range(n_classes))


def _count(plan: Plan, x: Float[Tensor, "N D"]) -> int:
    """1, 2, ... as long as one more component raises the held-out likelihood."""
    best, likelihood = 1, -torch.inf
    for count in range(1, MOST_COMPONENTS + 1):
        if len(x) < 2 * FEW * count:
            break
        gained = sum(_density(replace(plan, components=count), x[side::2], x[1 - side :: 2]) for side in (0, 1))
        if gained <= likelihood:
            break
        best, likelihood = count, gained
    return best


def _density(plan: Plan, learn: Float[Tensor, "N D"], judge: Float[Tensor, "M D"]) -> float:
    """Mean log-density (nats) of some rows under a mixture of others."""
    zeros = torch.zeros(len(learn), dtype=torch.int64, device=learn.device)
    return float(classes.fit(plan, learn, zeros, 1).evidence(judge).double().mean())


def bic(mixture: Mixture, x: Float[Tensor, "N D"]) -> float:
    r"""Bayesian information criterion, :math:`p \log N - 2 \log L`; lower is better."""
    n = len(x)
    return mixture.n_parameters * float(torch.tensor(float(n)).log()) - 2 * float(mixture.evidence(x).double().sum())


def choose(
    folds: Folds,
    plan: Plan,
    family: str = "auto",
    shrinkage: float | None = None,
    components: int | str | tuple[int, ...] = 1,
) -> Trial:
    """The plan with all that was left open filled in, and its held-out rows.

    Args:
        folds: the rows, with their folds.
        plan: floor, rank, steps and seed are taken from it.
        family: a name in ``FAMILIES``, or ``"auto"``.
        shrinkage: share of the identity in [0, 1]; ``None`` finds it.
        components: a number for all classes, one a class, or ``"auto"`` (held-out likelihood).
    """
    plan = replace(plan, components=1)
    if family == "auto":
        trial = choose_family(folds, plan, shrinkage)
    else:
        trial = with_shrinkage(folds, replace(plan, family=family), shrinkage)
    if components == 1:
        return trial
    counts = components if not isinstance(components, str) else _auto_counts(folds, trial.plan)
    if counts == 1:
        return trial
    richer = attempt(folds, replace(trial.plan, components=counts))
    # Asked for by number, the components are kept; chosen by likelihood, they must not cost accuracy.
    return richer if not isinstance(components, str) or not trial.beats(richer) else trial


def _auto_counts(folds: Folds, plan: Plan) -> int | tuple[int, ...]:
    counts = choose_counts(plan, folds.x, folds.labels, folds.n_classes)
    return 1 if set(counts) == {1} else counts
