"""Random numbers that follow from a key alone: no state is kept, and no global generator is read or moved.

Only the raw output of Philox is used, which NumPy promises to keep from version to version; it does not promise that
of ``Generator.permutation`` or ``Generator.random``.
"""

import hashlib

import numpy as np
from jaxtyping import UInt64

Key = str | int | np.integer
"""A part of a key: what the numbers are for, a seed, an epoch, the id of an item."""


def bits(count: int, *key: Key) -> UInt64[np.ndarray, " N"]:
    """Return ``count`` random numbers of 64 bits; equal keys give equal numbers."""
    return _philox(*key).random_raw(count)


class KeyedRandom:
    """A stream of random numbers for one key; call its methods in a fixed order.

    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """

    def __init__(self, *key: Key) -> None:
        self._philox = _philox(*key)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number between ``low`` and ``high``; the upper end does not occur between 0 and 1."""
        return low + (high - low) * (int(self._philox.random_raw()) >> 11) * 2.0**-53

    def chance(self, probability: float) -> bool:
        """Return whether something of this probability happens."""
        return self.uniform() < probability

    def below(self, count: int) -> int:
        """Return an integer from 0 to ``count - 1``."""
        return int(self.uniform() * count)


def _philox(*key: Key) -> np.random.Philox:
    # repr keeps keys apart that a separator would join, as ("a", 1) and ("a1",); int, since NumPy has reprs of its own
    plain = tuple(part if isinstance(part, str) else int(part) for part in key)
    digest = hashlib.sha256(repr(plain).encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))
