"""The recipe of a sweep's best cell, as the sweep ran it: ``mixtura fit`` makes the same model of it again."""

from pathlib import Path

from mixtura import files
from mixtura.datasets.split import Split, read_split, write_split
from mixtura.errors import CannotWrite, DataError
from mixtura.features.records import Features
from mixtura.files import is_there
from mixtura.fitting import heads
from mixtura.metrics.replicates import selected
from mixtura.pipeline import factory, stores, training_set
from mixtura.recipe import Recipe
from mixtura.records.sweep import DONE, Cell, Run, Sweep
from mixtura.sections import FitSection, HeadSection, StepSection
from mixtura.sweep_sections import SweepSection
from mixtura.sweeps import grid
from mixtura.sweeps.jobs import TEST, SplitAssignment, Table


def recipe_of_best(recipe: Recipe, sweep: Sweep, folder: Path) -> Recipe:
    """The recipe of the cell that validation selected, to be fitted into a folder, where its split is written.

    It has the seed, the validation fraction, the shrinkage and the feature scale of the cell's first finished run, so
    that a fit starts from that run's choices. With folds, that run's fold is the test part.

    Raises:
        DataError: no run finished.
        CannotWrite: the folder holds another split.
    """
    best = selected(sweep)
    if best is None:
        raise DataError("No run finished, so there is no best cell to save. See the notes of the runs.")
    run = next(run for run in sweep.runs if run.cell == best.cell and run.status == DONE)
    features, classes = grid.gathered(recipe)
    draw = next(one for one in grid.split_assignments(features, recipe) if (one.seed, one.fold) == (run.seed, run.fold))
    table = grid.table_of(recipe, features, classes, (draw,))
    keep_split(recipe, features, draw, folder)
    changes = {
        "projection": (*grid.projection_of(recipe, features), *_axes(run, recipe.sweep.whiten_power)),
        "head": _head(recipe, table, run),
        "fit": _fit(recipe.fit, run.cell),
        "seed": run.seed,
        "split": recipe.split.model_copy(update={"file": folder / training_set.SPLIT_FILE}),
        "sweep": SweepSection(),
        "output": folder,
    }
    if recipe.data.kind != factory.FEATURES_KIND:
        changes["extract"] = recipe.extract.model_copy(update={"store": stores.store_path(recipe, features.identity)})
        changes["encoder"] = factory.section_of(features.identity, recipe.encoder)
    return recipe.model_copy(update=changes)


def keep_split(recipe: Recipe, features: Features, draw: SplitAssignment, folder: Path) -> None:
    """Write the split of a sweep, or of one of its folds, into a folder.

    Raises:
        CannotWrite: the folder holds another one.
    """
    split: Split = read_split(training_set.split_path(recipe))
    if draw.fold:
        split |= {id: "test" if role == TEST else "train" for id, role in zip(features.id, draw.role, strict=True)}
    path = folder / training_set.SPLIT_FILE
    if not is_there(path):
        with files.new_folder(folder):
            write_split(split, path)
    elif read_split(path) != split:
        raise CannotWrite(f"{path} is another split than that of the sweep. Save into a new folder.")


def _axes(run: Run, whiten_power: float) -> list[StepSection]:
    """The projection of a cell."""
    steps = [StepSection(name="pca", explained_variance=run.explained_variance)]
    return steps + ([StepSection(name="whiten", power=whiten_power)] if whiten_power else [])


def _fit(section: FitSection, cell: Cell) -> FitSection:
    objective = {"objective": cell.objective} if cell.objective else {}
    return section.model_copy(update={"solver": cell.solver, "min_val_fraction": 0.0} | objective)


def _head(recipe: Recipe, table: Table, run: Run) -> HeadSection:
    """The head of a cell, with the shrinkage and the feature scale that its run chose on validation rows."""
    section = recipe.head.model_copy(update={"name": run.head, "n_components": run.n_components})
    spec = heads.spec_of(run.head, run.solver, run.n_components, recipe.head, run.seed)
    if not spec.gaussian or spec.family == "auto":
        return section
    plan = heads.initialize(spec, table.folds(0, run.dimension)).plan
    assert plan is not None
    return section.model_copy(update={"shrinkage": plan.prior.identity, "feature_scale": plan.feature_scale})
