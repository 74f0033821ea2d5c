"""Which test items a run got right, as a short text: a stored run keeps them for paired tests.

The bits of the items, in order, compressed and written in base 85: 10,000 items of which 95% are right take about 650
characters.
"""

import base64
import binascii
import zlib

import numpy as np
from jaxtyping import Bool

from mixtura.errors import DataError


def packed(right: Bool[np.ndarray, " N"]) -> str:
    """The items as text.

    >>> unpacked(packed(np.array([True, False, True])), 3).tolist()
    [True, False, True]
    """
    return base64.b85encode(zlib.compress(np.packbits(right).tobytes(), 9)).decode()


def unpacked(text: str, count: int) -> Bool[np.ndarray, " N"]:
    """The ``count`` items of a text by :func:`packed`.

    Raises:
        DataError: the text is damaged, or holds another number of items.
    """
    try:
        data = zlib.decompress(base64.b85decode(text))
    except (ValueError, binascii.Error, zlib.error) as error:
        raise DataError(
            f"The items of a stored run cannot be read ({error}). Run it again in another folder."
        ) from error
    bits = np.frombuffer(data, np.uint8)
    if len(bits) != -(-count // 8):
        raise DataError(f"A stored run holds {8 * len(bits)} items, not {count}. Run it again in another folder.")
    return np.unpackbits(bits, count=count).astype(bool)
