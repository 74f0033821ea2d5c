"""``mixtura recalibrate``: the limit for "unknown" from photos that clients have sent and somebody has confirmed."""

from pathlib import Path
from typing import Annotated

import typer

from mixtura.cli.drift import CatalogFolder
from mixtura.cli.output import Output

ConfirmedFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Confirmed photos, one sub-folder for each product, or a feature store. Default: the answers of clients "
        "in the journal.",
    ),
]
Write = Annotated[
    bool, typer.Option("--write", help="Put the new limits into the catalog; mixtura undo takes it back.")
]


def recalibrate(out: Output, catalog: CatalogFolder, confirmed: ConfirmedFolder = None, write: Write = False) -> None:
    """Set the limit for unknown anew, from about 50 confirmed photos as clients send them.

    Shows how many of them are turned away and how many are named right, before and after, each judged by limits that
    it did not set. Nothing is changed without --write. Take the photos as they come: if only mistakes are confirmed,
    the limit will be far too lax. Photos that the catalog has learned from, and copies of them, do not count.

    Examples:
      mixtura recalibrate shop                       from the answers of clients
      mixtura recalibrate shop --confirmed checked/  from a folder
      mixtura recalibrate shop --confirmed checked/ --write
    """
    from mixtura.catalog import Catalog
    from mixtura.catalog.journal import Journal
    from mixtura.cli import care_views
    from mixtura.tasks import recalibrate as task

    opened = Catalog.open(catalog)
    if confirmed is None:
        photos = task.from_journal(Journal.open(catalog), opened)
    else:
        photos = task.from_folder(opened, confirmed)
    made = task.recalibrate(opened, photos)
    effect = task.write(opened, made) if write else None
    out.result(
        care_views.recalibration_record(made, photos.problems, effect),
        care_views.recalibration_lines(made),
        care_views.recalibration_view(made, photos.problems, effect, str(catalog)),
    )
