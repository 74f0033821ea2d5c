"""The cells of a grid: which of them can be fitted, the jobs that fit them, and the order of their runs."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from mixtura.errors import UnknownName, UsageError
from mixtura.fitting import checks, heads
from mixtura.heads import HEADS
from mixtura.names import find
from mixtura.recipe import Recipe
from mixtura.records.sweep import Cell, Skipped
from mixtura.sections import GRADIENT
from mixtura.sweeps.jobs import Job, SplitAssignment


def check(recipe: Recipe) -> None:
    """Validate the names and options of a grid, before any photo is read.

    Raises:
        UnknownName: a head or objective that does not exist.
        UsageError: an option that no objective takes, a section for networks, a second domain, or a grid of which no
            cell can be fitted.
    """
    checks.refuse_training(recipe)
    if recipe.data.second is not None:
        raise UsageError("A sweep tests on no second domain. Leave out data.second, and set it in mixtura fit.")
    grid = recipe.sweep
    left_out = skipped(recipe)
    if not any(True for _ in _methods_of_heads(recipe, left_out)):
        raise UsageError(f"There is nothing to run. {left_out[0].note}")
    if GRADIENT in grid.solvers:
        checks.check_objective_options(recipe.fit, grid.objectives)
    else:
        checks.check_no_objective(grid.objectives)


def skipped(recipe: Recipe) -> tuple[Skipped, ...]:
    """The cells of a grid that cannot be fitted, whatever the data, each with the reason.

    Raises:
        UnknownName: a head or objective that does not exist.
    """
    found = []
    for name, (solver, objective) in product(dict.fromkeys(recipe.sweep.heads), _methods(recipe)):
        for count in sorted(set(recipe.sweep.n_components)):
            note = _obstacle(recipe, name, solver, objective, count)
            if note:
                found.append(Skipped(name, solver, objective, count, note))
    return tuple(found)


def _obstacle(recipe: Recipe, name: str, solver: str, objective: str, count: int) -> str:
    """Why a head cannot be fitted so; empty if nothing is known against it."""
    if count > 1 and not find(HEADS, heads.resolve(name)[0]).multi_component:
        return f"The head {name!r} has one component a class. Ask for --n-components 1."
    try:
        spec = heads.spec_of(name, solver, count, recipe.head, 0)
        if objective:
            checks.check_objective(spec, recipe.fit, objective)
    except UnknownName:
        raise
    except UsageError as error:
        return str(error)
    return ""


def _methods(recipe: Recipe) -> list[tuple[str, str]]:
    """The solvers of a grid, each with its objectives; a solver without objectives has an empty one."""
    objectives = list(dict.fromkeys(recipe.sweep.objectives))
    solvers = dict.fromkeys(recipe.sweep.solvers)
    return [(name, own) for name in solvers for own in (objectives if name == GRADIENT else [""])]


def _methods_of_heads(recipe: Recipe, left_out: Sequence[Skipped]) -> Iterator[tuple[str, str, str, int]]:
    """Head, solver, objective and component count of the cells that are not left out."""
    lost = {(one.head, one.solver, one.objective, one.n_components) for one in left_out}
    for name, (solver, own) in product(dict.fromkeys(recipe.sweep.heads), _methods(recipe)):
        for count in sorted(set(recipe.sweep.n_components)):
            if (name, solver, own, count) not in lost:
                yield name, solver, own, count


def jobs_of(recipe: Recipe, draws: int) -> list[Job]:
    """The grid as jobs, widest first; closed forms with one Gaussian per class take all explained variances at once."""
    places, jobs = tuple(range(draws)), list[Job]()
    explained = tuple(sorted(set(recipe.sweep.explained_variance), reverse=True))
    for name, solver, own, count in _methods_of_heads(recipe, skipped(recipe)):
        closed = heads.spec_of(name, solver, count, recipe.head, 0).closed
        parts = [explained] if closed else [(one,) for one in explained]
        jobs += [Job(name, solver, own, count, part, places) for part in parts]
    return sorted(jobs, key=lambda job: -max(job.explained))


def keys(recipe: Recipe, draws: Sequence[SplitAssignment]) -> Iterator[Any]:
    """The key of every run, in grid order."""
    grid = recipe.sweep
    for name, (solver, objective), count in product(grid.heads, _methods(recipe), grid.n_components):
        for explained, draw in product(sorted(set(grid.explained_variance)), draws):
            yield Cell(name, solver, objective, explained, count), draw.seed, draw.fold
