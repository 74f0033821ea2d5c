"""Paired comparisons: the accuracy of each head's best cell against the selected cell's, on the same test rows."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest, permutation_test
from scipy.stats import t as student

from mixtura.metrics.intervals import Estimate, mean_interval, over_runs, over_runs_and_items
from mixtura.metrics.replicates import best_rows, right_items, selected
from mixtura.records.sweep import DONE, Cell, Comparison, Run, Sweep

RESAMPLES = 9999
"""Sign patterns drawn where there are more than can be listed; the smallest p-value is 0.0002."""


def comparisons(sweep: Sweep) -> list[Comparison]:
    """The best cell of each other head against the selected cell; all are chosen on validation rows.

    Omits cells whose runs do not say which test rows they got right, such as those of earlier versions.
    """
    best = selected(sweep)
    if best is None:
        return []
    found = [
        (one.cell, own)
        for one in best_rows(sweep)
        if one.cell != best.cell and (own := paired(sweep.runs, one.cell, best.cell)) is not None
    ]
    corrected = holm([p for _, (_, p) in found])
    return [
        Comparison(cell, difference.mean, mean_interval(difference), p, own)
        for (cell, (difference, p)), own in zip(found, corrected, strict=True)
    ]


def paired(runs: Sequence[Run], cell: Cell, other: Cell) -> tuple[Estimate, float] | None:
    """Accuracy of a cell minus that of another one on the same test rows, and the p-value of no difference.

    The p-value is the larger of two: Student's t with the variance of the differences over seeds and rows (over folds,
    if there are folds), which knows that seeds differ; and a test of signs over the rows, seeds averaged, which is
    exact for few differing rows (with one seed, McNemar's). ``None`` if no seed and fold has both.
    """
    matched = _matched(runs, cell, other)
    if not matched:
        return None
    folds = [_differences(matched, fold) for fold in dict.fromkeys(one.fold for one, _ in matched)]
    over_folds = [float(part.mean()) for part in folds]
    whole = over_runs(over_folds) if matched[0][0].fold else over_runs_and_items(folds[0])
    rows = np.concatenate([part.mean(0) for part in folds])
    return whole, max(_t_test(whole), sign_test(rows))


def _matched(runs: Sequence[Run], cell: Cell, other: Cell) -> list[tuple[Run, Run]]:
    """The runs of both cells by seed and fold."""
    own, others = (
        {(run.seed, run.fold): run for run in runs if run.cell == one and run.status == DONE and run.right}
        for one in (cell, other)
    )
    pairs = [(run, others[key]) for key, run in own.items() if key in others]
    return [pair for pair in pairs if pair[0].tested == pair[1].tested]


def _differences(matched: Sequence[tuple[Run, Run]], fold: str) -> Float[np.ndarray, "S N"]:
    """1, 0 or -1 for each seed and test row of a fold."""
    return np.stack([right_items(a).astype(float) - right_items(b) for a, b in matched if a.fold == fold])


def _t_test(difference: Estimate) -> float:
    if not difference.variance > 0:  # no row differs, or a single fold
        return 1.0 if difference.mean == 0 else 0.0
    return float(2 * student.sf(abs(difference.mean) / difference.variance**0.5, difference.degrees))


def sign_test(differences: Float[np.ndarray, " N"]) -> float:
    """Two-sided p-value of paired differences with random signs; exact where all are of one size (McNemar's test).

    >>> sign_test(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0, -1.0]))
    0.21875
    """
    some = differences[differences != 0]
    if not len(some):
        return 1.0
    if len(np.unique(np.abs(some))) == 1:
        return float(binomtest(int((some > 0).sum()), len(some)).pvalue)
    found = permutation_test(
        (some,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=500,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: all claims below a level hold together, with that level of error.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = highest
    return corrected
