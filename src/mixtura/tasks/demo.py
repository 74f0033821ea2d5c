"""The whole way on photos that come with mixtura."""

from pathlib import Path

from mixtura.pipeline.extraction import ProgressCallback
from mixtura.recipe import Recipe, resolve
from mixtura.tasks import fit

UNKNOWN_CLASSES = ("Bag", "Sandal")
"""Two of the ten articles of Fashion-MNIST stand for what the shop does not sell."""
ENCODER_SIZE = 96


def recipe(output: Path) -> Recipe:
    """Eight articles as the catalog, two as the unknown."""
    return resolve(
        {
            "data.kind": "demo",
            "data.unknown": list(UNKNOWN_CLASSES),
            "encoder.size": ENCODER_SIZE,
            "output": str(output),
        }
    )


def run(output: Path, progress: ProgressCallback = None) -> fit.FitReport:
    """Extract, fit, calibrate, evaluate and save in ``output``.

    Raises:
        CannotWrite, OutOfSpace: the folder cannot be written.
    """
    return fit.run(recipe(output), progress)
