"""Unknown photos that look alike: likely new products, to be enrolled without taking a photo again.

How alike the photos of one product are is learned from the catalog itself: cosines are taken where its within-product
scatter is round (shrunken towards a sphere), and unknown photos are joined by average linkage until the next join would
be looser than the looser quarter of the catalog's own products. On Grocery (features of lite0; ten products left out,
3 to 19 photos of each among 60 photos of other products; five draws) this finds 7.6 of the ten, and 79% of the photos
of a group are of one product; HDBSCAN finds 3.4 (50%) in the same space and 1.6 (32%) on the bare features.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.linalg import solve_triangular
from scipy.spatial.distance import squareform

from mixtura import names
from mixtura.catalog import Catalog
from mixtura.catalog.journal import Journal
from mixtura.errors import DataError, NoInput, UsageError
from mixtura.features.records import Features
from mixtura.records.catalog import EditResult, Shot
from mixtura.records.contact_sheet import ContactSheet, Picture, PictureRow, SheetGroup
from mixtura.records.journal import LoggedDecision, UnknownGroup

MIN_GROUP_PHOTOS = 3  # different photos of a group
MAX_PHOTOS = 2000  # latest unknown photos that are looked at
SPHERE_SHARE = 0.3  # of the within-product covariance, the share of the sphere of equal variance
LOOSE_PERCENTILE = 25.0  # percent of the products of the catalog that may be looser than a group
MAX_PICTURES = 24  # photos of a group on a page
PHOTOS_A_PRODUCT = 30  # photos of a product, to see how alike they are


def run(journal: Journal, catalog: Catalog) -> tuple[UnknownGroup, ...]:
    """The groups among the latest unknown photos, the largest first; an id stays while the oldest photo is in it."""
    unknowns = journal.unknowns([product.id for product in catalog.products()])
    comparable = journal.comparable(catalog.model)
    notes = [note for note in unknowns if note.id in comparable][-MAX_PHOTOS:]
    if len(notes) < MIN_GROUP_PHOTOS:
        return ()
    space = Space(catalog.known())
    rows = space.place(journal.embedding([note.id for note in notes]))
    _, first, same = np.unique(rows.round(6), axis=0, return_index=True, return_inverse=True)
    if len(first) < MIN_GROUP_PHOTOS:
        return ()
    label = space.clusters(rows[first])
    members = [np.flatnonzero(label == number) for number in range(int(label.max()) + 1)]
    asked = [np.flatnonzero(same == photo).tolist() for photo in range(len(first))]
    groups = [
        _group(space, rows[first[member]], [asked[photo] for photo in member.tolist()], notes)
        for member in members
        if len(member) >= MIN_GROUP_PHOTOS
    ]
    return tuple(sorted(groups, key=lambda group: (-group.size, -group.tightness, group.id)))


def accept(journal: Journal, catalog: Catalog, group: str, name: str) -> EditResult:
    """Enroll a group as a product, or add it to the product of that name, and settle its photos.

    Raises:
        NoInput: there is no such group; the nearest is named.
    """
    found = {one.id: one for one in run(journal, catalog)}
    if group not in found:
        hint = names.nearest(group, found) if found else "There are no groups now."
        raise NoInput(f"There is no group {group!r}. {hint}")
    return enroll(journal, catalog, found[group].ids, name)


def enroll(journal: Journal, catalog: Catalog, ids: Sequence[str], name: str) -> EditResult:
    """Enroll what was asked before, without the photos: features and thumbnails come from the journal.

    Args:
        journal: where the decisions are.
        catalog: what is edited.
        ids: decisions; they are settled after the edit.
        name: a new product, or one that exists.

    Raises:
        NoInput: the journal has no such decision.
        UsageError: a decision was made with another encoder than the catalog's.
    """
    embedding = journal.embedding(ids)
    strange = sorted(set(ids) - journal.comparable(catalog.model))
    if strange:
        raise UsageError(
            f"Decision {strange[0]!r} was made with another encoder than that of the catalog. Enroll the photo itself."
        )
    shots = [_shot(journal, id, row) for id, row in zip(ids, embedding, strict=True)]
    effect = catalog.enroll(name, list({shot.sha256: shot for shot in shots}.values()))  # each photo once
    assert effect.product is not None
    journal.resolve(ids, effect.product.id)
    return effect


def sheet_of(groups: Sequence[UnknownGroup], name: str) -> ContactSheet:
    """A page with the photos of the groups, where the journal keeps photos."""
    lead = (
        f"{len(groups)} groups of unknown photos that look alike, the most central photos first. Enroll one with: "
        f'mixtura discover {name} --accept GROUP --name "..."'
    )
    return ContactSheet(f"Likely new products for {name}", lead, tuple(_sheet_group(group) for group in groups))


def _sheet_group(group: UnknownGroup) -> SheetGroup:
    note = f"{group.size} photos, nearest to {group.nearest}, {group.first[:10]} to {group.last[:10]}"
    return SheetGroup(group.id, note, (PictureRow("", tuple(Picture(id, id[:8]) for id in group.ids[:MAX_PICTURES])),))


def _shot(journal: Journal, id: str, row: Float[np.ndarray, " D"]) -> Shot:
    """A decision as a photo to enroll; the hash is that of the features, since the photo is gone."""
    return Shot(row, hashlib.sha256(row.tobytes()).hexdigest(), f"journal {id}", journal.picture(id))


class Space:
    """Directions in which the photos of one product of a catalog scatter alike, and how alike they are."""

    def __init__(self, known: Features) -> None:
        label, x = known.label_index(known.classes), known.embedding.astype(np.float64)
        kept = label >= 0
        label, x = label[kept], x[kept]
        if len(x) == 0:
            raise DataError("The catalog holds no items to compare with. Enroll some first.")
        self.classes = known.classes
        self.center = x.mean(0)
        mean = np.stack([x[label == c].mean(0) for c in range(len(self.classes))])
        self._factor = _factor(x - mean[label])
        self._mean = self.place(mean)
        rows = self.place(x)
        parts = [rows[label == c][:PHOTOS_A_PRODUCT] for c in range(len(self.classes))]
        within = [float(np.median(squareform(part @ part.T, checks=False))) for part in parts if len(part) > 1]
        self.least = float(np.percentile(within, LOOSE_PERCENTILE)) if within else 1.0
        tight = [_tightness(part) for part in parts if len(part) >= MIN_GROUP_PHOTOS]
        self.usual = float(np.median(tight)) if tight else float("nan")

    def place(self, x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        """Rows of length one about the center of the catalog, where its products are round."""
        rows = solve_triangular(self._factor, (x - self.center).T, lower=True).T
        length = np.sqrt(np.square(rows).sum(1, keepdims=True))
        return rows / np.where(length > 0, length, 1.0)

    def clusters(self, rows: Float[np.ndarray, "N D"]) -> Int[np.ndarray, " N"]:
        """A group number for each row: average linkage, cut where groups get looser than products are."""
        distance = squareform(np.clip(1 - rows @ rows.T, 0, None), checks=False)
        return fcluster(linkage(distance, "average"), 1 - self.least, "distance").astype(np.int64) - 1

    def nearest(self, rows: Float[np.ndarray, "N D"]) -> str:
        """The product whose mean lies in the direction of most of the rows."""
        return self.classes[int((rows @ self._mean.T).mean(0).argmax())]


def _factor(deviation: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "D D"]:
    """Cholesky factor of the shrunken within-product covariance."""
    scatter = deviation.T @ deviation / len(deviation)
    size = float(np.trace(scatter)) / len(scatter)
    return np.linalg.cholesky(
        (1 - SPHERE_SHARE) * scatter + (SPHERE_SHARE * size if size > 0 else 1.0) * np.eye(len(scatter))
    )


def _tightness(rows: Float[np.ndarray, "N D"]) -> float:
    """Mean cosine of rows of length one to their center."""
    return float(np.sqrt(np.square(rows.mean(0)).sum()))


def _group(
    space: Space, rows: Float[np.ndarray, "M D"], asked: Sequence[Sequence[int]], notes: Sequence[LoggedDecision]
) -> UnknownGroup:
    """A group of different photos, each with the places in ``notes`` of the decisions about it."""
    central = np.argsort(-(rows @ rows.mean(0)), kind="stable").tolist()
    places = [place for photo in central for place in asked[photo]]
    oldest, latest = notes[min(places)], notes[max(places)]
    return UnknownGroup(
        id=f"g-{oldest.id[:8]}",
        ids=tuple(notes[place].id for place in places),
        size=len(rows),
        nearest=space.nearest(rows),
        tightness=_tightness(rows),
        usual=space.usual,
        first=oldest.at,
        last=latest.at,
    )
