"""``mixtura evaluate``: measure a model on held-out items."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mixtura.cli.output import Output
from mixtura.cli.predict import Model
from mixtura.pipeline.data_source import data_keys, require_photos

if TYPE_CHECKING:
    from mixtura.sections import DataSection

TestData = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="Labeled photos to test on, as for fit. Default: the test split held out by fit.",
        show_default=False,
    ),
]
Label = Annotated[str | None, typer.Option(metavar="NAME", help="Label to test, if the data has several.")]
Level = Annotated[
    Literal["label", "superlabel"] | None,
    typer.Option(
        metavar="LEVEL",
        help="Which of an item's names is its class: label or superlabel. Default: as in the fit.",
        show_default=False,
    ),
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Also read photos behind links that lead out of the folder of the data.")
]
ClassTable = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Also write a table with the figures of each class as CSV."),
]


def evaluate(
    out: Output,
    model: Model,
    data: TestData = None,
    label: Label = None,
    level: Level = None,
    follow_links: FollowLinks = False,
    csv: ClassTable = None,
) -> None:
    """Measure a model: accuracy, calibration, and how many strangers it notices.

    Strangers are photos of classes that the model does not know; a good model reports them as unknown.

    Examples:
      mixtura evaluate shop                          the test split of fit
      mixtura evaluate shop today/                   one folder per class
      mixtura evaluate shop --json | jq .metrics
      mixtura evaluate shop --csv classes.csv   recall, F1 and more of each class
    """
    from mixtura.cli import spreadsheet, views
    from mixtura.tasks.evaluate import run

    if csv is not None:
        spreadsheet.check_file(csv, spreadsheet.CLASS_HEADER)
    evaluation = run(model, section_of(data, label, follow_links, level))
    if csv is not None:
        spreadsheet.write_classes(evaluation.per_class, csv)
    out.result(
        views.measured_record(evaluation),
        views.evaluation_lines(evaluation),
        [*views.measured_view(evaluation), *([] if csv is None else [views.written(csv)])],
    )


def section_of(
    data: str | None, label: str | None, follow_links: bool = False, level: str | None = None
) -> "DataSection | None":
    """Return the data section for the arguments; ``None`` for the model's own test split."""
    if data is None:
        return None
    from mixtura.recipe import resolve

    given = ({"data.label": label} if label else {}) | ({"data.follow_links": True} if follow_links else {})
    keys = data_keys(data)
    if keys["data.kind"] == "features":
        require_photos({key: f"--{key[5:].replace('_', '-')}" for key in given}, data)
    return resolve(keys | given | ({"data.level": level} if level else {})).data
