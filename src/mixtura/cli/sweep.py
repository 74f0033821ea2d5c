"""``mixtura sweep``: compare heads on one set of features, in one table."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mixtura.cli import options
from mixtura.cli.output import Output
from mixtura.errors import UsageError
from mixtura.recipe import Recipe

Trials = Annotated[
    int | None,
    typer.Option(
        "--search",
        min=1,
        max=10**6,
        metavar="N",
        help="Search explained variance, components, shrinkage, learning rate and epochs of each head in N trials "
        "instead of the grid.",
        rich_help_panel="Grid",
    ),
]
Metric = Annotated[
    Literal["nll", "accuracy"] | None,
    typer.Option(
        metavar="NAME",
        help="Metric that a search optimizes: nll (lower) or accuracy (higher). Default: nll.",
        rich_help_panel="Grid",
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Refit the cell that is best on validation samples, and save it as a model with the recipe that makes it.",
        rich_help_panel="Grid",
    ),
]


@options.takes_recipe(
    {
        "Grid": ("sweep", "fit.epochs"),
        "Model": ("fit.learning_rate", "data.label", "data.level", "data.follow_links"),
        "Encoder": ("encoder",),
    },
    output="Folder for the runs and the page.",
)
def sweep(out: Output, recipe: Recipe, search: Trials = None, metric: Metric = None, save: Save = None) -> None:
    """Compare heads: fit each at every explained variance and component count, with several seeds, and plot the curves.

    One PCA per seed serves every explained variance; every head sees the same samples. Seeds are trained together.
    Results are one row per run (runs.parquet, runs.csv), one row per run and metric (metrics.csv), a page, and for a
    paper its figures as SVG files and all cells as a LaTeX table. If a sweep is interrupted, run the same command
    again: it continues where it stopped.

    Examples:
      mixtura sweep features/ -o sweep
      mixtura sweep features/ -o sweep --explained-variance 0.05,0.1,...,1
      mixtura sweep features/ -o sweep --n-components 1,2
      mixtura sweep features/ -o sweep --heads dgmmc-s,sdgm-d,softmax
      mixtura sweep features/ -o sweep --heads tied --solver closed,gradient
      mixtura sweep features/ -o sweep --solver gradient --objective hybrid
      mixtura sweep -r recipes/dgmmc-cifar100.yaml -o sweep
      mixtura sweep features/ -o sweep --save model   save the best cell
      mixtura sweep features/ -o search --heads tied --search 30
      mixtura sweep features/ -o sweep --json | jq .best
    """
    folder = options.need_output(recipe, "sweep features/ -o sweep")
    if search is not None:
        if save is not None:
            raise UsageError("--save saves the best cell of a grid. Leave out --search, or --save.")
        _search(out, recipe, search, metric or "nll")
        return
    if metric is not None:
        raise UsageError(f"--metric {metric} is for a search; a grid measures all. Add --search N, or leave it out.")
    from mixtura.cli import sweep_views as views
    from mixtura.cli.page import write_page
    from mixtura.cli.progress import Bar
    from mixtura.report.sweep import write_sweep
    from mixtura.report.sweep_files import write_files
    from mixtura.tasks.sweep import run

    with Bar(out) as reading, Bar(out, doing="Fitting heads") as fitting:
        made = run(recipe, reading, fitting, save)
    page = write_sweep(made.sweep, folder / "sweep.html", title=f"Heads on {made.sweep.facts['data']}")
    files = write_files(made.sweep, folder)
    if made.saved is not None:
        write_page(made.saved.bundle_path, made.saved.evaluation)
    record = views.sweep_record(made.sweep, page, files) | views.saved_record(made.saved)
    out.result(record, [str(page)], [*views.sweep_view(made.sweep, page, files), *views.saved_view(made.saved)])


def _search(out: Output, recipe: Recipe, trials: int, metric: str) -> None:
    """Run a search for each head and print its best setting."""
    from mixtura.cli import sweep_views as views
    from mixtura.errors import DataError
    from mixtura.sweeps.tuning import run

    found = {head: run(recipe, head, metric, trials) for head in recipe.sweep.heads}
    if all(one.best is None for one in found.values()):
        said = next(trial.note for one in found.values() for trial in one.trials)
        raise DataError(f"All trials failed. The first error: {said}")
    best = [f"{head}: {one.best.value:.4f}" for head, one in found.items() if one.best is not None]
    out.result(views.search_record(found), best, views.search_view(found))
