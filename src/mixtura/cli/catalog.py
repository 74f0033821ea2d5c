"""The commands that edit and list a catalog, from ``mixtura enroll`` to ``mixtura products``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from mixtura.cli.output import Output, one_line, plain_table, shown
from mixtura.errors import NoInput, UsageError

Place = Annotated[Path, typer.Argument(metavar="CATALOG", help="Model folder written by mixtura fit.")]
Product = Annotated[str, typer.Argument(metavar="PRODUCT", help="Id or name; mixtura products lists them.")]
MAX_EDIT_NUMBER = 2**62  # SQLite counts no further than 2**63 - 1
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the product.")]


def enroll(
    out: Output,
    catalog: Place,
    name: Name,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Photos or sounds of it, or folders of them.")],
    kind: Annotated[str, typer.Option(metavar="NAME", help="Add them as this kind of the product, new or known.")] = "",
) -> None:
    """Add a product to a catalog from a few photos, without retraining.

    A new product is provisional until you confirm it. If the name exists already, the photos are added to that product.
    Nothing is enrolled if any file cannot be read.

    Examples:
      mixtura enroll shop "red kettle" a.jpg b.jpg c.jpg
      mixtura enroll shop "red kettle" kettle/          all photos in a folder
      mixtura enroll shop kettle d.jpg e.jpg --kind enamel
    """
    from mixtura.catalog import Catalog
    from mixtura.catalog.shots import shots
    from mixtura.cli.predict import photos
    from mixtura.tasks.predict import encoder_for

    opened = Catalog.open(catalog)
    paths, missed = photos(files)
    made, problems = shots(encoder_for(opened.model), paths)
    problems += missed
    if problems:
        rest = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise NoInput(f"{one_line(problems[0].message)} Nothing was enrolled: leave it out{rest}, or fix it.")
    _tell(out, opened.enroll(name, made, kind))


def remove(
    out: Output,
    catalog: Place,
    product: Annotated[str | None, typer.Option(metavar="PRODUCT", help="Id or name of the product to remove.")] = None,
    item: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=MAX_EDIT_NUMBER, help="Number of the item to forget.")
    ] = None,
) -> None:
    """Remove a product or one item from a catalog; the model is then as if fitted without it.

    Examples:
      mixtura remove shop --product red-kettle
      mixtura remove shop --item 1042
    """
    from mixtura.catalog import Catalog

    if (product is None) == (item is None):
        raise UsageError("Give either --product or --item to say what to remove.")
    opened = Catalog.open(catalog)
    effect = opened.remove_item(item) if item is not None else opened.remove_product(opened.product(str(product)))
    _tell(out, effect)


def rename(out: Output, catalog: Place, product: Product, name: Name) -> None:
    """Give a product another name; its id stays.

    Examples:
      mixtura rename shop red-kettle "Kettle, red"
      mixtura rename shop "Kettle, red" "Red kettle" --json
    """
    opened = _opened(catalog)
    _tell(out, opened.rename(opened.product(product), name))


def merge(
    out: Output,
    catalog: Place,
    product: Product,
    into: Annotated[str, typer.Argument(metavar="INTO", help="Id or name of the product to keep.")],
) -> None:
    """Merge two products into one, which keeps the components of both.

    Examples:
      mixtura merge shop kettle-2 kettle
      mixtura merge shop "red kettle" kettle --json
    """
    opened = _opened(catalog)
    _tell(out, opened.merge(opened.product(product), opened.product(into)))


def split(
    out: Output,
    catalog: Place,
    product: Product,
    name: Name,
    items: Annotated[
        list[int], typer.Argument(metavar="ITEM", max=MAX_EDIT_NUMBER, help="Numbers of the items to move.")
    ],
) -> None:
    """Move some items of a product to a new product; mixtura products CATALOG PRODUCT lists them.

    Examples:
      mixtura split shop kettle "red kettle" 17 18 21
      mixtura split shop kettle "old kettle" $(cut -f 1 old.tsv | xargs)
    """
    opened = _opened(catalog)
    _tell(out, opened.split(opened.product(product), items, name))


def confirm(out: Output, catalog: Place, product: Product) -> None:
    """Mark a provisional product as correct.

    Examples:
      mixtura confirm shop red-kettle
      mixtura confirm shop "red kettle" --json
    """
    opened = _opened(catalog)
    _tell(out, opened.confirm(opened.product(product)))


def undo(out: Output, catalog: Place) -> None:
    """Undo the last edit of a catalog; run it again to undo the one before.

    A model whose head has a fixed set of classes has no catalog; there, it takes back recalibrate --prior.

    Examples:
      mixtura undo shop
      mixtura undo shop --json | jq -r .edit.summary
    """
    from mixtura.tasks import prior

    _tell(out, prior.undo(catalog))


def history(
    out: Output,
    catalog: Place,
    limit: Annotated[int, typer.Option(min=1, max=10**6, metavar="N", help="Number of edits to show.")] = 20,
) -> None:
    """Show the edits of a catalog, newest first.

    Examples:
      mixtura history shop
      mixtura history shop --limit 100 --json
    """
    edits = _opened(catalog).history(limit)
    rows = [(str(e.number), e.at, e.kind, shown(e.summary) + (" (undone)" if e.undone else "")) for e in edits]
    table = plain_table(("Edit", "When (UTC)", "What", ""), rows)
    out.result(
        [vars(edit) for edit in edits], ["\t".join(row) for row in rows], [table if rows else Text("No edits yet.")]
    )


def products(
    out: Output,
    catalog: Place,
    product: Annotated[str | None, typer.Argument(metavar="PRODUCT", help="List the items of this product.")] = None,
) -> None:
    """List the products of a catalog, or the items of one.

    Examples:
      mixtura products shop
      mixtura products shop red-kettle
    """
    opened = _opened(catalog)
    if product is None:
        records: list[Any] = list(opened.products())
        rows = [(p.id, shown(p.name), str(p.items), p.status) for p in records]
        head = ("Id", "Product", "Items", "Status")
    else:
        records = list(opened.items(product))
        rows = [(str(i.id), shown(i.source), i.split, i.added) for i in records]
        head = ("Item", "Source", "Part", "Added (UTC)")
    out.result([vars(record) for record in records], ["\t".join(row) for row in rows], [plain_table(head, rows)])


def _opened(folder: Path) -> Any:
    from mixtura.catalog import Catalog

    return Catalog.open(folder)


def _tell(out: Output, effect: Any) -> None:
    """Print an edit and its effect on the existing products."""
    from mixtura.cli.care_views import effect_record, effect_view

    said = effect.product.id if effect.product else effect.edit.kind
    out.result(effect_record(effect), [said], effect_view(effect))
