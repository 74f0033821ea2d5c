"""``mixtura discover``: find groups of unknown photos that look like a new product."""

from typing import Annotated

import typer

from mixtura.cli.drift import CatalogFolder
from mixtura.cli.inspect import Page
from mixtura.cli.output import Output
from mixtura.errors import UsageError

Accept = Annotated[str | None, typer.Option(metavar="GROUP", help="Enroll this group as a product.")]
Name = Annotated[str | None, typer.Option(metavar="NAME", help="Name of the product, new or existing.")]
Kind = Annotated[str, typer.Option(metavar="NAME", help="Enroll it as this kind of the existing product.")]


def discover(
    out: Output, catalog: CatalogFolder, accept: Accept = None, name: Name = None, kind: Kind = "", html: Page = None
) -> None:
    """List groups of similar unknown photos: likely products missing from the catalog.

    The photos come from the journal, which mixtura serve writes. A group has three photos or more. An accepted group
    is enrolled from the features in the journal; you need no photos.

    Examples:
      mixtura discover shop
      mixtura discover shop --html groups.html   with photos, if serve keeps them
      mixtura discover shop --accept g-1f0c2a9b --name "red kettle"
      mixtura discover shop --accept g-1f0c2a9b --name kettle --kind enamel
      mixtura discover shop --json | jq '.[0].ids'
    """
    if (accept is None) != (name is None):
        raise UsageError("Give --accept and --name together, as in --accept g-1f0c2a9b --name 'red kettle'.")
    if kind and name is None:
        raise UsageError("--kind belongs to --accept and --name, the product that the photos are a kind of.")
    from mixtura.catalog import Catalog
    from mixtura.catalog.journal import Journal
    from mixtura.cli import care_views
    from mixtura.records.journal import bad_photos_note, left_out_note
    from mixtura.tasks.discover import run

    opened, journal = Catalog.open(catalog), Journal.open(catalog)
    if accept is not None and name is not None:
        from mixtura.tasks.discover import accept as enroll

        effect = enroll(journal, opened, accept, name, kind)
        out.result(care_views.effect_record(effect), [effect.edit.summary], care_views.effect_view(effect))
        return
    groups, waiting = run(journal, opened), journal.unknowns()
    comparable = journal.comparable(opened.model)
    strange, bad = sum(note.id not in comparable for note in waiting), len(journal.bad_photos())
    notes = (*left_out_note(strange, len(waiting)), *bad_photos_note(bad))
    written = None
    if html is not None:
        from mixtura.report.sheet import write_sheet
        from mixtura.tasks.discover import sheet_of

        written = write_sheet(sheet_of(groups, catalog.resolve().name), html, journal.picture)
    out.result(
        care_views.groups_record(groups),
        [f"{group.id}\t{group.size}\t{group.nearest}" for group in groups],
        care_views.groups_view(groups, len(waiting) - strange, str(catalog), written, notes),
    )
