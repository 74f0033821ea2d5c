"""Blocks of columns, such as the layers of an encoder: which are kept, and how each is bent and scaled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mixtura.errors import UsageError
from mixtura.features.nonlinear import signed_power
from mixtura.features.projection import Projection
from mixtura.features.spectrum import check_features, check_width, work_dtype
from mixtura.identity import LAST, Block


class Part(NamedTuple):
    """Columns ``start`` to ``stop`` (exclusive), to the signed ``power``, scaled to unit mean square if ``unit``."""

    start: int
    stop: int
    power: float = 1.0
    unit: bool = False


@dataclass(frozen=True)
class Blocks(Projection):
    r"""Some blocks of columns, each to a signed power and scaled by one number.

    .. math:: z_b = \operatorname{sign}(x_b)\, |x_b|^{p_b} / s_b, \qquad
        s_b^2 = \operatorname{mean}_{n, d \in b} |x_{nd}|^{2 p_b} \text{ or } 1

    One number for a whole block barely depends on any one row, so out-of-fold scores treat it as a constant.
    """

    name: ClassVar[str] = "blocks"
    width: int
    parts: Sequence[Sequence[Any]]
    scale: Float[Tensor, " B"]

    @classmethod
    def fit(
        cls,
        x: Shaped[Tensor, "N D"],
        labels: Int[Tensor, " N"] | None = None,
        parts: Sequence[tuple[int, int, float, bool]] | None = None,
    ) -> "Blocks":
        """Compute the scale of each block.

        Args:
            x: training features.
            labels: not needed.
            parts: the blocks, each a :class:`Part`; by default a single one of all columns, scaled to unit mean square.

        Raises:
            UsageError: a block without columns, or outside the features.
            NonFinite, WrongDimension: features that cannot be fitted on.
        """
        check_features(x)
        width = x.shape[1]
        kept = [Part(0, width, 1.0, True)] if parts is None else [Part(*part) for part in parts]
        if not kept or any(not (0 <= part.start < part.stop <= width and 0 < part.power <= 1) for part in kept):
            raise UsageError(f"Blocks {kept} do not fit features of {width} columns. Give columns that are there.")
        return cls(width, [list(part) for part in kept], torch.stack([_scale(x, part) for part in kept]))

    def __call__(self, x: Shaped[Tensor, "N D"]) -> Float[Tensor, "N R"]:
        """The kept blocks, side by side."""
        check_width(x, self.width)
        x = x.to(work_dtype(x))
        parts = zip(self.parts, self.scale.to(x.dtype), strict=True)
        return torch.cat([_bent(x, Part(*part)) / scale for part, scale in parts], 1)


def described(blocks: Blocks, layout: Sequence[Block]) -> list[str]:
    """Each kept block in words, such as ``"last, square roots"`` or ``"blocks.5 mean, unit mean square"``."""
    names = {(b.start, b.stop): b.layer if b.pooling == LAST else f"{b.layer} {b.pooling}" for b in layout}
    return [_in_words(Part(*part), names) for part in blocks.parts]


def _in_words(part: Part, names: Mapping[tuple[int, int], str]) -> str:
    bent = "" if part.power == 1 else ", square roots" if part.power == 0.5 else f", power {part.power:g}"
    name = names.get((part.start, part.stop), f"columns {part.start} to {part.stop - 1}")
    return name + bent + (", unit mean square" if part.unit else "")


def _bent(x: Float[Tensor, "N D"], part: Part) -> Float[Tensor, "N B"]:
    """The columns of a block to its power."""
    x = x[:, part.start : part.stop]
    return x if part.power == 1 else signed_power(x, part.power)


def _scale(x: Shaped[Tensor, "N D"], part: Part) -> Float[Tensor, ""]:
    """The root mean square of a block, summed in float64; 1 for zeros and for blocks that are not scaled."""
    x = x.to(work_dtype(x))
    if not part.unit:
        return torch.ones((), dtype=x.dtype, device=x.device)
    square = _bent(x, part).square().mean(dtype=torch.float64)
    return torch.where(square > 0, square.sqrt(), 1.0).to(x.dtype)
