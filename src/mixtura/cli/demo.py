"""``mixtura demo``: the whole workflow on photos shipped with mixtura."""

from pathlib import Path
from typing import Annotated

import typer

from mixtura.cli.output import Output
from mixtura.encoders import NATIVE_SIZES
from mixtura.encoders.sizes import DEMO_SIZE

DemoFolder = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the model and the report.")
]


def demo(out: Output, output: DemoFolder = Path("demo")) -> None:
    """Try mixtura on photos shipped with it: eight kinds of clothes to learn, two to notice.

    Extracts features at 96 px (the photos have 28), fits, calibrates and evaluates in under a minute on two cores,
    without network. Prints one table and writes a report.

    Examples:
      mixtura demo
      mixtura demo -o /tmp/demo --json
    """
    from mixtura.cli import views
    from mixtura.cli.page import write_page
    from mixtura.cli.progress import Bar
    from mixtura.tasks.demo import run

    own = NATIVE_SIZES["lite0"]
    out.note(f"The demo reads its photos (28 x 28 pixels) at {DEMO_SIZE} px; mixtura fit reads yours at {own} px.")
    with Bar(out) as bar:
        made = run(output, bar)
    page = write_page(made.bundle_path, made.evaluation, output / "report.html")
    out.result(views.fit_record(made, page), [str(page)], views.fit_view(made, page))
