"""Suggest the new name of a renamed option."""

from typing import Any

from mixtura import renames
from mixtura.cli.options import FLAGS


def renamed(command: str, flag: str, text: str | None) -> str | None:
    """Return the replacement for a renamed option and its value; ``None`` if it was not renamed.

    >>> renamed("sweep", "--share", "90,95")
    'Write --explained-variance 0.9,0.95.'
    """
    old = renames.RENAMED_OPTIONS.get((command, flag))
    if old is None:
        return None
    value = None if text is None else [_plain(part) for part in text.split(",")]
    new = renames.convert(old, value[0] if value and len(value) == 1 else value)
    said = [f"{FLAGS[key].switch} {_joined(one)}".strip() for key, one in new.items()]
    return f"Write {' '.join(said)}."


def _plain(part: str) -> Any:
    try:
        return float(part)
    except ValueError:
        return part.strip()


def _joined(value: Any) -> str:
    parts = value if isinstance(value, list | tuple) else [value]
    return ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in parts if one is not None)
