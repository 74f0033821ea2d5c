"""The sides at which photos may be read, and the one that some features were made at; imports no torch."""

import re
from collections.abc import Mapping

from mixtura.renames import EARLIER_SIZES

FAST_SIZE = 128
"""Side in pixels that ``--fast`` stands for."""

DEMO_SIZE = 96
"""Side in pixels at which the demo reads its photos, which have 28 x 28 pixels."""


def size_of(identity: Mapping[str, str]) -> int | None:
    """The side in pixels at which the encoder of an identity reads photos; ``None`` if it is unknown or not square.

    >>> size_of({"name": "lite0", "size": "96 px"}), size_of({"name": "timm:x", "size": "256 x 256 px"})
    (96, 256)
    >>> size_of({"name": "lite0"}), size_of({"name": "timm:x", "size": "256 x 192 px"})
    (128, None)
    """
    side = re.fullmatch(r"(\d+)(?: x \1)? px", identity.get("size", ""))
    return int(side[1]) if side else EARLIER_SIZES.get(identity.get("name", ""))
