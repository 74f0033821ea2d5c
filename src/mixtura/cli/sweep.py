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
        help="spherical, diagonal, lowrank, tied, full, vmf, sdgm-d, sdgm-f, prototype, linear, random_projection. "
        "Default: spherical,diagonal,tied,linear.",
        rich_help_panel=GRID,
    ),
]
Fits = Annotated[
    str | None,
    typer.Option("--fit", metavar="A,B,...", help="closed, em, sgd, hybrid. Default: sgd.", rich_help_panel=GRID),
]
SharesOption = Annotated[
    str | None,
    typer.Option(
        "--share",
        metavar="P,Q,...",
        help="Variance that PCA keeps, in percent; 5,10,...,100 fills in the steps. Default: 20,40,60,80,90,95,100.",
        rich_help_panel=GRID,
    ),
]
Counts = Annotated[
    str | None,
    typer.Option("--components", metavar="N,M,...", help="Gaussians per class. Default: 1.", rich_help_panel=GRID),
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
        help="Search share, components, shrinkage, rate and epochs of each head in N trials instead of the grid.",
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
    fit: Fits = None,
    share: SharesOption = None,
    components: Counts = None,
    seeds: Seeds = None,
    folds: Folds = False,
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
    """Compare heads: fit each at every PCA share and component count, with several seeds, and draw the curves.

    One PCA a seed serves all shares; every head sees the same rows. Seeds are trained together. Results are one row a
    run (runs.parquet, runs.csv) and a page. An interrupted sweep goes on where it stopped: run the same command again.

    Examples:
      mixtura sweep features/ -o sweep
      mixtura sweep features/ -o sweep --share 5,10,...,100 --components 1,2
      mixtura sweep features/ -o sweep --heads dgmmc-s,sdgm-d,softmax
      mixtura sweep features/ -o sweep --heads tied --fit closed,sgd --seeds 5
      mixtura sweep -r recipes/dgmmc-cifar100.yaml -o sweep
      mixtura sweep features/ -o search --heads tied --search 30
      mixtura sweep features/ -o sweep --json | jq .best
    """
    resolved = options.recipe_of(
        data,
        recipe,
        settings,
        output=output,
        heads=options.names_in(heads),
        fits=options.names_in(fit),
        shares=options.numbers_in(share, "--share"),
        counts=options.numbers_in(components, "--components"),
        seeds=seeds,
        folds=folds or None,
        epochs=epochs,
        jobs=jobs,
        encoder=encoder,
        size=size,
        weights=weights,
        device=device,
        label=label,
    )
    if dry_run:
        return options.print_recipe(out, resolved)
    folder = options.need_output(resolved, "sweep features/ -o sweep")
    if search is not None:
        return _search(out, resolved, search, metric)
    from mixtura.cli import views
    from mixtura.cli.progress import Bar
    from mixtura.report.sweep import write_sweep
    from mixtura.tasks.sweep import run

    with Bar(out) as reading, Bar(out, doing="Fitting heads") as fitting:
        made = run(resolved, reading, fitting)
    page = write_sweep(made, folder / "sweep.html", title=f"Heads on {made.facts['data']}")
    out.result(views.sweep_record(made, page), [str(page)], views.sweep_view(made, page))
    return None


def _search(out: Output, recipe: "Recipe", trials: int, metric: str) -> None:
    """Print the best setting of each head."""
    from mixtura.cli import views
    from mixtura.errors import DataError
    from mixtura.tasks.search import run

    found = {head: run(recipe, head, metric, trials) for head in recipe.sweep.heads}
    if all(one.best is None for one in found.values()):
        said = next(trial.note for one in found.values() for trial in one.trials)
        raise DataError(f"None of the trials could be fitted. The first says: {said}")
    best = [f"{head}: {one.best.value:.4f}" for head, one in found.items() if one.best is not None]
    out.result(views.search_record(found), best, views.search_view(found))
