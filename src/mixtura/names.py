"""Find objects by name: the whole registry of mixtura."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from mixtura.errors import UnknownName


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint with the closest known name, for the end of an error message.

    >>> nearest("diagnal", ["diagonal", "full"])
    "Did you mean 'diagonal'? Known: diagonal, full."
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names)}."


def find(table: Mapping[str, str], name: str) -> Any:
    """Return the object for ``name``: an entry of ``table``, or any ``package.module:Attribute``.

    Raises:
        UnknownName: the name is in no table, or the module or attribute does not exist.
    """
    target = table.get(name, name)
    module, colon, attribute = target.partition(":")
    if not colon:
        raise UnknownName(f"Unknown name {name!r}. {nearest(name, table)} Or give package.module:Attribute.")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if name in table:
            raise
        raise UnknownName(f"Cannot load {name!r}: {error}. Check the module path and that it is installed.") from error
