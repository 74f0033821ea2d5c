"""``mixtura inspect``: find suspicious labels, duplicate photos and outliers."""

from pathlib import Path
from typing import Annotated

import typer

from mixtura.cli.output import Output

Place = Annotated[Path, typer.Argument(metavar="PLACE", help="A model, a catalog, or a feature store with labels.")]
Page = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Also write a page with the photos.", rich_help_panel="Output"),
]


def inspect(out: Output, place: Place, html: Page = None) -> None:
    """Find labels that look wrong, duplicate photos, and photos that look like no other.

    Every item is judged by a model that has not seen it. Nothing is changed. Review the list, then move photos between
    the folders and fit again, or edit the catalog (mixtura remove, split, merge).

    Examples:
      mixtura inspect shop                       the photos behind the model
      mixtura inspect shop --html care.html      also as a page with the photos
      mixtura inspect features/ --json | jq '.suspects[].id'
    """
    from mixtura.cli import care_views
    from mixtura.tasks.inspect import run

    care, opened = run(place)
    written = None
    if html is not None:
        from mixtura.report.care import write_care

        written = write_care(care, html, opened.picture)
    out.result(care_views.care_record(care, written), care_views.care_lines(care), care_views.care_view(care, written))
