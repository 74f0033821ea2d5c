"""Taps: the outputs of later layers of a network, pooled over the positions of a photo, beside its vector.

The last layer forgets pose, texture and color, which separate things that its training classes do not. Averages and
standard deviations of earlier outputs keep them, and come from the same forward pass.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from mixtura.encoders.common import OwnNames
from mixtura.errors import UnknownName, UsageError
from mixtura.identity import LAST, NO_TAPS, POOLINGS, Block

AUTO, LAST_N = "auto", "last-"
MAX_STAGES, MIN_REDUCTION = 5, 8  # of a network whose stages halve the photo: earlier ones see edges and colors only
MAX_TOKEN_BLOCKS = 4  # of a network whose layers all have the same positions
_SEEN: ContextVar[dict[str, tuple[Tensor, Tensor]] | None] = ContextVar("_SEEN", default=None)


@dataclass(frozen=True)
class Positions:
    """Where the positions of a photo are in the output of a layer.

    Args:
        channels_last: maps are N H W C, as in Swin; else N C H W.
        prefix: tokens before those of the patches, at most.
        patches: number of patches; a sequence no longer than this has no other tokens.
    """

    channels_last: bool = False
    prefix: int = 0
    patches: int = 0

    def pooled(self, output: Any) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"]] | None:
        """The mean and the standard deviation over the positions; ``None`` if the output has no positions.

        The deviation is that of the population; where it is zero, so is its gradient.
        """
        x = next((part for part in _flat(output) if isinstance(part, Tensor) and part.dim() in (3, 4)), None)
        if x is None:
            return None
        x, axes = x.float(), (1, 2) if self.channels_last else (2, 3)
        if x.dim() == 3:
            x, axes = x[:, max(0, min(self.prefix, x.shape[1] - self.patches)) :], (1,)
        mean = x.mean(axes, keepdim=True)
        variance = (x - mean).square().mean(axes)  # several times as fast as torch.var on channels-last maps
        varies = variance > 0
        return mean.flatten(1), torch.where(varies, variance, 1).sqrt() * varies


class _Tap:
    """A forward hook that pools the output of a layer while its network runs inside :class:`Tapped`."""

    def __init__(self, layer: str, positions: Positions) -> None:
        self.layer, self.positions = layer, positions

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        seen = _SEEN.get()  # of this thread: several may encode at once
        pooled = None if seen is None else self.positions.pooled(output)
        if seen is not None and pooled is not None:
            seen[self.layer] = pooled


class Tapped(OwnNames):
    """A network whose vector is followed by the mean and the deviation of each tapped layer, layer by layer.

    Args:
        network: from photos to vectors; the taps stay in it, and do nothing where it runs outside of this module.
        inside: the submodule whose names identify the layers.
        layers: to be tapped, in the order of the vector.
        positions: how their outputs are laid out.
    """

    def __init__(self, network: nn.Module, inside: nn.Module, layers: Sequence[str], positions: Positions) -> None:
        super().__init__()
        self.network, self.layers = network, tuple(layers)
        for layer in self.layers:
            inside.get_submodule(layer).register_forward_hook(_Tap(layer, positions))

    def forward(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "M D"]:
        """The vectors of a batch of photos."""
        vector, seen = self._run(batch)
        return torch.cat([vector.float(), *(part for layer in self.layers for part in seen[layer])], dim=1)

    def blocks(self, photo: Num[Tensor, "1 3 H W"]) -> tuple[Block, ...]:
        """The blocks of the vector, from one run on any photo.

        Raises:
            UsageError: a layer has no output with positions.
        """
        with torch.inference_mode():
            vector, seen = self._run(photo)
        blocks = [Block(LAST, LAST, 0, vector.shape[1])]
        for layer in self.layers:
            if layer not in seen or len(seen[layer][0]) != len(photo):
                raise UsageError(f"Layer {layer!r} has no output by position to be averaged. Tap another layer.")
            for pooling in POOLINGS:
                start = blocks[-1].stop
                blocks.append(Block(layer, pooling, start, start + seen[layer][0].shape[1]))
        return tuple(blocks)

    def _run(self, batch: Tensor) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        token = _SEEN.set(seen)
        try:
            return self.network(batch), seen
        finally:
            _SEEN.reset(token)


def pooled_so_far() -> dict[str, tuple[Tensor, Tensor]]:
    """The mean and the deviation of each tapped layer that the running pass has seen; empty outside of one.

    What is put into it stands for layers that a pass which begins in the middle does not run.
    """
    seen = _SEEN.get()
    return {} if seen is None else seen


def layers_of(
    taps: str, name: str, known: Sequence[str], stages: Sequence[str], auto: Sequence[str]
) -> tuple[str, ...]:
    """The layers that a setting names, in the order of the network.

    Args:
        taps: ``auto``, ``none``, ``last-N``, or names of modules between commas.
        name: of the encoder, for messages.
        known: layers that may be named, in this order.
        stages: those that ``last-N`` counts.
        auto: those of ``auto``.

    Raises:
        UnknownName: there is no such layer; the nearest is named.
        UsageError: the setting makes no sense, or there are not so many stages.
    """
    if taps in (AUTO, NO_TAPS):
        return tuple(auto) if taps == AUTO else ()
    if taps.startswith(LAST_N) and "," not in taps:
        return _last(taps, name, stages)
    given = [layer.strip() for layer in taps.split(",")]
    for layer in given:
        if layer in ("", AUTO, NO_TAPS) or layer.startswith(LAST_N):
            raise UsageError(
                f"encoder.taps {taps!r} holds {layer!r} between the commas. Give auto, none or last-N alone, or only "
                "names of layers."
            )
        if layer not in known:
            raise UnknownName(f"{name} has no layer {layer!r} to tap. {_near(layer, known, stages)}")
    return tuple(layer for layer in known if layer in given)


def later_stages(stages: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """The stages that ``auto`` taps, of those of a network with their reductions of the photo.

    >>> later_stages([("stem", 4), ("layer2", 8), ("layer3", 16)])
    ('layer2', 'layer3')
    """
    if len({reduction for _, reduction in stages}) == 1 < len(stages):
        return tuple(layer for layer, _ in stages)[-MAX_TOKEN_BLOCKS:]
    return tuple(layer for layer, reduction in stages if reduction >= MIN_REDUCTION)[-MAX_STAGES:]


def settled(
    taps: str, made: Tapped, photo: Num[Tensor, "1 3 H W"], channels: Mapping[str, int] | None = None
) -> tuple[nn.Module, tuple[Block, ...]]:
    """The network with its taps and the blocks of its vectors, from one run on any photo.

    It is the bare network where nothing is tapped, or where ``auto`` would tap what cannot be averaged.

    Args:
        taps: the setting.
        made: the network with its taps.
        photo: any.
        channels: of some layers, as their library lists them; an output of another width is laid out otherwise.

    Raises:
        UsageError: a layer that was asked for has no output with positions, or not where they are expected.
    """
    if not made.layers:
        return made.network, ()
    try:
        blocks = made.blocks(photo)
        _check(blocks, channels or {})
        return made, blocks
    except UsageError:
        if taps == AUTO:
            return made.network, ()
        raise


def _check(blocks: Sequence[Block], channels: Mapping[str, int]) -> None:
    for block in blocks:
        width = block.stop - block.start
        if channels.get(block.layer, width) != width:
            raise UsageError(
                f"Layer {block.layer!r} gives {width} numbers a position where {channels[block.layer]} are listed, so "
                "it cannot be averaged. Tap another layer."
            )


def _last(taps: str, name: str, stages: Sequence[str]) -> tuple[str, ...]:
    if not stages:
        raise UsageError(f"{name} has no stages that can be tapped, and encoder.taps is {taps!r}. Leave it out.")
    count = taps.removeprefix(LAST_N)
    if not (count.isascii() and count.isdecimal() and 1 <= int(count) <= len(stages)):
        raise UsageError(
            f"encoder.taps {taps!r} does not fit: {name} has {len(stages)} stages. Give last-1 to last-{len(stages)}."
        )
    return tuple(stages[-int(count) :])


def _near(layer: str, known: Sequence[str], stages: Sequence[str]) -> str:
    close = get_close_matches(layer, stages, n=1, cutoff=0.6) or get_close_matches(layer, known, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Its stages: {', '.join(stages)}." if stages else f"{hint or 'Leave encoder.taps out.'}".strip()


def _flat(output: Any) -> tuple[Any, ...]:
    return tuple(output) if isinstance(output, tuple | list) else (output,)
