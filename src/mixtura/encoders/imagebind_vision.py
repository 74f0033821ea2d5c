"""The vision branch of ImageBind, from an installation of the user's own; see :mod:`mixtura.encoders.imagebind`.

The package prepares files by their paths only. Here the middle square of a photo is resized to the network's side,
bicubic: what the package does, but for the rounding at the border of the square.

Source: Girdhar et al., ImageBind: One Embedding Space To Bind Them All (CVPR 2023).
"""

import re
from pathlib import Path

import torch
from jaxtyping import Float, Num, UInt8
from PIL import Image
from torch import Tensor, nn

from mixtura.encoders import NATIVE_SIZES
from mixtura.encoders.common import Normalized, checked_device, checked_size, library_versions, to_tensor, to_train
from mixtura.encoders.imagebind import open_branch
from mixtura.errors import UsageError
from mixtura.formats import reason_of
from mixtura.identity import fingerprint

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_BLOCK = re.compile(r"modality_trunks\.\w+\.blocks\.\d+")


class ImageBindVision:
    """ImageBind's vision embedding: 224 px, 1,024 numbers, of the length that the package gives it.

    Args:
        size: side in pixels; 224 unless given. Whether others are possible is up to the package.
        weights: ``imagebind_huge.pth``, the same as safetensors, or a ``.safetensors`` of what :meth:`network` has
            become; fetched or found by the package itself if ``None``.
        device: where the network runs.

    Raises:
        MissingExtra: the package is not installed.
        UsageError: the size is out of range, or the network cannot take it.
        NoInput: the weights are missing. DataError: they do not fit.
    """

    name = "imagebind-vision"

    def __init__(
        self, size: int | None = None, weights: Path | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.size = checked_size(size, default=NATIVE_SIZES["imagebind-vision"])
        self.device = checked_device(device)
        self.draft = 2 * self.size
        branch, hashed = open_branch("VISION", weights)
        self.stages = tuple(name for name, _ in branch.network.named_modules() if _BLOCK.fullmatch(name))
        mean, std = (255 * torch.tensor(numbers) for numbers in (_MEAN, _STD))
        self._network = Normalized(branch, mean, std).to(self.device)
        self.dimension = self._measure()
        self.identity = {
            "name": self.name,
            "size": f"{self.size} px",
            "weights": hashed,
            "preprocessing": f"middle square resized, bicubic; (x / 255 - {_MEAN}) / {_STD}; "
            f"JPEG draft {self.draft} px",
            "dtype": "float32",
        }
        self.fingerprint = fingerprint(self.identity)
        self.versions = library_versions()

    def prepare(self, image: Image.Image) -> UInt8[Tensor, "3 H W"]:
        """The middle of the photo at the encoder's size, as bytes."""
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        side, (width, height) = min(rgb.size), rgb.size
        left, top = (width - side) / 2, (height - side) / 2
        middle = (left, top, left + side, top + side)
        return to_tensor(rgb.resize((self.size, self.size), Image.Resampling.BICUBIC, box=middle))

    @torch.inference_mode()
    def encode(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of prepared photos, float32, on the CPU."""
        return self._network(batch.to(self.device)).cpu()

    def network(self) -> nn.Module:
        """A fresh network to train, the vision branch as the package builds it, with its scaling; a copy in memory."""
        return to_train(self._network)

    def _measure(self) -> int:
        """The length of a vector, from one run on an empty photo."""
        try:
            return self.encode(torch.zeros(1, 3, self.size, self.size)).shape[1]
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            raise UsageError(
                f"{self.name} cannot take {self.size} px: {reason_of(error)}. Leave the size out."
            ) from error
