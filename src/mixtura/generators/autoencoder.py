"""The wide half of a convolutional autoencoder: photos drawn from the vectors of a bottleneck."""

import math

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

HALVINGS = 4


class Decoder(nn.Module):
    """Four transposed convolutions, each of which doubles the sides, and a logistic function at the end.

    It mirrors an encoder whose maps have F, F / 2, F / 4 and F / 8 channels. The result is a photo in [0, 1], that is,
    bytes / 255; what follows the bottleneck in a vector (taps) is not read.

    Args:
        bottleneck: channels, height and width of the maps that the vector holds.
    """

    def __init__(self, bottleneck: tuple[int, int, int]) -> None:
        super().__init__()
        self.bottleneck = bottleneck
        widths = [bottleneck[0] * 2**place for place in range(HALVINGS)]
        layers: list[nn.Module] = []
        for into, out in zip(widths, [*widths[1:], 3], strict=True):
            layers += [nn.ConvTranspose2d(into, out, 2, stride=2), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    @property
    def dimension(self) -> int:
        """How many numbers of a vector are read, from its first on."""
        return math.prod(self.bottleneck)

    def logits(self, vectors: Float[Tensor, "N D"]) -> Float[Tensor, "N 3 H W"]:
        """The photos before the logistic function, from which losses are computed without rounding to 0 or 1."""
        return self.layers(vectors[:, : self.dimension].unflatten(1, self.bottleneck))

    def forward(self, vectors: Float[Tensor, "N D"]) -> Float[Tensor, "N 3 H W"]:
        """The photos."""
        return self.logits(vectors).sigmoid()

    @torch.no_grad()
    def pictures(self, vectors: Float[np.ndarray, "N D"] | Float[Tensor, "N D"]) -> list[Image.Image]:
        """The photos as RGB pictures, one a row, in the size that the encoder reads.

        Args:
            vectors: of photos, as ``encode`` gives them or a feature store holds them; or any others.
        """
        like = next(self.parameters())
        made = self(torch.as_tensor(vectors).to(like)).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
        return [Image.fromarray(picture) for picture in made.numpy()]
