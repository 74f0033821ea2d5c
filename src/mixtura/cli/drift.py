"""``mixtura drift``: do the queries still look like the catalog's photos?"""

from pathlib import Path
from typing import Annotated

import typer

from mixtura.cli.inspect import Page
from mixtura.cli.output import Output

CatalogFolder = Annotated[
    Path, typer.Argument(metavar="CATALOG", help="Model folder written by mixtura fit, with its journal.")
]
Days = Annotated[int, typer.Option(metavar="N", min=1, max=3650, help="Number of days to look back.")]


def drift(out: Output, catalog: CatalogFolder, days: Days = 30, html: Page = None) -> None:
    """Compare recent queries with the photos the catalog was calibrated on.

    Reads the decisions in the journal, which mixtura serve writes. The alarms cover the latest 200 photos: more
    photos called unknown than stated, a shift in typicality, a different mix of classes, a class that has moved. If
    nothing has changed, a daily check raises an alarm in at most one month in a hundred.

    Examples:
      mixtura drift shop
      mixtura drift shop --days 7 --html drift.html
      mixtura drift shop --json | jq '.alarms[] | select(.raised)'
    """
    from mixtura.catalog import Catalog
    from mixtura.catalog.journal import Journal
    from mixtura.cli import care_views
    from mixtura.tasks.drift import run

    opened = Catalog.open(catalog)
    found = run(Journal.open(catalog), opened, days)
    written = None
    if html is not None:
        from mixtura.report.drift import write_drift

        written = write_drift(found, html, title=catalog.resolve().name)
    out.result(
        care_views.drift_record(found, written), care_views.drift_lines(found), care_views.drift_view(found, written)
    )
