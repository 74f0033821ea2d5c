"""``mixtura sweep``: every head on one set of features, in one table."""

from typing import TYPE_CHECKING, Annotated

import typer

from mixtura.cli import options
from mixtura.cli.output import Output

if TYPE_CHECKING:
    from mixtura.recipe import Recipe

GRID = "Grid"
Heads = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        help=f"{options.HEAD_NAMES}. Default: spherical,diagonal,tied,linear.",
        rich_help_panel=GRID,
    ),
]
Solvers = Annotated[
    str | None,
    typer.Option(metavar="A,B,...", help=f"{', '.join(options.SOLVERS)}. Default: gradient.", rich_help_panel=GRID),
]
Objectives = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        help=f"What the solver gradient lowers: {options.OBJECTIVE_NAMES}. Default: conditional.",
        rich_help_panel=GRID,
    ),
]
Variances = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,...",
        help="Fractions of the variance that PCA keeps; 0.1,0.2,...,1 fills in the steps. "
        "Default: 0.2,0.4,0.6,0.8,0.9,0.95,1.",
        rich_help_panel=GRID,
    ),
]
Counts = Annotated[
    str | None,
    typer.Option(metavar="N,M,...", help="Gaussians per class. Default: 1.", rich_help_panel=GRID),
]
Seeds = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Runs of each cell. Default: 3.", rich_help_panel=GRID)
]
Folds = Annotated[
    bool, typer.Option("--folds", help="Each group of the data is the test part once.", rich_help_panel=GRID)
]
Epochs = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Passes over the rows. Default: 30.", rich_help_panel=GRID)
]
Jobs = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Processes. Default: by the cores.", rich_help_panel=GRID)
]
Trials = Annotated[
    int | None,
    typer.Option(
        "--search",
        min=1,
        metavar="N",
        help="Search explained variance, components, shrinkage, learning rate and epochs of each head in N trials "
        "instead of the grid.",
        rich_help_panel=GRID,
    ),
]
Metric = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="What a search looks for: nll (lower) or accuracy (higher).", rich_help_panel=GRID
    ),
]
Folder = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the runs and the page.")
]


def sweep(
    out: Output,
    data: options.Data = None,
    output: Folder = None,
    recipe: options.RecipeFile = None,
    settings: options.Settings = None,
    dry_run: options.DryRun = False,
    heads: Heads = None,
    solver: Solvers = None,
    objective: Objectives = None,
    explained_variance: Variances = None,
    n_components: Counts = None,
    n_seeds: Seeds = None,
    folds: Folds = False,
    learning_rate: options.LearningRate = None,
    epochs: Epochs = None,
    jobs: Jobs = None,
    search: Trials = None,
    metric: Metric = "nll",
    encoder: options.Encoder = None,
    size: options.Size = None,
    weights: options.Weights = None,
    device: options.Device = None,
    label: options.Label = None,
) -> None:
    """Compare heads: fit each at every explained variance and component count, with several seeds, and draw the curves.

    One PCA a seed serves every explained variance; every head sees the same rows. Seeds are trained together. Results
    are one row a run (runs.parquet, runs.csv) and a page. An interrupted sweep goes on where it stopped: run the same
    command again.

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
    flags = options.given(locals())
    flags |= {
        "heads": options.names_in(heads),
        "solvers": options.names_in(flags.pop("solver")),
        "objectives": options.names_in(flags.pop("objective")),
        "explained_variance": options.numbers_in(explained_variance, "--explained-variance"),
        "counts": options.numbers_in(flags.pop("n_components"), "--n-components"),
        "folds": folds or None,
    }
    resolved = options.recipe_of(data, recipe, settings, **flags)
    if dry_run:
        return options.print_recipe(out, resolved)
    folder = options.need_output(resolved, "sweep features/ -o sweep")
    if search is not None:
        return _search(out, resolved, search, metric)
    from mixtura.cli import views
    from mixtura.cli.progress import Bar
    from mixtura.report.sweep import write_sweep
    from mixtura.sweeps.grid import run

    with Bar(out) as reading, Bar(out, doing="Fitting heads") as fitting:
        made = run(resolved, reading, fitting)
    page = write_sweep(made, folder / "sweep.html", title=f"Heads on {made.facts['data']}")
    out.result(views.sweep_record(made, page), [str(page)], views.sweep_view(made, page))
    return None


def _search(out: Output, recipe: "Recipe", trials: int, metric: str) -> None:
    """Print the best setting of each head."""
    from mixtura.cli import views
    from mixtura.errors import DataError
    from mixtura.sweeps.tuning import run

    found = {head: run(recipe, head, metric, trials) for head in recipe.sweep.heads}
    if all(one.best is None for one in found.values()):
        said = next(trial.note for one in found.values() for trial in one.trials)
        raise DataError(f"None of the trials could be fitted. The first says: {said}")
    best = [f"{head}: {one.best.value:.4f}" for head, one in found.items() if one.best is not None]
    out.result(views.search_record(found), best, views.search_view(found))
