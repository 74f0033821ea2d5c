"""Turn file names into safe text: ids that survive any file system, and labels that print on any terminal."""

import unicodedata
from urllib.parse import unquote_to_bytes

from mixtura.names import text_or_none

SOUND_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"})
"""Supported extensions of sound files."""

_UNPRINTABLE_CATEGORIES = frozenset(
    {"Cc", "Cs", "Zl", "Zp"}
)  # controls, undecodable bytes, line and paragraph separators


def to_id(path: str) -> str:
    """Encode a path as printable UTF-8, one to one: unprintable characters and ``%`` itself become ``%XX``.

    >>> to_id("pins/a b.jpg"), to_id("50%.jpg"), to_id("two\\nlines.jpg")
    ('pins/a b.jpg', '50%25.jpg', 'two%0Alines.jpg')
    """
    return readable(path.replace("%", "%25"))


def from_id(identifier: str) -> str:
    """Return the path of an id; the inverse of :func:`to_id`.

    >>> from_id("two%0Alines.jpg")
    'two\\nlines.jpg'
    """
    return unquote_to_bytes(identifier).decode("utf-8", "surrogateescape")


def readable(text: str) -> str:
    """Return printable, storable text: control characters and undecodable bytes become ``%XX``."""
    if text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _UNPRINTABLE_CATEGORIES else c for c in text)


def to_label(text: str) -> str:
    """Normalize a class name for comparison: printable, stripped, in Unicode normal form C.

    >>> to_label(" cafe\\u0301 ") == "caf\\u00e9"
    True
    """
    return unicodedata.normalize("NFC", readable(text)).strip()


def label_or_none(value: object) -> str | None:
    """Return a class name from a data file as :func:`to_label` gives it; ``None`` where it is missing."""
    text = text_or_none(value)
    return None if text is None else to_label(text)


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
