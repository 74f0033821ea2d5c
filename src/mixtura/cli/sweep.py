"""``mixtura sweep``: compare heads on one set of features, in one table."""

from typing import Annotated

import typer

from mixtura.cli import options
from mixtura.cli.output import Output
from mixtura.recipe import Recipe

Trials = Annotated[
    int | None,
    typer.Option(
        "--search",
        min=1,
        metavar="N",
        help="Search explained variance, components, shrinkage, learning rate and epochs of each head in N trials "
        "instead of the grid.",
        rich_help_panel="Grid",
    ),
]
Metric = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Metric that a search optimizes: nll (lower) or accuracy (higher).", rich_help_panel="Grid"
    ),
]


@options.takes_recipe(
    {
        "Grid": ("sweep", "fit.epochs"),
        "Model": ("fit.learning_rate", "data.label"),
        "Encoder": ("encoder",),
    },
    output="Folder for the runs and the page.",
)
def sweep(out: Output, recipe: Recipe, search: Trials = None, metric: Metric = "nll") -> None:
    """Compare heads: fit each at every explained variance and component count, with several seeds, and plot the curves.

    One PCA per seed serves every explained variance; every head sees the same samples. Seeds are trained together.
    Results are one row per run (runs.parquet, runs.csv) and a page. If a sweep is interrupted, run the same command
    again: it continues where it stopped.

    Examples:
      mixtura sweep features/ -o sweep
      mixtura sweep features/ -o sweep --explained-variance 0.05,0.1,...,1
      mixtura sweep features/ -o sweep --n-components 1,2
      mixtura sweep features/ -o sweep --heads dgmmc-s,sdgm-d,softmax
      mixtura sweep features/ -o sweep --heads tied --solver closed,gradient
      mixtura sweep features/ -o sweep --solver gradient --objective hybrid
      mixtura sweep -r recipes/dgmmc-cifar100.yaml -o sweep
      mixtura sweep features/ -o search --heads tied --search 30
      mixtura sweep features/ -o sweep --json | jq .best
    """
    folder = options.need_output(recipe, "sweep features/ -o sweep")
    if search is not None:
        _search(out, recipe, search, metric)
        return
    from mixtura.cli import views
    from mixtura.cli.progress import Bar
    from mixtura.report.sweep import write_sweep
    from mixtura.sweeps.grid import run

    with Bar(out) as reading, Bar(out, doing="Fitting heads") as fitting:
        made = run(recipe, reading, fitting)
    page = write_sweep(made, folder / "sweep.html", title=f"Heads on {made.facts['data']}")
    out.result(views.sweep_record(made, page), [str(page)], views.sweep_view(made, page))


def _search(out: Output, recipe: Recipe, trials: int, metric: str) -> None:
    """Run a search for each head and print its best setting."""
    from mixtura.cli import views
    from mixtura.errors import DataError
    from mixtura.sweeps.tuning import run

    found = {head: run(recipe, head, metric, trials) for head in recipe.sweep.heads}
    if all(one.best is None for one in found.values()):
        said = next(trial.note for one in found.values() for trial in one.trials)
        raise DataError(f"All trials failed. The first error: {said}")
    best = [f"{head}: {one.best.value:.4f}" for head, one in found.items() if one.best is not None]
    out.result(views.search_record(found), best, views.search_view(found))
