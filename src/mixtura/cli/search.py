"""``mixtura search``: find the stored items most similar to a photo, measure the search, list near-duplicates."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixtura.cli.output import Output
from mixtura.errors import NoInput, UsageError

if TYPE_CHECKING:
    from mixtura.records.contact_sheet import ContactSheet
    from mixtura.tasks.collection import Collection as Stored

Place = Annotated[
    Path,
    typer.Argument(metavar="PLACE", help="A model, a catalog, or a feature store (mixtura extract)."),
]
Queries = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="QUERY", help="Photos or sounds, folders of them, - for standard input, or ids of stored items."
    ),
]
Count = Annotated[
    int, typer.Option("-k", min=1, max=10**6, metavar="N", help="Number of items to find for each query.")
]
IndexName = Annotated[
    str,
    typer.Option("--index", metavar="NAME", help="exact, or ivf (approximate, uses faiss; for 200,000 items or more)."),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN=VALUE",
        help="Only items with this label, superlabel, group or split. Repeatable.",
    ),
]
SheetFile = Annotated[
    Path | None, typer.Option("--sheet", metavar="FILE", help="Also write the pictures to one HTML page.")
]
Evaluate = Annotated[
    bool, typer.Option("--evaluate", help="Search for every stored item and count how often its own class is found.")
]
FindTwins = Annotated[bool, typer.Option("--duplicates", help="List near-duplicates among the stored items.")]
Limit = Annotated[
    float | None,
    typer.Option(metavar="COSINE", help="Lowest similarity of near-duplicates, as in 0.98. Default: set by the items."),
]


def search(
    out: Output,
    place: Place,
    queries: Queries = None,
    k: Count = 10,
    index: IndexName = "exact",
    where: Where = None,
    sheet: SheetFile = None,
    evaluate: Evaluate = False,
    duplicates: FindTwins = False,
    limit: Limit = None,
) -> None:
    """Find the stored items most similar to a photo. This compares features only; it does not classify.

    Similarity is a cosine: 1 is identical, 0 has nothing in common. With --evaluate, every stored item is a query and
    is left out of its own results. With --duplicates, every pair is compared; the limit comes from the usual
    similarity of an item to its nearest neighbor.

    Examples:
      mixtura search shop new.jpg
      mixtura search shop new.jpg -k 3 --json | jq '.results[0]'
      mixtura search shop inbox/ --sheet found.html    the pictures side by side
      mixtura search shop new.jpg --where label=pear
      mixtura search shop --evaluate                   precision and mAP
      mixtura search shop --duplicates --sheet same.html
    """
    if sum([bool(queries), evaluate, duplicates]) != 1:
        raise UsageError("Give a photo to search for, or either --evaluate or --duplicates.")
    if limit is not None and not duplicates:
        raise UsageError("--limit belongs to --duplicates.")
    from mixtura.tasks.collection import filtered, open_collection

    stored = open_collection(place)
    pairs = [_pair(one) for one in where or ()]
    if evaluate:
        if sheet is not None:
            raise UsageError("--evaluate has no pictures to show. Leave out --sheet.")
        from mixtura.tasks.search import evaluate as measure

        return _tell_retrieval(out, measure(stored, index, pairs))
    if duplicates:
        from mixtura.tasks.duplicates import run as find_twins

        return _tell_duplicates(out, find_twins(filtered(stored.features, pairs), limit), stored, sheet)
    return _tell_found(out, stored, queries or [], (k, index, pairs), sheet)


def _pair(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--where {text!r} has no '='. Write for example --where label=pear.")
    return column, value


def _tell_found(
    out: Output, stored: "Stored", queries: list[str], how: tuple[int, str, list[tuple[str, str]]], sheet: Path | None
) -> None:
    from mixtura.cli import lookup_views as views
    from mixtura.cli.predict import photos
    from mixtura.tasks import contact_sheets
    from mixtura.tasks.search import QueryResult, run

    paths, missed = photos(queries)
    found = run(stored, paths, *how)
    found = replace(found, results=(*found.results, *missed))
    page = _write(contact_sheets.of_search(found, f"Search in {stored.path.resolve().name}"), stored, sheet)
    out.result(
        views.lookup_record(found) | _where(page), views.lookup_lines(found), [*views.lookup_view(found), *_said(page)]
    )
    if not all(isinstance(one, QueryResult) for one in found.results):
        raise typer.Exit(NoInput.exit_code)


def _tell_retrieval(out: Output, found: Any) -> None:
    from mixtura.cli import lookup_views as views

    out.result(views.retrieval_record(found), views.retrieval_lines(found), views.retrieval_view(found))


def _tell_duplicates(out: Output, found: Any, stored: "Stored", sheet: Path | None) -> None:
    from mixtura.cli import lookup_views as views
    from mixtura.tasks import contact_sheets

    page = _write(
        contact_sheets.of_duplicates(found, f"Near-duplicates in {stored.path.resolve().name}"), stored, sheet
    )
    out.result(
        views.duplicates_record(found) | _where(page),
        views.duplicates_lines(found),
        [*views.duplicates_view(found), *_said(page)],
    )


def _write(sheet: "ContactSheet", stored: "Stored", path: Path | None) -> Path | None:
    if path is None:
        return None
    from mixtura.report.sheet import write_sheet
    from mixtura.tasks.contact_sheets import pictures_with_queries

    return write_sheet(sheet, path, pictures_with_queries(stored.picture))


def _where(page: Path | None) -> dict[str, Any]:
    return {} if page is None else {"sheet": page}


def _said(page: Path | None) -> list[Any]:
    from mixtura.cli import views

    return [] if page is None else [views.written(page)]
