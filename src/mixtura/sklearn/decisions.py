"""Typicality and verdicts of a classifier; out-of-fold and new samples take the same path."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.cross_fitting import Folds, OutOfFold
from mixtura.core.far_rows import posterior_of
from mixtura.core.leave_one_out import calibration_scores, has_exact_form
from mixtura.features.projected_folds import cross_fit_projection
from mixtura.features.selection import Selected
from mixtura.scores.typicality import MIN_HELD_OUT, Typicality
from mixtura.scores.verdict import judge
from mixtura.sklearn.layouts import Array
from mixtura.sklearn.weighted_rows import with_folds

MAX_COPIES = 1_000_000  # samples; more copies would refine no rank


@dataclass(frozen=True)
class Decisions:
    """The decisions on N samples, one array per column.

    ``label`` is the most probable class and ``probability`` its probability, assuming the sample is from one of the
    classes. ``typicality`` is the share, in [0, 1], of genuine samples that look at least this unusual. ``verdict`` is
    "match", "unsure" (improbable label) or "unknown" (typicality below ``limit``). ``reason`` is empty for a match,
    else "far_from_all", "between_classes" or "unusual_for_class".
    """

    label: np.ndarray
    probability: Float[np.ndarray, " N"]
    typicality: Float[np.ndarray, " N"]
    verdict: np.ndarray
    reason: np.ndarray
    limit: float

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Evidence:
    """What the model says of N samples: tempered class scores, and log-densities of classes and background, in nats."""

    scores: Float[Tensor, "N C"]
    log_density: Float[Tensor, " N"]
    background: Float[Tensor, " N"]

    @classmethod
    def of(
        cls,
        class_log_prob: Float[Tensor, "N C"],
        background: Float[Tensor, " N"],
        temperature: float,
        log_odds: Float[Tensor, " C"],
    ) -> "Evidence":
        """From log-densities at the class frequencies of the training samples; ``log_odds`` adds other priors."""
        scores = class_log_prob.double() / temperature + log_odds
        return cls(scores, (class_log_prob + log_odds.to(class_log_prob.dtype)).logsumexp(1), background)

    @property
    def predicted(self) -> Int[Tensor, " N"]:
        """Index of the most probable class."""
        return self.scores.argmax(1)

    @property
    def posterior(self) -> Float[Tensor, "N C"]:
        """Class probabilities; equal where a sample is too far away for any density."""
        return posterior_of(self.scores)

    @property
    def calibration(self) -> Typicality:
        """Typicality fitted to these samples.

        Raises:
            LabelError: fewer than two samples.
        """
        return Typicality.fit(self.log_density, self.background, self.predicted)

    def typicality(self, calibration: Typicality) -> Float[Tensor, " N"]:
        """Typicality of each sample."""
        ranks = calibration(calibration.score(self.log_density, self.background), self.predicted)
        return ranks.masked_fill(calibration.beyond(self.log_density), 0)

    def decisions(
        self, calibration: Typicality, typicality: Array, classes: np.ndarray, limit: float, min_probability: float
    ) -> Decisions:
        """Verdicts at a limit of the typicality; see :func:`mixtura.scores.verdict.judge`."""
        posterior = self.posterior.numpy()
        pooled = calibration.pooled(calibration.score(self.log_density, self.background)).numpy()
        far = calibration.far(self.log_density, self.background).numpy()
        verdict, reason = judge(posterior, typicality, pooled, far, limit, min_probability)
        return Decisions(classes[self.predicted.numpy()], posterior.max(1), typicality, verdict, reason, limit)


def held_out(found: Selected, rows: Folds, seed: int) -> OutOfFold:
    """Out-of-fold scores of the chosen projection and mixture, with the background.

    Args:
        found: the choice.
        rows: the samples without a projection; they have no folds yet if nothing was left to choose.
        seed: of these folds.
    """
    folds = found.folds if rows.n_folds else cross_fit_projection(found.steps, rows.x, with_folds(rows, seed))[1]
    plan = found.candidate.plan
    if has_exact_form(folds, plan):
        return calibration_scores(folds, plan)
    return folds.cross_val_predict(plan, background=True)


def typicality_of(held: OutOfFold, temperature: float, log_odds: Float[Tensor, " C"]) -> Typicality | None:
    """Typicality from out-of-fold scores; ``None`` if fewer than two samples could be held out."""
    held = _copies(held.counted)
    if len(held.row) < MIN_HELD_OUT:
        return None
    return Evidence.of(held.class_log_prob, held.background, temperature, log_odds).calibration


def _copies(held: OutOfFold) -> OutOfFold:
    """Each sample as often as its weight says, if all weights are whole numbers; other weights do not enter ranks."""
    count = held.weight.round()
    if not bool((count == held.weight).all()) or float(count.sum()) > MAX_COPIES:
        return held
    row = torch.arange(len(count)).repeat_interleave(count.long())
    return held.select(row)
