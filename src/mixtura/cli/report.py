"""``mixtura report``: all figures on one page, in one file."""

from pathlib import Path
from typing import Annotated

import typer

from mixtura.cli.evaluate import FollowLinks, Label, Level, TestData, section_of
from mixtura.cli.output import Output
from mixtura.cli.predict import Model

PageFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="HTML file to write. Default: MODEL/report.html."),
]


def report(
    out: Output,
    model: Model,
    data: TestData = None,
    output: PageFile = None,
    label: Label = None,
    level: Level = None,
    follow_links: FollowLinks = False,
) -> None:
    """Write the report of a model: one HTML file with every figure. Open it in any browser or send it by mail.

    It needs no network. It shows the weakest classes, the confusions, how reliable the probabilities are, how well the
    model notices strangers, and the worst mistakes next to the most similar stored photos.

    Examples:
      mixtura report shop                            writes shop/report.html
      mixtura report shop today/ -o today.html       measured on other photos
    """
    from mixtura.cli import views
    from mixtura.cli.page import write_page
    from mixtura.tasks.evaluate import run

    section = section_of(data, label, follow_links, level)
    evaluation = run(model, section)
    page = write_page(model, evaluation, output, section)
    out.result(
        views.measured_record(evaluation) | {"report": page},
        [str(page)],
        [*views.measured_view(evaluation), views.written(page)],
    )
