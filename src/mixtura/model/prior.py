r"""Another class prior for a fitted model: its scores, its temperature and its limits, without fitting again.

Where the scores are a density, only the weights of the classes change, which is exact. Elsewhere, the log-ratio of the
new prior to that of the scores joins them:

.. math:: s_c \leftarrow s_c + \log \pi'_c - \log \pi_c

Then temperature and typicality are set again by the out-of-fold items of the fit. Each counts with the new over the old
share of its class, so the items stand for others in which classes are as frequent as asked.

Source: Saerens, Latinne and Decaestecker, Adjusting the Outputs of a Classifier to New a Priori Probabilities, Neural
Computation 2002; Menon et al., Long-tail Learning via Logit Adjustment, ICLR 2021 (post hoc).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.core import temperature
from mixtura.errors import UsageError
from mixtura.model.held_out import HeldOut
from mixtura.model.model import ClassPrior, Model
from mixtura.scores.typicality import Typicality

DATA, UNIFORM = "data", "uniform"
"""Words for a prior: the shares of the training items, and equal shares. Anything else is a file."""

SCORE_PRIOR_FACT, DATA_PRIOR_FACT = "score_prior", "data_prior"
"""Facts of a model whose scores stand under another prior than the weights of its mixture: both, as shares."""


@dataclass(frozen=True)
class AskedPrior:
    """A prior as it was asked for: a word of this module or a file, with the shares of the fit's classes.

    ``share`` is ``None`` where the scores stay as they were fitted.
    """

    name: str | Path | None = None
    share: Float[Tensor, " C"] | None = None

    @classmethod
    def of(cls, model: Model) -> "AskedPrior":
        """That of a model."""
        return cls(model.decision.prior, None if model.prior is None else model.prior.share)

    @property
    def word(self) -> str:
        """How people are told."""
        return DATA if self.name is None else str(self.name)

    @property
    def kind(self) -> str:
        """``data``, ``uniform`` or ``file``: what everybody may know of it."""
        return self.word if self.word in (DATA, UNIFORM) else "file"

    @property
    def values(self) -> list[float] | None:
        """The shares as plain numbers."""
        return None if self.share is None else self.share.tolist()


def asked_prior(model: Model, name: str | Path, shares: Float[Tensor, " C"] | None = None) -> AskedPrior:
    """Return what a word, or the shares of a file, ask of a model.

    Where the scores stand under the data's shares, ``data`` leaves them as they are.
    """
    if name == DATA:
        untouched = SCORE_PRIOR_FACT not in model.facts
        return AskedPrior(name, None if untouched else data_share(model))
    count = len(model.classes)
    return AskedPrior(name, torch.full((count,), 1 / count, dtype=torch.float64) if name == UNIFORM else shares)


def data_share(model: Model) -> Float[Tensor, " C"]:
    """Return the share of each class among the training items."""
    return _fact(model, DATA_PRIOR_FACT)


def score_share(model: Model) -> Float[Tensor, " C"]:
    """Return the prior that the class scores stand under as they were fitted."""
    return _fact(model, SCORE_PRIOR_FACT)


def _fact(model: Model, key: str) -> Float[Tensor, " C"]:
    known: Any = model.facts.get(key)
    return class_totals(model).exp() if known is None else torch.tensor(known, dtype=torch.float64)


def class_totals(model: Model) -> Float[Tensor, " C"]:
    """Return the log-weight of each class in the mixture as it was fitted, beside a head or alone."""
    mixture = model.unadjusted
    return mixture.over_classes(mixture.log_weight[None].double())[0]


def without_prior(model: Model) -> Model:
    """Return the model with the scores of its fit; temperature and typicality stay."""
    return replace(model, mixture=model.unadjusted, prior=None)


def with_prior(model: Model, asked: AskedPrior, old: Float[Tensor, " C"] | None = None) -> Model:
    """Return a model whose scores stand under another prior; temperature and typicality stay.

    Args:
        model: any.
        asked: the prior, with a share for each class of the model.
        old: the prior of the scores, if the model's facts are not about these classes.
    """
    model = without_prior(model)
    model = replace(model, decision=model.decision.model_copy(update={"prior": asked.name}))
    if asked.share is None:
        return model
    before = model.mixture
    shift = _shift(model, asked.share, score_share(model) if old is None else old)
    if model.head is None:
        model = replace(model, mixture=before.with_prior(class_totals(model) + shift))
    return replace(model, prior=ClassPrior(asked.share, before.log_weight, shift))


def _shift(model: Model, share: Float[Tensor, " C"], old: Float[Tensor, " C"]) -> Float[Tensor, " C"]:
    """What joins the log-scores of the classes, in nats; a density stays one, with an integral of 1."""
    shift = torch.where(old > 0, (share / old).log(), 0.0)
    return shift - (class_totals(model) + shift).logsumexp(0) if model.head is None else shift


def recalibrated(model: Model, asked: AskedPrior) -> Model:
    """Return a model under another prior, with temperature and typicality from the out-of-fold items of its fit.

    The prior is changed first, since the temperature divides what it gives.

    Args:
        model: as it was fitted, or under any prior.
        asked: the prior, with a share for each class.

    Raises:
        UsageError: the model has no out-of-fold items.
    """
    model = with_prior(model, asked)
    held = under(model, held_of(model))
    some = torch.ones_like(held.half) if not len(held.raw) else ~held.raw.isnan()
    ranked = held.select(some)
    predicted = ranked.scores.argmax(1)
    columns = ranked.log_prob, ranked.background, predicted
    kinds = ranked.kind.gather(1, predicted[:, None])[:, 0] if len(ranked.kind) else None
    counts, ratio = None, torch.ones_like(held.weight)
    if asked.share is not None:
        counts, ratio = ranked.ratio(asked.share, torch.ones_like(ranked.weight)), held.ratio(asked.share, held.weight)
    return replace(
        model,
        temperature=temperature.fit(held.scores, held.label, held.weight * ratio, held.half),
        typicality=Typicality.fit(*columns, ranked.raw if len(ranked.raw) else None, kinds, counts),
    )


def held_of(model: Model) -> HeldOut:
    """Return the out-of-fold items of a model.

    Raises:
        UsageError: it has none.
    """
    if model.held is None:
        raise UsageError(
            "The model was fitted by an earlier version, which kept no out-of-fold scores, so no other class prior can "
            "be given limits. Fit again with mixtura fit; the features are kept."
        )
    return model.held


def under(model: Model, held: HeldOut) -> HeldOut:
    """Return out-of-fold items with the scores that they have under the prior of a model."""
    if model.prior is None:
        return held
    scores = held.scores.double() + model.prior.shift
    if model.head is not None:  # the density beside a head stays what it is
        return replace(held, scores=scores)
    rise = scores.logsumexp(1) - held.scores.double().logsumexp(1)
    return replace(held, scores=scores, log_prob=held.log_prob + rise)
