"""Photos that several tests of training share."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def two_colors():
    """Writes two classes of so many photos each, which differ in color, into a folder."""

    def write(folder, each):
        rng = np.random.default_rng(0)
        for name, color in (("blue", (60, 80, 190)), ("red", (190, 80, 60))):
            (folder / name).mkdir(parents=True)
            for number in range(each):
                pixels = np.array(color) + rng.normal(0, 40, (16, 16, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number:02}.png")
        return folder

    return write
