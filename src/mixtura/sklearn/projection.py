"""Projections as estimator arguments: names and options, validated before fitting."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mixtura.errors import UnknownName, UsageError
from mixtura.features import PROJECTIONS
from mixtura.features.projected_folds import Steps
from mixtura.features.projection import Projection
from mixtura.names import find


def steps_of(given: Sequence[Any]) -> Steps:
    """Projection classes and options from steps; each step is a name, or a dict with a ``name`` and options.

    Raises:
        ValueError: an unknown name or option.
    """
    return [_step(dict(step) if isinstance(step, Mapping) else {"name": step}) for step in given]


def _step(options: dict[str, Any]) -> tuple[type[Projection], dict[str, Any]]:
    name = str(options.pop("name", ""))
    try:
        kind: type[Projection] = find(PROJECTIONS, name)
    except UnknownName as error:
        raise ValueError(f"projection: {error}") from error
    known = [option for option in inspect.signature(kind.fit).parameters if option not in ("x", "labels")]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"projection: {name!r} has no option {unknown[0]!r}. It has: {', '.join(known) or 'none'}.")
    return kind, options


@contextmanager
def as_value_errors() -> Iterator[None]:
    """Context manager that turns usage errors into the ``ValueError`` that scikit-learn users expect.

    Raises:
        ValueError: in place of a usage error.
    """
    try:
        yield
    except UsageError as error:
        raise ValueError(str(error)) from error
