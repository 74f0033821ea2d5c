"""``mixtura subclasses``: find kinds within labeled classes, show them, and accept them as classes of their own."""

from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer

from mixtura.cli import options
from mixtura.cli.output import Output, shown
from mixtura.cli.sources import MODEL_FILE, Source, check_encoder, is_stored, items, origin, refuse_flags
from mixtura.errors import UsageError
from mixtura.files import is_file_at

KINDS_PANEL, ACCEPT_PANEL = "Kinds", "Accept kinds as classes"
MOST, MIN_ROWS = 12, 10

Place = Annotated[
    str,
    typer.Argument(
        metavar="PLACE",
        help="Labeled photos or sounds (folder, list, pack, public set), a feature store, a model or catalog.",
    ),
]
Folder = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the table, the page and the features.")
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME",
        help="Look for kinds in this class only. Repeatable. Default: all.",
        rich_help_panel=KINDS_PANEL,
    ),
]
Method = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="mixture (checks whether there are kinds at all), kmeans, hdbscan, dendrogram, scgm (trained).",
        rich_help_panel=KINDS_PANEL,
    ),
]
Count = Annotated[str, typer.Option(metavar="N|auto", help="Kinds of each class.", rich_help_panel=KINDS_PANEL)]
Most = Annotated[int, typer.Option(min=2, max=100, metavar="N", help="Kinds to try.", rich_help_panel=KINDS_PANEL)]
MinRows = Annotated[
    int, typer.Option(min=2, max=10**6, metavar="N", help="Photos of every kind.", rich_help_panel=KINDS_PANEL)
]
Seed = Annotated[
    int,
    typer.Option(min=0, max=2**32 - 1, metavar="N", help="Same seed, same result.", rich_help_panel=KINDS_PANEL),
]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, max=10**5, metavar="N", help="Of scgm. Default: 30.", rich_help_panel=KINDS_PANEL),
]
Embedder = Annotated[
    Literal["linear", "mlp"] | None,
    typer.Option(help="Of scgm: one layer, or two. Default: linear.", rich_help_panel=KINDS_PANEL),
]
Accept = Annotated[
    bool,
    typer.Option("--accept", help="Turn the kinds of the last run into classes to fit.", rich_help_panel=ACCEPT_PANEL),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        metavar="CLASS/N=NAME",
        help="Name of kind N of a class; kinds with one name become one; 'Apple/3=' gives the photos of kind 3 back to "
        "the class. Repeatable.",
        rich_help_panel=ACCEPT_PANEL,
    ),
]
Edit = Annotated[
    bool,
    typer.Option(
        "--edit",
        help="Give the products of a catalog these kinds at once, without a fit; mixtura undo takes it back.",
        rich_help_panel=ACCEPT_PANEL,
    ),
]


@options.takes_flags(options.ENCODER | {"Photos": ("data.label", "data.follow_links")})
def subclasses(
    out: Output,
    place: Place,
    output: Folder = Path("kinds"),
    classes: Classes = None,
    method: Method = "mixture",
    count: Count = "auto",
    most: Most = MOST,
    min_rows: MinRows = MIN_ROWS,
    seed: Seed = 0,
    epochs: Epochs = None,
    embedder: Embedder = None,
    accept: Accept = False,
    name: Names = None,
    edit: Edit = False,
    *,
    flags: dict[str, Any],
) -> None:
    """Find kinds within your classes, such as varieties of apple, and turn them into classes of their own if you like.

    Writes subclasses.csv (one line per item), subclasses.json (one entry per class), subclasses.html (the pictures of
    each kind) and subclasses.png (a map of all items) to the output folder. A class stays whole unless its kinds are
    found again in half of the photos and one Gaussian would not look as split. Look at the page, then run the same
    command with --accept. It reads the table, replaces the numbers with your names, and writes labels.csv next to the
    photos for mixtura fit.

    Examples:
      mixtura subclasses photos/ -o kinds
      mixtura subclasses photos/ -o kinds --class apple --count 3
      mixtura subclasses photos/ -o kinds --accept --name apple/1=red
      mixtura fit photos/labels.csv -o kinds --level both
      mixtura subclasses features/ --method scgm --count 3
      mixtura subclasses shop --method hdbscan --json | jq .classes
      mixtura subclasses shop --accept --edit --name apple/1=red
    """
    asked = (tuple(classes or ()), method, count, most, min_rows, seed)
    trained = epochs, embedder
    if (name or edit) and not accept:
        word = "--name" if name else "--edit"
        raise UsageError(f"{word} belongs to --accept. Look at the kinds first, then accept them by name.")
    if accept and (asked, trained) != (((), "mixture", "auto", MOST, MIN_ROWS, 0), (None, None)):
        raise UsageError(
            "--accept uses the kinds of the last run. Leave out --class, --method, --count, --most, --min-rows, "
            "--seed, --epochs and --embedder."
        )
    if is_stored(place):
        refuse_flags(flags, place)
    source = Source(place, None, None, output, flags)
    if edit:
        return _edit(out, source, name or [])
    if accept:
        return _accept(out, source, name or [])
    return _find(out, source, (tuple(classes or ()), method, _count(count)), (most, min_rows, seed), trained)


