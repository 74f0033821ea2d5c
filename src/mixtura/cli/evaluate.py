"""``mixtura evaluate``: a model measured on items that took no part in its making."""

from typing import TYPE_CHECKING, Annotated

import typer

from mixtura.cli.output import Output
from mixtura.cli.predict import Model
from mixtura.pipeline.data_source import data_keys

if TYPE_CHECKING:
    from mixtura.sections import DataSection

TestData = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="Labeled photos to test on, as for fit. Left out: the test part that fit kept aside.",
        show_default=False,
    ),
]
Label = Annotated[str | None, typer.Option(metavar="NAME", help="Which label to test where the data has several.")]


def evaluate(out: Output, model: Model, data: TestData = None, label: Label = None) -> None:
    """Measure a model: accuracy, calibration, and whether unknown things are noticed.

    Photos of classes that the model does not know count as unknown: a good model says so.

    Examples:
      mixtura evaluate shop                          what fit kept aside
      mixtura evaluate shop today/                   one folder per class again
      mixtura evaluate shop --json | jq .metrics
    """
    from mixtura.cli import views
    from mixtura.tasks.evaluate import run

    evaluation = run(model, section_of(data, label))
    out.result(
        views.evaluation_record(evaluation), views.evaluation_lines(evaluation), [views.evaluation_view(evaluation)]
    )


def section_of(data: str | None, label: str | None) -> "DataSection | None":
    """The data section that the words mean; ``None`` for the model's own test part."""
    if data is None:
        return None
    from mixtura.recipe import resolve

    return resolve(data_keys(data) | ({"data.label": label} if label else {})).data
