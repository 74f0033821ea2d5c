"""``mixtura recalibrate``: set the limit for "unknown" from confirmed photos of clients."""

from pathlib import Path
from typing import Annotated

import typer

from mixtura.cli.drift import CatalogFolder
from mixtura.cli.output import Output
from mixtura.errors import UsageError

ConfirmedFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Confirmed photos, one sub-folder per product, or a feature store. Default: confirmations by clients "
        "in the journal.",
    ),
]
Write = Annotated[bool, typer.Option("--write", help="Write the new limits to the catalog; mixtura undo reverts this.")]
Force = Annotated[
    bool,
    typer.Option("--force", help="With --write: also if the change is within chance or most products have no photo."),
]


Prior = Annotated[
    str | None,
    typer.Option(
        metavar="data|uniform|FILE",
        help="Change how frequent the classes are in later photos: as in the data, all alike, or a CSV or JSON file of "
        "class and share. Takes no photos.",
    ),
]


def recalibrate(
    out: Output,
    catalog: CatalogFolder,
    confirmed: ConfirmedFolder = None,
    prior: Prior = None,
    write: Write = False,
    force: Force = False,
) -> None:
    """Reset the limit for unknown from about 50 confirmed photos, or say how frequent the classes are.

    Shows how many photos are rejected and how many are classified correctly, before and after; each photo is judged by
    limits it did not set. Nothing is changed without --write, nor where the change would be within chance or most
    products have no confirmed photo. Take new photos as they come: if you confirm only mistakes, the limit will be far
    too lax. Photos the catalog has learned from, and copies of them, do not count.

    --prior needs no photos and trains nothing: probabilities and limits follow from the out-of-fold scores of the fit.

    Examples:
      mixtura recalibrate shop                       from clients' confirmations
      mixtura recalibrate shop --confirmed checked/  from a folder
      mixtura recalibrate shop --confirmed checked/ --write
      mixtura recalibrate shop --prior uniform       all classes equally frequent
    """
    from mixtura.catalog import Catalog
    from mixtura.catalog.journal import Journal
    from mixtura.cli import care_views
    from mixtura.tasks import recalibrate as task

    if prior is not None:
        _change_prior(out, catalog, prior, confirmed, write)
        return
    opened = Catalog.open(catalog)
    if confirmed is None:
        photos = task.from_journal(Journal.open(catalog), opened)
    else:
        photos = task.from_folder(opened, confirmed)
    made = task.recalibrate(opened, photos)
    effect = task.write(opened, made, force) if write and (force or not made.objections) else None
    out.result(
        care_views.recalibration_record(made, photos.problems, effect),
        care_views.recalibration_lines(made),
        care_views.recalibration_view(made, photos.problems, effect, str(catalog), asked=write),
    )


def _change_prior(out: Output, folder: Path, prior: str, confirmed: Path | None, write: bool) -> None:
    """Show another class prior, and keep it if asked to."""
    from mixtura.cli import prior_views
    from mixtura.tasks import prior as task

    if confirmed is not None:
        raise UsageError("--prior takes no photos, and --confirmed gives some. Run recalibrate once for each of them.")
    change = task.change_prior(folder, prior)
    effect = task.write(folder, change) if write else None
    out.result(
        prior_views.prior_record(change, effect),
        prior_views.prior_lines(change),
        prior_views.prior_view(change, effect, str(folder)),
    )
