"""Find objects by name: the whole registry of mixtura; and tell whether two names that people gave are one."""

import difflib
import importlib
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from mixtura.errors import BundleError, UnknownName

EXTENSIONS_VARIABLE = "MIXTURA_EXTENSIONS"
"""Environment variable with the packages, separated by commas, whose code stored files may name."""

# Format characters (category Cf), but for the tags of flags, and what Unicode calls ignorable of other categories.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff9-\ufffb\U000e0100-\U000e01ef]"
)

_WORDS_FOR_NAN = frozenset({"nan", "NaN", "<NA>"})


def same_name_key(text: str) -> str:
    """Return what two spellings of one name have in common: compare these keys to see whether a name is taken.

    The key is in Unicode normal form C and case-folded, without invisible characters and with single blanks; it is
    for comparison only and never shown. It is empty for a name that nobody could see.

    >>> same_name_key("Cafe\\u0301  au\\u00a0lait") == same_name_key("CAF\\u00c9 au\\u200b lait ")
    True
    """
    visible = " ".join(_INVISIBLE.sub("", text).split())
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", visible).casefold())


class Spellings:
    """Names that can be found by another spelling of them: see :func:`same_name_key`.

    >>> Spellings(["Apple", "APPLE", "pear"]).of("apple"), Spellings(["Apple", "APPLE"]).of("Apple")
    (['Apple', 'APPLE'], ['Apple'])
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._alike: dict[str, list[str]] = {}
        self._known = dict.fromkeys(known)
        for name in self._known:
            self._alike.setdefault(same_name_key(name), []).append(name)

    def of(self, name: str) -> list[str]:
        """The name itself if it is known, or else all that look the same."""
        return [name] if name in self._known else self._alike.get(same_name_key(name), [])


def text_or_none(value: Any) -> str | None:
    """Return a label, group or other name from a data file as text; ``None`` where it is missing.

    Missing are ``None``, NaN, blank text, and the words that NumPy, pandas and csv make of NaN.

    >>> text_or_none(float("nan")), text_or_none(" "), text_or_none("nan"), text_or_none(b"pin"), text_or_none(3)
    (None, None, None, 'pin', '3')
    """
    if value is None or value != value:
        return None
    text = (value.decode() if isinstance(value, bytes) else str(value)).strip()
    return None if text in _WORDS_FOR_NAN or not same_name_key(text) else text


JOINERS = frozenset("\u200c\u200d")
"""What joins or parts letters of a word, as in Persian, and the parts of an emoji; invisible on their own."""


def printable(text: str) -> str:
    """Return a name as it can be shown anywhere: control characters and the like are escaped, joiners stay.

    >>> printable("photo\\n1.jpg")
    'photo\\\\n1.jpg'
    """
    kept = (char.isprintable() or char in JOINERS for char in text)
    return "".join(
        char if keep else char.encode("unicode_escape").decode() for char, keep in zip(text, kept, strict=True)
    )


def quoted(text: str) -> str:
    """Return a name in quotes, for messages; joiners stay as they are.

    >>> quoted("it's") == repr("it's")
    True
    """
    return re.sub(r"(?<!\\)\\u(200[cd])", lambda found: chr(int(found[1], 16)), repr(text))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint with the closest known name, for the end of an error message.

    >>> nearest("diagnal", ["diagonal", "full"])
    "Did you mean 'diagonal'? Known: diagonal, full."
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {quoted(close[0])}? " if close else ""
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
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # an empty or relative module is the last two
        if name in table:
            raise
        raise UnknownName(f"Cannot load {name!r}: {error}. Check the module path and that it is installed.") from error


def is_outside(name: str) -> bool:
    """Whether a name stands for itself, as ``package.module:Attribute`` does, and not for an entry of a table.

    >>> is_outside("diagonal"), is_outside("mine.families:Ring")
    (False, True)
    """
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def require_allowed(name: str, place: object) -> None:
    """See that code may be loaded by a name that comes from a stored file, which others may have written.

    Entries of tables always may; ``package.module:Attribute`` may where ``MIXTURA_EXTENSIONS`` lists the package.

    Args:
        name: the name in the file.
        place: the file or folder, for the message.

    Raises:
        BundleError: the package is not listed; nothing was imported.
    """
    module = name.partition(":")[0]
    allowed = {one.strip() for one in os.environ.get(EXTENSIONS_VARIABLE, "").split(",")}
    if ":" in name and not any(module == one or module.startswith(f"{one}.") for one in allowed if one):
        raise BundleError(
            f"{place} uses {name!r}, which is no part of mixtura, and no code is run because a stored file names it. "
            f"If you trust this package, set {EXTENSIONS_VARIABLE}={module.partition('.')[0]}."
        )


def name_of(table: Mapping[str, str], thing: type) -> str:
    """The name by which :func:`find` gives a class: its key in a table, or else ``package.module:Class``."""
    own = f"{thing.__module__}:{thing.__qualname__}"
    return next((name for name, target in table.items() if target == own or _loaded(target) is thing), own)


def _loaded(target: str) -> Any:
    """What a target stands for, if its module is there already."""
    module, _, attribute = target.partition(":")
    return getattr(sys.modules.get(module), attribute, None)
