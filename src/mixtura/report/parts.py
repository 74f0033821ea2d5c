"""The parts of a page: the context that sections read, and the sections and figures that they return."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mixtura import formats
from mixtura.errors import DataError
from mixtura.records.decision import VERDICTS, Evaluation

Thumbnails = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Figure:
    """A drawing and the sentence below it."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading, the conclusion in plain words, and the content."""

    title: str
    lead: str
    body: Markup


@dataclass(frozen=True)
class PageContext:
    """An evaluation, the views that several sections share, and the source of thumbnails."""

    evaluation: Evaluation
    thumbnails: Thumbnails

    @cached_property
    def known(self) -> np.ndarray:
        """Which items are in the catalog."""
        return self.evaluation.true >= 0

    @cached_property
    def correct(self) -> np.ndarray:
        """Which items were classified correctly; never true for an item that is not in the catalog."""
        return self.evaluation.true == self.evaluation.predicted

    @cached_property
    def verdict(self) -> np.ndarray:
        """The verdicts as strings."""
        return self.evaluation.verdict.astype(str)


def require_whole(evaluation: Evaluation) -> None:
    """Check that all arrays cover the same items and use only known classes and verdicts.

    Raises:
        DataError: an array has another shape, or a class index or verdict does not exist.
    """
    count = len(evaluation.ids)
    if count == 0:
        raise DataError("The evaluation has 0 items. Evaluate on at least one.")
    for name in ("true", "predicted", "probability", "typicality", "score", "verdict"):
        shape = np.shape(getattr(evaluation, name))
        if shape != (count,):
            raise DataError(f"Evaluation.{name} has shape {shape}. It needs one value for each of the {count} items.")
    last = len(evaluation.classes) - 1
    for name, lowest in (("true", -1), ("predicted", 0)):
        index = getattr(evaluation, name)
        if index.min() < lowest or index.max() > last:
            raise DataError(f"Evaluation.{name} runs from {index.min()} to {index.max()}, not {lowest} to {last}.")
    strange = sorted(set(evaluation.verdict.astype(str).tolist()) - set(VERDICTS))
    if strange:
        raise DataError(f"Evaluation.verdict holds {strange[0]!r}. Known: {', '.join(VERDICTS)}.")


def render(template: str, **values: Any) -> Markup:
    """Fill in a template from this folder; everything that is not Markup is escaped."""
    return Markup(_environment().get_template(template).render(**values))  # noqa: S704  autoescape is on


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mixtura", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": formats.percent, "count": formats.count, "interval": formats.interval}
    return environment
