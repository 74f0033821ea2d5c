"""Print search results and clusters as tables, as JSON-ready values or as lines."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mixtura.cli.output import one_line, shown
from mixtura.cli.views import problem_record, problems_view
from mixtura.formats import count as counted
from mixtura.formats import duration, percent
from mixtura.records.inspection import DuplicateSearch
from mixtura.tasks.cluster import NOISE_CLUSTER, Clusters
from mixtura.tasks.cluster_files import Accepted
from mixtura.tasks.contact_sheets import trouble
from mixtura.tasks.search import QueryResult, Retrieval, SearchResult

WEAKEST_SHOWN = 3
GROUPS_SHOWN, MEMBERS_SHOWN = 20, 6
"""Groups of near-duplicates, and items per group, that fit on a screen; --json and --sheet show all."""


def lookup_record(found: SearchResult) -> dict[str, Any]:
    """Return the results, with ``{"query": ..., "error": ...}`` for an unreadable file."""
    return {
        "items": found.items,
        "index": found.index,
        "recall": found.recall,
        "results": [
            {"query": one.query, "neighbors": [asdict(near) for near in one.neighbors]}
            if isinstance(one, QueryResult)
            else {"query": one.source, "error": {"reason": one.reason, "message": one.message}}
            for one in found.results
        ],
    }


def lookup_lines(found: SearchResult) -> Iterable[str]:
    """Yield one line per item found: query, id, label and similarity, separated by tabs."""
    for one in found.results:
        if not isinstance(one, QueryResult):
            yield f"{shown(one.source)}\terror\t{one.reason}"
            continue
        for near in one.neighbors:
            yield f"{shown(one.query)}\t{shown(near.id)}\t{shown(near.label)}\t{near.similarity:.4f}"


def lookup_view(found: SearchResult) -> list[RenderableType]:
    """Return one table per query, and the unreadable files."""
    views: list[RenderableType] = []
    for one in found.results:
        if isinstance(one, QueryResult):
            table = _table(f"{shown(one.query)}")
            table.add_column("Similar", justify="right", no_wrap=True)
            table.add_column("Class", overflow="fold")
            table.add_column("Item", overflow="fold")
            for near in one.neighbors:
                source = near.source if near.source == near.id else f"{near.source}  (item {near.id})"
                table.add_row(f"{near.similarity:.3f}", Text(shown(near.label) or "-"), Text(shown(source)))
            views.append(table)
    views += problems_view([one for one in found.results if not isinstance(one, QueryResult)])
    return [*views, Text(f"Searched {found.items:,} items{_index(found.index, found.recall)}.", style="dim")]


def _index(index: str, recall: float | None) -> str:
    return "" if recall is None else f" by the index {index}, which finds {percent(recall)} of the true neighbors"


def retrieval_record(found: Retrieval) -> dict[str, Any]:
    """Return all figures of an evaluation, JSON-ready; shares in [0, 1]."""
    return asdict(found)


def retrieval_lines(found: Retrieval) -> list[str]:
    """Return one metric per line: name, tab, share in [0, 1]."""
    return [
        *(f"precision@{k}\t{value:.6g}" for k, value in found.precision.items()),
        f"map\t{found.mean_average_precision:.6g}",
    ]


def retrieval_view(found: Retrieval) -> list[RenderableType]:
    """Return the table with the weakest classes, and a note on the method."""
    table = _table("")
    table.add_column(f"{found.queries:,} queries among {found.items:,} items")
    table.add_column("Measured", justify="right")
    table.add_column("A perfect search", justify="right")
    for k, value in found.precision.items():
        words = "First result in the same class" if k == 1 else f"Of the first {k} results"
        table.add_row(f"{words} (precision@{k})", percent(value), percent(found.ceiling[k]))
    table.add_row("Over the whole ranking (mAP)", percent(found.mean_average_precision), percent(1.0))
    for place, (value, name) in enumerate(sorted((v, n) for n, v in found.by_class.items())[:WEAKEST_SHOWN]):
        table.add_row(Text(f"{'Weakest classes' if place == 0 else '':17}{shown(name)}"), percent(value), "")
    said = "Each item was left out of its own results"
    if found.alone:
        said += f"; {found.alone:,} items are alone in their class and were not used as queries"
    return [table, Text(f"{said}{_index(found.index, found.recall)}.", style="dim")]


def duplicates_record(found: DuplicateSearch) -> dict[str, Any]:
    """Return the limit with its reason, and every group, JSON-ready."""
    return asdict(found)


def duplicates_lines(found: DuplicateSearch) -> Iterable[str]:
    """Yield one line per item: group number, id, label and highest similarity, separated by tabs."""
    for number, group in enumerate(found.groups, 1):
        for near in group.items:
            yield f"{number}\t{shown(near.id)}\t{shown(near.label)}\t{near.similarity:.4f}"


def duplicates_view(found: DuplicateSearch) -> list[RenderableType]:
    """Return a table of the first groups, and the reason for the limit."""
    count = sum(len(group.items) for group in found.groups)
    said = f"{len(found.groups):,} groups of near-duplicates, {count:,} of {found.items:,} items. "
    said += f"Limit: a cosine of {found.limit:.4f}. {found.why}"
    if not found.groups:
        return [Text(one_line(said))]
    table = _table("")
    table.add_column("Group", justify="right", no_wrap=True)
    table.add_column("Similar", justify="right", no_wrap=True)
    table.add_column("Items", overflow="fold")
    table.add_column("Note", overflow="fold", style="yellow")
    for number, group in enumerate(found.groups[:GROUPS_SHOWN], 1):
        names = [shown(near.source) for near in group.items[:MEMBERS_SHOWN]]
        rest = len(group.items) - len(names)
        listed = ", ".join(names) + (f" and {rest} more" if rest else "")
        table.add_row(str(number), f"{group.lowest:.4f}", Text(listed), Text(trouble(group)))
    more = len(found.groups) - GROUPS_SHOWN
    rest = [Text(f"and {more} more groups (all of them with --json or --sheet)", style="dim")] if more > 0 else []
    return [table, *rest, Text(one_line(said))]


def clusters_record(found: Clusters, table: Path, page: Path) -> dict[str, Any]:
    """Return the figures, the clusters and the files; the table file holds the cluster of each item."""
    names = {
        "method": found.method, "how": found.how, "items": len(found.number), "noise": found.noise,
        "silhouette": found.silhouette, "stability": found.stability, "adjusted_rand": found.rand,
        "mutual_information": found.information, "labeled": found.labeled, "axes": found.axes,
        "variance": found.variance, "seconds": found.seconds, "table": table, "sheet": page,
    }  # fmt: skip
    clusters = [
        {
            "cluster": "noise" if one.number == NOISE_CLUSTER else one.number,
            "size": one.size,
            "label": one.label,
            "share": one.share,
            "typical": [found.features.id[row] for row in one.typical[:WEAKEST_SHOWN]],
            "items": [found.features.id[row] for row in one.typical],
        }
        for one in found.clusters
    ]
    return names | {"tried": [asdict(one) for one in found.tried], "clusters": clusters}


def items_by_cluster(found: Clusters) -> list[str]:
    """Return the item ids of each cluster, quoted for a shell; noise is left out."""
    ids = found.features.id
    return [
        " ".join(quote(ids[row]) for row in sorted(one.typical))
        for one in found.clusters
        if one.number != NOISE_CLUSTER
    ]


def clusters_lines(found: Clusters) -> list[str]:
    """Return one line per cluster: number, size and most frequent label, separated by tabs."""
    return [
        f"{'noise' if one.number == NOISE_CLUSTER else one.number}\t{one.size}\t{shown(one.label or '')}"
        for one in found.clusters
    ]


def clusters_view(found: Clusters, problems: Any, further: str) -> list[RenderableType]:
    """Return a table with one row per cluster, the figures, and the next command."""
    table = _table(f"Clustered in {duration(found.seconds)}")
    table.add_column("Cluster", justify="right", no_wrap=True)
    table.add_column("Items", justify="right", no_wrap=True)
    if found.labeled:
        table.add_column("Mostly", overflow="fold")
    table.add_column("Most typical", overflow="fold")
    for one in found.clusters:
        typical = ", ".join(shown(found.features.source[row]) for row in one.typical[:WEAKEST_SHOWN])
        mostly = [] if one.label is None else [Text(f"{shown(one.label)} ({percent(one.share)})")]
        mostly = mostly or ([Text("-")] if found.labeled else [])
        name = "noise" if one.number == NOISE_CLUSTER else str(one.number)
        table.add_row(name, f"{one.size:,}", *mostly, Text(typical))
    return [table, *problems_view(problems), Text(_figures(found)), Text.assemble(("\nNext    ", "dim"), further)]


def _figures(found: Clusters) -> str:
    said = f"Number of clusters: {found.how}.\nStability {_number(found.stability)} (1: every rerun agrees). "
    said += f"Silhouette {_number(found.silhouette)} (1: far apart, 0: touching)."
    if found.rand is not None:
        said += f" Against the labels: adjusted Rand index {_number(found.rand)}, NMI {_number(found.information)}."
    return said


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def accepted_record(made: Accepted) -> dict[str, Any]:
    """Return the path of the labels and the size of each class, JSON-ready."""
    return asdict(made)


def accepted_view(made: Accepted, further: str, why: str = "") -> list[RenderableType]:
    """Return the classes with their sizes, why others are left out, and the command to fit them."""
    table = _table("")
    table.add_column("Class", overflow="fold")
    table.add_column("Items", justify="right")
    for name, count in made.classes.items():
        table.add_row(Text(shown(name)), f"{count:,}")
    left = f"{counted(made.left_out, 'item')} {'was' if made.left_out == 1 else 'were'} left out"
    left = f"{left}: {shown(why)}.\n" if why else f"{left}.\n"
    said = Text.assemble(
        left if made.left_out else "", ("Labels  ", "dim"), f"{shown(str(made.path))}\n", ("Next    ", "dim"), further
    )
    return [table, said]


def problems_record(problems: Any) -> list[dict[str, Any]]:
    """Return the unusable files, JSON-ready."""
    return [problem_record(one) for one in problems]


def _table(title: str) -> Table:
    """Return a plain table; the title is text, not markup, because it may be a file name."""
    return Table(
        box=box.SIMPLE_HEAD,
        title=Text(title) if title else None,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
