"""The class prior of a catalog: asked of the classes of the fit, and kept through every edit."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.catalog.statistics import FittedStatistics
from mixtura.core.mixture import Mixture
from mixtura.model.model import Model
from mixtura.model.prior import DATA, SCORE_PRIOR_FACT, UNIFORM, AskedPrior, score_share, with_prior

PRIOR_SETTING = "prior"
"""Setting that holds the class prior in place of the bundle's, as JSON."""


def under_prior(
    model: Model, base: FittedStatistics, parts: Sequence[tuple[int, int | None, float]], asked: AskedPrior
) -> Model:
    """The model of an edited catalog under the prior that was asked of the fitted classes.

    Under ``uniform`` every product has the same share. Otherwise a product has the shares of its fitted classes, a part
    without one that of an average class, and all are scaled to sum to 1.

    Args:
        model: of the catalog, under the prior of the fit.
        base: the model as it was fitted.
        parts: product and fitted class of each group of components, ``None`` for newcomers; and the share of the group
            in what was enrolled together.
        asked: the prior, with a share for each fitted class.
    """
    if asked.share is None:
        return with_prior(model, asked)
    count = len(model.classes)
    even = torch.full((count,), 1 / count, dtype=torch.float64)
    share = even if asked.name == UNIFORM else _of_products(asked.share, parts, count)
    old = _of_products(score_share(base.model), parts, count) if SCORE_PRIOR_FACT in base.model.facts else None
    return with_prior(model, AskedPrior(asked.name, share), old)


def _of_products(
    share: Float[Tensor, " C"], parts: Sequence[tuple[int, int | None, float]], count: int
) -> Float[Tensor, " P"]:
    """The share of each product, from those of the fitted classes."""
    fitted = [(product, own) for product, own, _ in parts if own is not None]
    kept = share[[own for _, own in fitted]]
    found = torch.zeros(count, dtype=torch.float64)
    found.index_add_(0, torch.tensor([product for product, _ in fitted]), kept / kept.sum() * len(fitted))
    for product, own, part in parts:
        found[product] += part if own is None else 0.0
    return found / found.sum()


def shift_of(asked: AskedPrior, model: Model, mixture: Mixture) -> Float[Tensor, " C"]:
    """What the prior adds to the log-scores of some of the fitted classes, in nats.

    Args:
        asked: the prior, with a share for each fitted class.
        model: as it was fitted.
        mixture: of the classes that are left, with weights as a fit gives them.
    """
    total = mixture.over_classes(mixture.log_weight[None].double())[0]
    if asked.share is None:
        return torch.zeros_like(total)
    old = score_share(model) if SCORE_PRIOR_FACT in model.facts else total.exp()
    shift = torch.where(total.isfinite() & (old > 0), (asked.share / old).log(), 0.0)
    return shift - (total + shift).logsumexp(0)


def to_value(asked: AskedPrior) -> bytes:
    """A prior as a catalog stores it."""
    return json.dumps({"prior": asked.word, "share": asked.values}).encode()


def from_value(value: bytes) -> AskedPrior:
    """The inverse of :func:`to_value`."""
    found = json.loads(value)
    name, share = found["prior"], found["share"]
    shares = None if share is None else torch.tensor(share, dtype=torch.float64)
    return AskedPrior(name if name in (DATA, UNIFORM) else Path(name), shares)
