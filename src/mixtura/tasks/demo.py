"""The complete workflow on photos that ship with mixtura."""

from pathlib import Path

from mixtura.encoders.sizes import DEMO_SIZE
from mixtura.pipeline.extraction import ProgressCallback
from mixtura.recipe import Recipe, resolve
from mixtura.tasks import fit

UNKNOWN_CLASSES = ("Bag", "Sandal")
"""Two of the ten articles of Fashion-MNIST, kept out of the catalog: strangers to test with."""


def recipe(output: Path) -> Recipe:
    """A recipe with eight articles as the catalog and two as strangers."""
    return resolve(
        {
            "data.kind": "demo",
            "data.unknown": list(UNKNOWN_CLASSES),
            "encoder.size": DEMO_SIZE,
            "output": str(output),
        }
    )


def run(output: Path, progress: ProgressCallback = None) -> fit.FitReport:
    """Extract, fit, calibrate, evaluate and save the demo model in ``output``.

    Raises:
        CannotWrite, OutOfSpace: the folder cannot be written.
    """
    return fit.run(recipe(output), progress)
