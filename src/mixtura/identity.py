"""The identity of whatever makes features, and its fingerprint."""

import hashlib
import json
from collections.abc import Mapping

IMPORTED_PREFIX = "imported:"
"""What the name of an encoder begins with whose features came from elsewhere."""


def fingerprint(identity: Mapping[str, str]) -> str:
    """The SHA-256 (hex) of the canonical JSON of ``identity``: equal for equal identities only.

    Library versions do not belong into an identity: they would make every upgrade a new encoder.

    >>> fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})
    True
    """
    text = json.dumps(dict(identity), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """The entries in which two identities differ, for an error message; another name says enough by itself.

    >>> differences({"name": "lite0", "size": "96"}, {"name": "lite0", "size": "128"})
    "size is '96' here and '128' there"
    """
    keys = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    keys = ["name"] if "name" in keys else keys
    return "; ".join(f"{key} is {ours.get(key, '')!r} here and {theirs.get(key, '')!r} there" for key in keys)
