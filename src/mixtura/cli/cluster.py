"""``mixtura cluster``: cluster unlabeled photos, show the clusters, and accept them as classes."""

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from mixtura.cli import options
from mixtura.cli.output import Output, shown
from mixtura.cli.sources import DEVICE_KEYS, Source, check_encoder, is_stored, items, origin, refuse_flags
from mixtura.errors import UsageError
from mixtura.pipeline.data_source import read_by

CLUSTERS_PANEL, ACCEPT_PANEL = "Clusters", "Accept clusters as classes"

Photos = Annotated[
    str,
    typer.Argument(
        metavar="PLACE", help="Photos or sounds (folder, list, pack, public set), a feature store, a model or catalog."
    ),
]
More = Annotated[
    str | None,
    typer.Argument(
        metavar="PHOTOS",
        help="With a model or a feature store as PLACE: cluster these, with its encoder (as trained), instead of its "
        "items.",
        show_default=False,
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
    photos: More = None,
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
      mixtura cluster shop inbox/ -o new             new photos, by its network
    """
    if name and not accept:
        raise UsageError("--name belongs to --accept. Look at the clusters first, then accept them by name.")
    if accept and (product is not None or method != "mixture" or clusters != "auto"):
        raise UsageError("--accept uses the clusters of the last run. Leave out --method, --clusters and --product.")
    _check(place, photos, product, flags)
    source = Source(place, photos, product, output, flags)
    if accept:
        return _accept(out, source, dict(map(_name, name or ())))
    return _cluster(out, source, (method, _count(clusters), seed))


def _check(place: str, photos: str | None, product: str | None, flags: dict[str, Any]) -> None:
    """Check that the arguments fit together.

    Raises:
        UsageError: they do not.
    """
    if photos is None:
        if product is not None or is_stored(place):
            refuse_flags(flags, place)
        return
    if not is_stored(place):
        raise UsageError(f"{place} is no model and no feature store, so it has no encoder for {photos}. Give one.")
    if is_stored(photos):
        raise UsageError(f"{photos} holds features already. Leave {place} out, or give photos.")
    if product is not None:
        raise UsageError(f"--product clusters the items of one product. Leave out {photos}, or --product.")
    fixed = next(
        (key for key in flags if key.partition(".")[0] in ("encoder", options.FAST) and key not in DEVICE_KEYS), None
    )
    if fixed is not None:
        raise read_by(options.switch_of(fixed), place)


def _cluster(out: Output, source: Source, how: tuple[str, int | None, int]) -> None:
    from mixtura.cli import lookup_views as views
    from mixtura.report.sheet import write_sheet
    from mixtura.tasks import contact_sheets
    from mixtura.tasks.cluster import run
    from mixtura.tasks.cluster_files import write_table

    place, problems = items(out, source, "Clustering")
    found = run(place.features, *how)
    table = write_table(found, source.output, origin(source, place.features, problems))
    sheet = contact_sheets.of_clusters(found, f"Clusters of {source.name}")
    page = write_sheet(sheet, source.output / "clusters.html", place.picture)
    record = views.clusters_record(found, table, page) | {"problems": views.problems_record(problems)}
    again = [f"mixtura cluster {source.words} -o {quote(str(source.output))} --accept"]
    if source.product is not None:
        words = f"mixtura split {quote(source.place)} {quote(source.product)} NAME"
        again = [f"{words} {one}" for one in views.items_by_cluster(found)[1:]]
        again = again or ["leave it whole, or ask for two clusters with --clusters 2"]
    further = f"look at {shown(str(page))}, then\n        " + "\n        ".join(map(shown, again))
    out.result(record, views.clusters_lines(found), views.clusters_view(found, problems, further))


def _accept(out: Output, source: Source, names: dict[str, str]) -> None:
    from mixtura.cli import lookup_views as views
    from mixtura.tasks import cluster_files, kept_features
    from mixtura.tasks.collection import encoder_keys, list_folder

    found = cluster_files.read_table(source.output)
    label, run = cluster_files.named(found, names), cluster_files.read_origin(source.output)
    check_encoder(source, run)
    recipe = source.recipe() if source.is_read else None
    folder = None if recipe is None else list_folder(recipe)
    if folder is not None:
        made = cluster_files.as_list(label, folder, len(found) - len(label))
    else:
        if recipe is None:
            features = items(out, source, "Clustering")[0].features
        else:
            cluster_files.check_free(source.output / cluster_files.STORE_FOLDER)
            now = kept_features.rows_now(recipe, run.left_out if run else ())
            features = kept_features.kept(recipe, run and run.identity, now)
        made = cluster_files.as_store(label, features, source.output)
    words = run.options if run is not None and folder is not None else ()
    further = shown(" ".join([f"mixtura fit {quote(str(made.path))} -o {quote(str(source.output))}", *words]))
    if folder is not None and source.photos is not None:
        keys = {key: value for key, value in encoder_keys(Path(source.place)).items() if key not in DEVICE_KEYS}
        further += shown("".join(f" {word}" for word in options.words_for(keys)))
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
