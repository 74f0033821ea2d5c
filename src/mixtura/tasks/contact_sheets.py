"""Arrange results as contact sheets: captioned groups of pictures."""

from pathlib import Path

from mixtura.datasets.decode import decode
from mixtura.errors import BadItem
from mixtura.features.records import Features
from mixtura.files import is_there
from mixtura.pipeline.pictures import MAX_SIDE, shrink
from mixtura.records.contact_sheet import ContactSheet, Picture, PictureRow, SheetGroup
from mixtura.records.inspection import DuplicateSearch, NearDuplicates
from mixtura.tasks.cluster import NOISE_CLUSTER, Cluster, Clusters
from mixtura.tasks.collection import Pictures
from mixtura.tasks.search import QueryResult, SearchResult

TYPICAL_SHOWN, BORDERLINE_SHOWN, EXAMPLES_SHOWN, MEMBERS_SHOWN = 18, 9, 18, 27
MAX_BORDERLINE_MARGIN = 0.3  # above this margin, an item clearly belongs to its cluster
QUERY_PREFIX = "query:"


def of_clusters(found: Clusters, title: str) -> ContactSheet:
    """One group per cluster: the most typical pictures, then those nearest to another cluster."""
    lead = (
        "Each cluster shows its most typical items first, then the borderline ones: those hardly nearer to the middle "
        "of this cluster than to that of another."
    )
    return ContactSheet(title, lead, tuple(_cluster(found, one) for one in found.clusters), facts(found))


def facts(found: Clusters) -> tuple[tuple[str, str], ...]:
    """How a clustering was made and how good it is, in words."""
    real = [one for one in found.clusters if one.number != NOISE_CLUSTER]
    scored = [
        ("Items", f"{len(found.number):,} in {len(real)} clusters, {found.noise:,} in none"),
        ("Method", f"{found.method}, number of clusters {found.how}"),
        (
            "Features",
            f"scaled to length one, then the {found.axes} principal axes that hold {found.variance:.0%} of the "
            "variance: in all dimensions distances are mostly noise",
        ),
        ("Silhouette", f"{found.silhouette:.3f} (1 is best, 0 is touching clusters)"),
        ("Stability", f"{found.stability:.3f} (mean adjusted Rand index between re-runs; 1 is always the same)"),
    ]
    if found.rand is not None and found.information is not None:
        scored.append(
            (
                f"Against the labels of {found.labeled:,} items",
                f"adjusted Rand index {found.rand:.3f}, normalized mutual information {found.information:.3f}",
            )
        )
    tried = [f"{one.count}: {one.score:.3f}" for one in found.tried]
    return (*scored, *([("Counts that were tried, with their score", ", ".join(tried))] if tried else []))


def _cluster(found: Clusters, one: Cluster) -> SheetGroup:
    features = found.features
    size = f"{one.size:,} items" if one.size != 1 else "1 item"
    mostly = f", {one.share:.0%} {one.label}" if one.label is not None else ""
    if one.number == NOISE_CLUSTER:
        shown = tuple(picture_of(features, row) for row in one.typical[:EXAMPLES_SHOWN])
        return SheetGroup("In no cluster", f"{size}{mostly}", (PictureRow("Examples", shown),))
    typical = one.typical[:TYPICAL_SHOWN]
    rest = [
        row
        for row in one.borderline[:BORDERLINE_SHOWN]
        if row not in typical and found.margin[row] < MAX_BORDERLINE_MARGIN
    ]
    strips = (
        PictureRow("Typical", tuple(picture_of(features, row) for row in typical)),
        PictureRow("Borderline", tuple(picture_of(features, row, f"margin {found.margin[row]:.2f}") for row in rest)),
    )
    return SheetGroup(f"Cluster {one.number}", f"{size}{mostly}", strips)


def picture_of(features: Features, row: int, note: str = "") -> Picture:
    """The picture of a row, with a note, or else its label."""
    source = features.source[row]
    return Picture(features.id[row], source.rsplit("/", 1)[-1], note or (features.label[row] or ""))


def of_search(found: SearchResult, title: str) -> ContactSheet:
    """One group per query: the query, then its results."""
    lead = f"What looks most like each query among {found.items:,} items, nearest first, with the cosine similarity."
    groups = [_answer(one) for one in found.results if isinstance(one, QueryResult)]
    return ContactSheet(title, lead, tuple(groups), (("Search", _how(found)),))


def _how(found: SearchResult) -> str:
    if found.recall is None:
        return "exact: every item was compared"
    return f"index {found.index}, which finds {found.recall:.1%} of the true neighbors"


def _answer(one: QueryResult) -> SheetGroup:
    pictures = tuple(
        Picture(near.id, near.label or near.source.rsplit("/", 1)[-1], f"{near.similarity:.3f}")
        for near in one.neighbors
    )
    asked = Picture(f"{QUERY_PREFIX}{one.query}", one.query.rsplit("/", 1)[-1])
    return SheetGroup(one.query, "", (PictureRow("Query", (asked,)), PictureRow("Most similar", pictures)))


def of_duplicates(found: DuplicateSearch, title: str) -> ContactSheet:
    """One group per set of near-duplicates; its note names contradictions."""
    lead = f"Near-duplicates among {found.items:,} items: pairs with a cosine of {found.limit:.4f} or more. {found.why}"
    return ContactSheet(title, lead, tuple(_twins(number, one) for number, one in enumerate(found.groups, 1)))


def trouble(one: NearDuplicates) -> str:
    """Contradictions within a group of near-duplicates, in words; empty if there are none."""
    said = []
    if len(one.labels) > 1:
        said.append(f"different labels: {', '.join(one.labels)}")
    if "test" in one.splits and len(one.splits) > 1:
        said.append("on both sides of the split")
    return "; ".join(said)


def _twins(number: int, one: NearDuplicates) -> SheetGroup:
    pictures = tuple(
        Picture(near.id, near.source.rsplit("/", 1)[-1], f"{near.similarity:.4f} {near.label}".strip())
        for near in one.items[:MEMBERS_SHOWN]
    )
    note = f"{len(one.items)} items" + (f"; {said}" if (said := trouble(one)) else "")
    return SheetGroup(f"Group {number}", note, (PictureRow("", pictures),))


def pictures_with_queries(stored: Pictures) -> Pictures:
    """Pictures of stored items by id, and of queries from their files."""

    def picture(id: str) -> bytes | None:
        if not id.startswith(QUERY_PREFIX):
            return stored(id)
        path = Path(id.removeprefix(QUERY_PREFIX))
        if not is_there(path):
            return stored(str(path))
        try:
            return shrink(decode(path, draft=MAX_SIDE))
        except BadItem:
            return None

    return picture
