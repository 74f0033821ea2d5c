"""The identity of whatever makes features, and its fingerprint."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixtura.errors import StoreError

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


UNTRAINED = "init"
"""Entry of an identity whose weights are drawn at random: it says from which seed."""

DRAWN_STEM = "stem of seed"
"""How that entry begins where the first layers alone are drawn."""


def is_partly_drawn(identity: Mapping[str, str]) -> bool:
    """Whether the first layers of a network are drawn at random, and all behind them are not.

    >>> is_partly_drawn({"init": "stem of seed 0"}), is_partly_drawn({"init": "seed 0"}), is_partly_drawn({})
    (True, False, False)
    """
    return identity.get(UNTRAINED, "").startswith(DRAWN_STEM)


PHOTOS = "photos"


def items_read(identity: Mapping[str, str]) -> str:
    """What the maker of features reads, in a word for people.

    >>> items_read({"name": "lite0"}), items_read({"name": "logmel", "clips": "none"})
    ('photos', 'sounds')
    """
    if identity.get("name", "").startswith(IMPORTED_PREFIX):
        return "imported features"
    return "sounds" if "clips" in identity else PHOTOS


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """The entries in which two identities differ, for an error message; another name says enough by itself.

    >>> differences({"name": "lite0", "size": "96"}, {"name": "lite0", "size": "128"})
    "size is '96' here and '128' there"
    """
    keys = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    keys = ["name"] if "name" in keys else keys
    return "; ".join(f"{key} is {ours.get(key, '')!r} here and {theirs.get(key, '')!r} there" for key in keys)


LAST = "last"
POOLINGS = ("mean", "std")
"""How the output of a tapped layer is pooled over the positions of a photo."""

NO_TAPS = "none"
_ENTRY = re.compile(rf"(?:{LAST}|(\S+) ({'|'.join(POOLINGS)})) ([1-9]\d{{0,8}})")


@dataclass(frozen=True)
class Block:
    """Consecutive columns of a vector, from ``start`` up to but not including ``stop``, that one layer has made.

    ``pooling`` is ``last`` for the vector of the last layer, else ``mean`` or ``std`` (deviation) over the positions.
    """

    layer: str
    pooling: str
    start: int
    stop: int


def blocks_of(identity: Mapping[str, str]) -> tuple[Block, ...]:
    """The blocks of an encoder's vectors, in order; empty where the identity names no taps.

    >>> blocks_of({"taps": "last 1280, blocks.2 mean 40"})[1]
    Block(layer='blocks.2', pooling='mean', start=1280, stop=1320)

    Raises:
        StoreError: the entry is damaged.
    """
    if "taps" not in identity:
        return ()
    blocks: list[Block] = []
    for entry in identity["taps"].split(", "):
        found = _ENTRY.fullmatch(entry)
        if found is None or (found[1] is None) == bool(blocks):
            raise StoreError(
                f"The taps of encoder {identity.get('name', '')!r} are damaged: {entry!r} in {identity['taps']!r} is "
                "not the name, the pooling and the width of a layer. Extract the features again."
            )
        start = blocks[-1].stop if blocks else 0
        blocks.append(Block(found[1] or LAST, found[2] or LAST, start, start + int(found[3])))
    return tuple(blocks)


def with_blocks(identity: Mapping[str, str], blocks: Sequence[Block]) -> dict[str, str]:
    """An identity that names the blocks of its vectors; without any, it says nothing of taps.

    >>> with_blocks({"name": "lite0"}, [Block("last", "last", 0, 1280), Block("blocks.2", "mean", 1280, 1320)])
    {'name': 'lite0', 'taps': 'last 1280, blocks.2 mean 40'}
    """
    if not blocks:
        return dict(identity)
    made = [f"{LAST if b.pooling == LAST else f'{b.layer} {b.pooling}'} {b.stop - b.start}" for b in blocks]
    return {**identity, "taps": ", ".join(made)}


def options_of(identity: Mapping[str, str]) -> dict[str, Any]:
    """The options of the encoder's own that an identity names, as ``encoder.filters``.

    >>> options_of({"name": "cnn", "options": '{"filters": 4}'}), options_of({"name": "lite0"})
    ({'filters': 4}, {})

    Raises:
        StoreError: the entry is damaged.
    """
    try:
        found = json.loads(identity.get("options", "{}"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise StoreError(
            f"The options of encoder {identity.get('name', '')!r} are damaged: {identity['options']!r}. Extract the "
            "features again."
        )
    return found


def with_options(identity: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, str]:
    """An identity that names options of the encoder's own; without any, it says nothing of them."""
    return {**identity, "options": json.dumps(dict(options), sort_keys=True)} if options else dict(identity)


def taps_of(identity: Mapping[str, str]) -> str:
    """What ``encoder.taps`` has to be to make this encoder again: ``none``, or the names of layers.

    >>> taps_of({"taps": "last 1280, blocks.2 mean 40, blocks.2 std 40, blocks.4 mean 112, blocks.4 std 112"})
    'blocks.2,blocks.4'
    """
    layers = dict.fromkeys(block.layer for block in blocks_of(identity) if block.pooling != LAST)
    return ",".join(layers) or NO_TAPS
