"""What an identity says of the blocks of its vectors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtura.errors import StoreError
from mixtura.identity import Block, blocks_of, fingerprint, taps_of, with_blocks

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}(\.[a-z0-9_]{1,8}){0,3}", fullmatch=True)
WIDTHS = st.integers(1, 5000)


@given(WIDTHS, st.lists(st.tuples(NAMES, st.sampled_from(["mean", "std"]), WIDTHS), max_size=8))
def test_blocks_come_back_from_an_identity(first, further):
    blocks = [Block("last", "last", 0, first)]
    for layer, pooling, width in further:
        start = blocks[-1].stop
        blocks.append(Block(layer, pooling, start, start + width))
    made = with_blocks({"name": "any"}, blocks)
    assert blocks_of(made) == tuple(blocks)
    assert taps_of(made) == (",".join(dict.fromkeys(layer for layer, _, _ in further)) or "none")


def test_an_identity_without_taps_stays_as_it_is():
    identity = {"name": "lite0", "size": "96 px"}
    assert with_blocks(identity, ()) == identity
    assert fingerprint(with_blocks(identity, ())) == fingerprint(identity)
    assert blocks_of(identity) == ()
    assert taps_of(identity) == "none"


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "last",
        "last 0",
        "last -3",
        "last 1280,blocks.2 mean 40",
        "blocks.2 mean 40",
        "last 1280, last 1280",
        "last 1280, blocks.2 median 40",
        "last 1280, blocks.2 mean",
        "last 1280, blocks.2 mean 40, ",
        "last 12800000000",
        "last 1280, blocks 2 mean 40",
    ],
)
def test_damaged_taps_are_one_sentence(damaged):
    with pytest.raises(StoreError, match=r"The taps of encoder 'lite0' are damaged: .*Extract the features again\.$"):
        blocks_of({"name": "lite0", "taps": damaged})
