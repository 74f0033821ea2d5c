"""Compare heads in a grid and, if asked, save the best cell as a model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mixtura.catalog import create
from mixtura.errors import UsageError
from mixtura.files import is_there
from mixtura.fitting.gradient import fixed_head
from mixtura.pipeline import factory
from mixtura.pipeline.extraction import ProgressCallback
from mixtura.recipe import Recipe
from mixtura.records.sweep import Sweep
from mixtura.sweeps import grid
from mixtura.sweeps.grid import SweepProgress
from mixtura.sweeps.selected import recipe_of_best
from mixtura.tasks import fit
from mixtura.tasks.fit import FitReport


@dataclass(frozen=True)
class SweepReport:
    """The finished sweep, and the report of the best cell's model if one was to be saved."""

    sweep: Sweep
    saved: FitReport | None = None


def run(
    recipe: Recipe,
    progress: ProgressCallback = None,
    watch: Callable[[SweepProgress], None] | None = None,
    save: Path | None = None,
) -> SweepReport:
    """Run the grid of a recipe; the cell that is best on validation samples can be refitted and saved.

    Args:
        recipe: data, grid and training.
        progress: called while photos are read.
        watch: called after each job.
        save: folder for the model. It is fitted to all samples outside the test part, by the recipe that lies beside
            it, from which ``mixtura fit`` makes the same model.

    Raises:
        UsageError: a name that does not exist, no output folder, or one that serves both.
        NoInput, DataError: the data cannot be used, or no cell could be fitted.
        CannotWrite, OutOfSpace: a folder cannot be written.
    """
    if save is not None:
        _check_place(recipe, save)
    made = grid.run(recipe, progress, watch)
    return SweepReport(made, None if save is None else fit.run(recipe_of_best(recipe, made, save), progress))


def _check_place(recipe: Recipe, save: Path) -> None:
    """Check that a model can be saved there, before hours of fitting."""
    factory.output_of(recipe.model_copy(update={"output": save}), "the model", "model")
    if recipe.output is not None and save.resolve() == recipe.output.resolve():
        raise UsageError(f"{save} is the folder of the sweep. Save the model into one of its own, as in --save model.")
    if is_there(save):
        section = recipe.head
        named = (section.model_copy(update={"name": name}) for name in recipe.sweep.heads)
        fixed = (fixed_head(recipe.model_copy(update={"head": head})) for head in named)
        create.check_renewable(save, next(filter(None, fixed), None))
