"""``mixtura cluster``: cluster unlabeled photos, show the clusters, and accept them as classes."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixtura.cli import options
from mixtura.cli.output import Output, shown
from mixtura.errors import UsageError
from mixtura.files import is_file_at
from mixtura.pipeline.data_source import STORE_HEADER, without_effect

if TYPE_CHECKING:
    from mixtura.tasks.collection import Collection

MODEL_FILE = "config.json"
"""The file that marks a model folder."""

CLUSTERS_PANEL, ACCEPT_PANEL = "Clusters", "Accept clusters as classes"

Photos = Annotated[
    str,
    typer.Argument(
        metavar="PLACE", help="Photos or sounds (folder, list, pack, public set), a feature store, a model or catalog."
    ),
]
Folder = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the table, the sheets and the features.")
]
Method = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="mixture, kmeans, minibatch-kmeans, birch, hdbscan (detects noise).",
        rich_help_panel=CLUSTERS_PANEL,
    ),
]
Count = Annotated[
    str, typer.Option("--clusters", metavar="N|auto", help="Number of clusters.", rich_help_panel=CLUSTERS_PANEL)
]
Product = Annotated[
    str | None,
    typer.Option(metavar="ID", help="Cluster the items of one product of a catalog.", rich_help_panel=CLUSTERS_PANEL),
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Same seed, same result.", rich_help_panel=CLUSTERS_PANEL)
]
Accept = Annotated[
    bool,
    typer.Option(
        "--accept", help="Turn the clusters of the last run into classes to fit.", rich_help_panel=ACCEPT_PANEL
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        metavar="N=NAME",
        help="Name of cluster N; clusters with one name become one class; '3=' leaves out 3. Repeatable.",
        rich_help_panel=ACCEPT_PANEL,
    ),
]


@options.takes_flags(options.ENCODER | {"Photos": ("data.follow_links",)})
def cluster(
    out: Output,
    place: Photos,
    output: Folder = Path("clusters"),
    method: Method = "mixture",
    clusters: Count = "auto",
    product: Product = None,
    seed: Seed = 0,
    accept: Accept = False,
    name: Names = None,
    *,
    flags: dict[str, Any],
) -> None:
    """Group photos without labels, and turn the groups into classes if you like.

    Writes clusters.csv (one line per item) and clusters.html (the pictures of each cluster) to the output folder. Look
    at the page, then run the same command with --accept. It reads the table, replaces the numbers with your names, and
    writes labels.csv next to the photos for mixtura fit. You may edit both files.

    Examples:
      mixtura cluster photos/ -o shop
      mixtura cluster photos/ -o shop --clusters 12
      mixtura cluster photos/ -o shop --accept --name 1=mugs --name 2=plates
      mixtura fit photos/labels.csv -o shop          reuses the features
      mixtura cluster features/ --method hdbscan --json | jq .clusters
      mixtura cluster shop --product mugs            variants of one product
    """
    if name and not accept:
        raise UsageError("--name belongs to --accept. Look at the clusters first, then accept them by name.")
    if accept and (product is not None or method != "mixture" or clusters != "auto"):
        raise UsageError("--accept uses the clusters of the last run. Leave out --method, --clusters and --product.")
    if product is not None or _is_stored(place):
        _refuse_flags(flags, place)
    if accept:
        return _accept(out, place, output, dict(map(_name, name or ())), flags)
    return _cluster(out, place, output, (method, _count(clusters), seed), product, flags)


def _cluster(
    out: Output,
    source: str,
    output: Path,
    how: tuple[str, int | None, int],
    product: str | None,
    flags: dict[str, Any],
) -> None:
    from mixtura.cli import lookup_views as views
    from mixtura.report.sheet import write_sheet
    from mixtura.tasks import contact_sheets
    from mixtura.tasks.cluster import run
    from mixtura.tasks.cluster_files import write_table

    place, problems = _items(out, source, output, product, flags)
    found = run(place.features, *how)
    table = write_table(found, output)
    title = f"Clusters of {product or Path(source).name}"
    page = write_sheet(contact_sheets.of_clusters(found, title), output / "clusters.html", place.picture)
    record = views.clusters_record(found, table, page) | {"problems": views.problems_record(problems)}
    again = [f"mixtura cluster {quote(source)} -o {quote(str(output))} --accept"]
    if product is not None:
        words = f"mixtura split {quote(source)} {quote(product)} NAME"
        again = [f"{words} {one}" for one in views.items_by_cluster(found)[1:]]
        again = again or ["leave it whole, or ask for two clusters with --clusters 2"]
    further = f"look at {shown(str(page))}, then\n        " + "\n        ".join(map(shown, again))
    out.result(record, views.clusters_lines(found), views.clusters_view(found, problems, further))


def _items(
    out: Output, source: str, output: Path, product: str | None, flags: dict[str, Any]
) -> tuple["Collection", tuple[Any, ...]]:
    """Return the items to cluster, and the unusable files."""
    from mixtura.cli.progress import Bar
    from mixtura.tasks import collection

    if product is not None:
        return collection.items_of(Path(source), product), ()
    if _is_stored(source):
        return collection.open_collection(Path(source)), ()
    recipe = options.recipe_of(source, None, None, flags | {"output": output})
    with Bar(out, next="Clustering") as bar:
        return collection.photos_of(recipe, bar)


def _refuse_flags(flags: dict[str, Any], source: str) -> None:
    """Refuse options for reading photos where the features exist already."""
    if flags:
        key = next(iter(flags))
        switch = options.FLAGS[key].switch if key in options.FLAGS else f"--{key}"
        raise without_effect(switch, source)


def _is_stored(source: str) -> bool:
    """Whether the features exist already: a model, a catalog or a feature store."""
    return is_file_at(Path(source) / MODEL_FILE) or is_file_at(Path(source) / STORE_HEADER)


def _accept(out: Output, source: str, output: Path, names: dict[str, str], flags: dict[str, Any]) -> None:
    from mixtura.cli import lookup_views as views
    from mixtura.tasks import cluster_files
    from mixtura.tasks.collection import list_folder

    found = cluster_files.read_table(output)
    label = cluster_files.named(found, names)
    recipe = None if _is_stored(source) else options.recipe_of(source, None, None, flags | {"output": output})
    folder = None if recipe is None else list_folder(recipe)
    if folder is not None:
        made = cluster_files.as_list(label, folder, len(found) - len(label))
    else:
        made = cluster_files.as_store(label, _items(out, source, output, None, flags)[0].features, output)
    further = shown(f"mixtura fit {quote(str(made.path))} -o {quote(str(output))}")
    if len(made.classes) < 2:
        further = "a model needs two classes: give at least two names"
    out.result(views.accepted_record(made), [str(made.path)], views.accepted_view(made, further))


def _count(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--clusters {text!r} is neither a number of 1 or more nor auto.")
    return int(text)


def _name(text: str) -> tuple[str, str]:
    number, equals, name = text.partition("=")
    if not equals or not number:
        raise UsageError(f"--name {text!r} has no '='. Write for example --name 3=mugs.")
    return number.strip(), name.strip()
