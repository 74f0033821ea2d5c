"""Check whether a photo is good enough to judge. A flaw is reported with the verdict, not instead of it."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

MEASURED_SIDE = 256  # pixels of the longer side when measuring light and sharpness
MIN_SIDE = 16  # pixels
MIN_CONTRAST = 4.0  # standard deviation of the light, of 255
MIN_BRIGHTNESS, MAX_BRIGHTNESS = 20.0, 247.0  # mean light, of 255
MIN_SHARPNESS = 12.0  # mean square of the Laplacian of the light; sharp photos have hundreds
LEAST_TO_JUDGE = 128  # pixels of the shorter side; the sharpness of smaller photos means nothing


@dataclass(frozen=True)
class Flaw:
    """A flaw of a photo.

    ``kind`` is tiny, blank, dark, bright or blurred; ``value`` is the measurement (pixels, or light on a scale of 255)
    and ``limit`` the required minimum, or for ``bright`` the maximum.
    """

    kind: str
    value: float
    limit: float
    sentence: str
    advice: str


def flaw(image: Image.Image) -> Flaw | None:
    """Return the first obvious flaw of a photo; ``None`` if there is none."""
    short = min(image.size)
    if short < MIN_SIDE:
        said = f"The photo is only {image.width} x {image.height} pixels."
        return Flaw("tiny", float(short), float(MIN_SIDE), said, "Take it from nearer, or send a larger one.")
    small = image.convert("L")
    small.thumbnail((MEASURED_SIDE, MEASURED_SIDE))
    light = np.asarray(small, dtype=np.float64)
    mean, spread = float(light.mean()), float(light.std())
    if mean < MIN_BRIGHTNESS:
        said = f"The photo is dark: a mean light of {mean:.0f} of 255."
        return Flaw("dark", mean, MIN_BRIGHTNESS, said, "Take it again with more light, and nothing before the lens.")
    if mean > MAX_BRIGHTNESS:
        said = f"The photo is overexposed: a mean light of {mean:.0f} of 255."
        return Flaw("bright", mean, MAX_BRIGHTNESS, said, "Take it again with less light.")
    if spread < MIN_CONTRAST:
        said = f"The photo is blank: its light varies by {spread:.1f} of 255."
        return Flaw("blank", spread, MIN_CONTRAST, said, "Send another photo.")
    sharpness = _sharpness(small) if short >= LEAST_TO_JUDGE else MIN_SHARPNESS
    if sharpness < MIN_SHARPNESS:
        said = f"The photo is blurred: its edges have a strength of {sharpness:.0f}, sharp ones have hundreds."
        return Flaw("blurred", sharpness, MIN_SHARPNESS, said, "Hold still, or wipe the lens, and take it again.")
    return None


def _sharpness(small: Image.Image) -> float:
    kernel = ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=1, offset=128)
    edges = np.asarray(small.filter(kernel), dtype=np.float64)[1:-1, 1:-1] - 128
    return float(np.square(edges).mean())
