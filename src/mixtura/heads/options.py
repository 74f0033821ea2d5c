"""Head-specific options, read from the signature of each head."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mixtura.errors import UsageError
from mixtura.formats import plain_words
from mixtura.heads.base import Head
from mixtura.names import nearest

SECTION_OPTIONS = frozenset(
    {"dimension", "x", "labels", "n_classes", "components", "seed", "family", "rank", "shrinkage", "prior", "steps"}
)
"""Arguments that come from the samples, the solver, or other keys of a recipe."""


def options_of(kind: type[Head]) -> dict[str, Any]:
    """Options of a head, as name -> type.

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
    return kind.options_class or kind


def check_options(name: str, kind: Any, given: Mapping[str, Any]) -> None:
    """Check the options of a head; call it before reading samples.

    Args:
        name: the head's name as the user gave it.
        kind: its class.
        given: options by name, as in a recipe.

    Raises:
        UsageError: no such option, or a value of the wrong type or out of range; the message lists the options.
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
            said = plain_words(error.errors(include_url=False)[0]["msg"])
            raise UsageError(
                f"The option {option!r} of the head {name!r} (head.options) is {value!r}, but it {said}. "
                f"Its options: {', '.join(sorted(known))}."
            ) from error
    _try(kind, given)


_ANY = ConfigDict(arbitrary_types_allowed=True)


def _try(kind: type[Head], given: Mapping[str, Any]) -> None:
    """Build the head on the meta device, so an option out of range fails early."""
    further, built = (
        {name: value for name, value in given.items() if name in inspect.signature(target).parameters}
        for target in (_further(kind), kind)
    )
    if kind.options_class is not None and further:
        kind.options_class(**further)
    if built:
        with torch.device("meta"):
            kind(max(2, given.get("width") or 2), 2, **built)
