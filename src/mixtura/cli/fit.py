"""``mixtura fit``: make a model and its report from photos."""

from mixtura.cli import options
from mixtura.cli.output import Output
from mixtura.recipe import Recipe


@options.takes_recipe(
    options.ENCODER | {"Model": ("data", "head", "fit", "decision", "seed")},
    output="Folder for the model, its features and its report.",
)
def fit(out: Output, recipe: Recipe) -> None:
    """Learn classes from photos: extract features, fit, calibrate, test, and write a report.

    DATA is a folder with one sub-folder per class: photos/apple/1.jpg, photos/pear/2.jpg. One photo in five is set
    aside for testing; your own train/, val/ and test/ folders are used if present.
    If a run is interrupted, run the same command again: it continues where it stopped.

    Examples:
      mixtura fit photos/ -o shop                    the usual way
      mixtura fit photos/ -o shop --fast             quicker, less accurate
      mixtura fit photos/ -o shop --unknown other    test with photos/other
      mixtura fit list.csv -o shop --false-reject-rate 0.01
      mixtura fit features/ -o shop --n-components 2 after mixtura extract
      mixtura fit features/ -o shop --head dgmmc-s --solver gradient
      mixtura fit features/ -o shop --head sdgm-d --solver gradient --epochs 60
      mixtura fit features/ -o shop --solver gradient --objective hybrid
      mixtura fit -r recipes/digits.yaml -o digits --set head.family=full
      mixtura fit photos/ -o shop --json | jq .metrics.top1
    """
    options.need_output(recipe, "fit photos/ -o shop")
    from mixtura.cli import views
    from mixtura.cli.page import write_page
    from mixtura.cli.progress import Bar
    from mixtura.tasks.fit import run

    with Bar(out, next="Fitting the model") as bar:
        made = run(recipe, bar)
    page = write_page(made.bundle_path, made.evaluation)
    out.result(
        views.fit_record(made, page),
        [str(made.bundle_path)],
        views.fit_view(made, page),
    )
