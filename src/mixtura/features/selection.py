"""Which projection and which mixture: what is left open is settled by held-out rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mixtura.core import selection as choosing
from mixtura.core.classes import Plan
from mixtura.core.covariance import Prior
from mixtura.core.cross_fitting import Folds
from mixtura.core.selection import SCREEN_SHRINKAGE, Candidate
from mixtura.features.block_selection import choose_blocks
from mixtura.features.nonlinear import Power, RandomFeatures
from mixtura.features.projected_folds import Steps, cross_fit_projection
from mixtura.features.projection import Chain
from mixtura.identity import Block

MIN_SAMPLES_FOR_RANDOM = 20_000  # rows from which random features are tried
RANDOM_FEATURES = 5000  # random features
MAX_BYTES = 1 << 31  # for the random features of all rows


@dataclass(frozen=True)
class Selected:
    """The projection, as steps and fitted, the folds in its space, and the plan with its held-out rows."""

    steps: Steps
    projection: Chain
    folds: Folds
    candidate: Candidate


def candidates(x: Float[Tensor, "N D"]) -> list[Steps]:
    """The projections that ``auto`` tries: features as they are, and their square roots where none is negative."""
    return [[], [(Power, {})]] if bool((x >= 0).all()) else [[]]


def select(
    folds: Folds,
    plan: Plan,
    options: Sequence[Steps],
    random_features: bool = False,
    blocks: Sequence[Block] = (),
    **asked: Any,
) -> Selected:
    """The projection and the mixture that serve held-out rows best.

    Args:
        folds: the rows as they are, with the folds that are held out in turn.
        plan: as in :func:`mixtura.core.selection.choose`.
        options: the projections to try, of which one quick mixture chooses.
        random_features: whether random features may come on top, where there are many rows.
        blocks: the layers that the columns come from, of which those that help are kept, before any other step.
        **asked: what :func:`mixtura.core.selection.choose` is asked for.
    """
    kept = choose_blocks(folds, plan, blocks)
    options = [[*kept, *steps] for steps in options]
    spaces = [cross_fit_projection(steps, folds.x, folds) for steps in options]
    best, known = 0, ()
    if len(spaces) > 1:
        quick = replace(plan, family="tied", prior=Prior(0.0, SCREEN_SHRINKAGE))
        trials = [choosing.cross_validate(space, quick) for _, space in spaces]
        winner = choosing.most_accurate(trials)
        best, known = next(i for i, trial in enumerate(trials) if trial is winner), (winner,)
    projection, space = spaces[best]
    trial = choosing.choose(space, plan, **asked, tried=known)
    selected = Selected(options[best], projection, space, trial)
    enough = len(folds.x) >= MIN_SAMPLES_FOR_RANDOM and 4 * len(folds.x) * RANDOM_FEATURES <= MAX_BYTES
    return _with_random_features(selected, folds, plan, asked) if random_features and enough else selected


def _with_random_features(selected: Selected, folds: Folds, plan: Plan, asked: dict[str, Any]) -> Selected:
    """Random features on top, where they gain more than a standard error."""
    plain = choosing.cross_validate(selected.folds, selected.candidate.plan)
    selected.folds.clear_cache()
    further = [*selected.steps, (RandomFeatures, {"dimension": RANDOM_FEATURES, "seed": plan.seed})]
    projection, space = cross_fit_projection(further, folds.x, folds)
    trial = choosing.choose(space, plan, **(asked | {"family": "tied", "components": 1}))
    return Selected(further, projection, space, trial) if trial.significantly_better_than(plain) else selected
