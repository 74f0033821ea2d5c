"""The settings of a catalog that say how sure and how strict its model is: class prior, temperature and typicality."""

from dataclasses import replace

import torch
from jaxtyping import Int
from safetensors.torch import load, save
from torch import Tensor

from mixtura.catalog.database import CatalogDatabase, EditTransaction
from mixtura.catalog.priors import PRIOR_SETTING, to_value
from mixtura.catalog.queries import asked_of, setting_of
from mixtura.catalog.statistics import FittedStatistics
from mixtura.errors import UsageError
from mixtura.model.model import Model
from mixtura.model.prior import AskedPrior, with_prior
from mixtura.scores.typicality import Typicality

CALIBRATION_SETTING = "calibration"
"""Setting that holds the typicality and temperature that replace the fitted ones, as safetensors."""

Limits = tuple[Typicality, float]
"""A typicality whose classes are those of the fit, and a temperature."""


def limits_of(found: CatalogDatabase) -> Limits | None:
    """What replaces the fitted limits, if anything does."""
    stored = setting_of(found, CALIBRATION_SETTING)
    if stored is None:
        return None
    parts = load(stored)
    temperature = float(parts.pop("temperature"))
    return Typicality(**parts), temperature


def check_bundle(made_of: str | None, present: str) -> None:
    """Check that limits were made of the present model; ``None`` for any.

    Raises:
        UsageError: they were not.
    """
    if made_of not in (None, present):
        raise UsageError("The model was fitted again since the limits were made. Make them again.")


def fitted_models(found: CatalogDatabase, base: FittedStatistics) -> tuple[Model, Model]:
    """The model of the classes of the fit without any edit of these: with the prior and limits of now, and of then."""
    first = with_prior(base.model, base.asked)
    typicality, temperature = limits_of(found) or (first.typicality, first.temperature)
    now = with_prior(first, asked_of(found, base))
    return replace(now, typicality=typicality, temperature=temperature), first


def calibrate(draft: EditTransaction, typicality: Typicality, temperature: float, own: Int[Tensor, " P"]) -> None:
    """Replace the limits; ``own`` is the fitted class of each product that the typicality predicts."""
    kept = replace(typicality, predicted=own[typicality.predicted])
    draft.set("setting", CALIBRATION_SETTING, "value", _to_value((kept, temperature)))
    draft.summary = f"Calibrated anew on {len(typicality.scores)} items."


def set_prior(draft: EditTransaction, base: FittedStatistics, made: Model) -> None:
    """Replace the class prior and the limits by those of a model of the fitted classes."""
    asked = AskedPrior.of(made)
    as_fitted = asked.values == base.asked.values
    draft.set("setting", PRIOR_SETTING, "value", None if as_fitted else to_value(asked))
    limits = None if as_fitted else _to_value((made.typicality, made.temperature))
    draft.set("setting", CALIBRATION_SETTING, "value", limits)
    draft.summary = prior_summary(asked)


def prior_summary(asked: AskedPrior) -> str:
    """The edit that asks for a prior, in a sentence."""
    return f"Changed how frequent the classes are: {asked.word}."


def _to_value(limits: Limits) -> bytes:
    typicality, temperature = limits
    return save(typicality.state() | {"temperature": torch.tensor(temperature, dtype=torch.float64)})
