"""What each head takes beside what all heads take, read from its own signature."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mixtura.errors import UsageError
from mixtura.heads.base import Head
from mixtura.names import nearest

SECTION_OPTIONS = frozenset(
    {"dimension", "x", "labels", "n_classes", "components", "seed", "family", "rank", "shrinkage", "prior", "steps"}
)
"""What a head is given by its rows, by the solver, or by keys of a recipe of their own."""


def options_of(kind: type[Head]) -> dict[str, Any]:
    """The options of a head: name -> type.

    >>> from mixtura.heads.vmf import VonMisesFisherHead
    >>> options_of(VonMisesFisherHead)
    {'shared': <class 'bool'>}
    """
    taken = dict(inspect.signature(kind.from_rows).parameters)
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values()):
        taken |= inspect.signature(_further(kind)).parameters
    named = {name: one for name, one in taken.items() if one.kind is not inspect.Parameter.VAR_KEYWORD}
    return {name: one.annotation for name, one in named.items() if name not in SECTION_OPTIONS}


def _further(kind: type[Head]) -> Any:
    return kind.further or kind


def check_options(name: str, kind: Any, given: Mapping[str, Any]) -> None:
    """See that a head takes its options, before there are rows.

    Args:
        name: the head as the user calls it.
        kind: its class.
        given: options by name, as a recipe holds them.

    Raises:
        UsageError: it has no such option, or the value is of another type or out of its range; its options are named.
    """
    if not (isinstance(kind, type) and issubclass(kind, Head)):
        raise UsageError(f"{name!r} is no head: it is not a class of mixtura.heads.base.Head. Name one that is.")
    known = options_of(kind)
    for option, value in given.items():
        if option not in known:
            hint = nearest(option, known) if known else "It takes none."
            raise UsageError(f"The head {name!r} has no option {option!r} (head.options). {hint}")
        try:
            TypeAdapter(known[option], config=_ANY).validate_python(value, strict=True)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"].replace("Input should", "should", 1)
            raise UsageError(
                f"The option {option!r} of the head {name!r} (head.options) is {value!r}, but it {said}. "
                f"Its options: {', '.join(sorted(known))}."
            ) from error
    _try(kind, given)


_ANY = ConfigDict(arbitrary_types_allowed=True)


def _try(kind: type[Head], given: Mapping[str, Any]) -> None:
    """Build what the options go to, without memory, so that a value out of range is told at once."""
    further, built = (
        {name: value for name, value in given.items() if name in inspect.signature(target).parameters}
        for target in (_further(kind), kind)
    )
    if kind.further is not None and further:
        kind.further(**further)
    if built:
        with torch.device("meta"):
            kind(max(2, given.get("width") or 2), 2, **built)