def _find(
    out: Output, source: Source, asked: tuple[tuple[str, ...], str, int | None], limits: tuple[int, int, int],
    trained: tuple[int | None, str | None],
) -> None:  # fmt: skip
    from mixtura import files
    from mixtura.cli import subclass_views as views
    from mixtura.cli.lookup_views import problems_record
    from mixtura.core.subclasses.search import Rules
    from mixtura.report.page import save
    from mixtura.report.sheet import write_sheet
    from mixtura.report.subclass_map import map_section
    from mixtura.report.subclass_png import PICTURE_FILE, png
    from mixtura.tasks import subclass_files
    from mixtura.tasks.subclass_methods import Training
    from mixtura.tasks.subclass_sheet import sheet_of
    from mixtura.tasks.subclass_view import view_of
    from mixtura.tasks.subclasses import run

    classes, method, count = asked
    most, min_rows, seed = limits
    place, problems = items(out, source, "Looking for kinds")
    rules = Rules(max(most, count or 0), min_rows, seed=seed)
    found = run(place.features, method, classes, count, rules, Training(*trained))
    view, picture = view_of(found), source.output / PICTURE_FILE
    names = tuple(one.name for one in found.classes)
    run_origin = origin(source, place.features, problems)
    table = subclass_files.write(found, source.output, run_origin)
    page = write_sheet(
        sheet_of(found, f"Kinds of {source.name}"), source.output / subclass_files.PAGE_FILE, place.picture,
        {} if view is None else {"map": map_section(view, names)},
    )  # fmt: skip
    if view is not None:
        save(picture, png(view))
    else:
        with files.explained(picture):
            picture.unlink(missing_ok=True)  # of an earlier run
    record = subclass_files.summary(found, run_origin) | {
        "table": table, "sheet": page, "picture": None if view is None else picture,
        "problems": problems_record(problems),
    }  # fmt: skip
    further = f"look at {shown(str(page))}, then\n        " + shown(_command(source, "--accept"))
    if not found.split:
        further = shown(views.advice(found, count, min_rows))
    out.result(record, views.kinds_lines(found), views.kinds_view(found, problems, further))


def _command(source: Source, *words: str) -> str:
    """The command line of this run, with the options that read the photos."""
    given = options.words_for({key: value for key, value in source.flags.items() if key != options.FAST})
    fast = ["--fast"] if options.FAST in source.flags else []
    place = ["mixtura subclasses", source.words, "-o", quote(str(source.output))]
    return " ".join([*place, *given, *fast, *words])


def _accept(out: Output, source: Source, names: list[str]) -> None:
    from mixtura.cli import lookup_views
    from mixtura.tasks import cluster_files, kept_features
    from mixtura.tasks import subclass_files as files
    from mixtura.tasks.collection import list_folder

    table = files.read(source.output)
    label = files.named(table, names)
    check_encoder(source, table.origin)
    recipe = source.recipe() if source.is_read else None
    folder = None if recipe is None else list_folder(recipe)
    if recipe is not None and folder is not None:
        listed = recipe.data.root if recipe.data.root != folder else None
        files.place_of_list(folder, listed)
        rows = kept_features.rows_now(recipe, table.origin.left_out)
        files.check_same(table, rows, source.output)
        made = files.as_list(label, rows, folder, listed)
    else:
        if recipe is None:
            features = items(out, source, "Accepting")[0].features
            files.check_same(table, features, source.output)
        else:
            cluster_files.check_free(source.output / cluster_files.STORE_FOLDER)
            rows = kept_features.rows_now(recipe, table.origin.left_out)
            files.check_same(table, rows, source.output)
            features = kept_features.kept(recipe, table.origin.identity, rows)
        made = files.as_store(label, features, source.output)
    words = [f"mixtura fit {quote(str(made.path))} -o {quote(str(source.output))} --level both"]
    words += table.origin.options if folder else ()
    out.result(
        lookup_views.accepted_record(made),
        [str(made.path)],
        lookup_views.accepted_view(made, shown(" ".join(words)), f"not in {source.output / files.TABLE_FILE}"),
    )


def _edit(out: Output, source: Source, names: list[str]) -> None:
    from mixtura.catalog import Catalog
    from mixtura.cli.care_views import effect_record, effect_view
    from mixtura.records.catalog import CATALOG_FILE
    from mixtura.tasks import subclass_files as files

    if not is_file_at(Path(source.place) / MODEL_FILE):
        raise UsageError(
            f"--edit is for the catalog of a model, and {source.place} is none. Leave it out to get classes to fit."
        )
    if not is_file_at(Path(source.place) / CATALOG_FILE):
        raise UsageError(
            f"{source.place} has no catalog yet, so these are kinds of its photos. Make one with mixtura products "
            f"{source.words}, and look for kinds again."
        )
    table = files.read(source.output)
    files.check_same(table, items(out, source, "Accepting")[0].features, source.output)
    wanted = files.by_class(table, names)
    effect = Catalog.open(Path(source.place)).give_kinds(wanted)
    out.result(effect_record(effect), [effect.edit.summary], effect_view(effect))


def _count(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--count {text!r} is neither a number of 1 or more nor auto.")
    return int(text)
