"""Group unknown photos that look alike: likely new products, which can be enrolled without new photos.

The catalog itself shows how alike photos of one product are: cosines are computed where its within-product scatter is
round (shrunken towards a sphere), and unknown photos are joined by average linkage until the next join would be looser
than the looser quarter of the catalog's products. On Grocery (lite0 features; ten products left out, 3 to 19 photos
each among 60 photos of other products; five samples) this finds 7.6 of the ten, with 79% of a group's photos from one
product; HDBSCAN finds 3.4 (50%) in the same space and 1.6 (32%) on the raw features.
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

MIN_GROUP_PHOTOS = 3  # different photos in a group
MAX_PHOTOS = 2000  # latest unknown photos considered
SPHERE_SHARE = 0.3  # share of the sphere of equal variance in the within-product covariance
LOOSE_PERCENTILE = 25.0  # percent of the catalog's products that may be looser than a group
MAX_PICTURES = 24  # photos of a group on a page
PHOTOS_A_PRODUCT = 30  # photos per product used to measure how alike they are


def run(journal: Journal, catalog: Catalog) -> tuple[UnknownGroup, ...]:
    """Groups of the latest unknown photos, largest first; a group keeps its id while its oldest photo stays in it."""
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


def accept(journal: Journal, catalog: Catalog, group: str, name: str, kind: str = "") -> EditResult:
    """Enroll a group as a product, or add it to the existing product of that name, and settle its photos.

    Raises:
        NoInput: there is no such group; the nearest is named.
    """
    found = {one.id: one for one in run(journal, catalog)}
    if group not in found:
        hint = names.nearest(group, found) if found else "There are no groups now."
        raise NoInput(f"There is no group {group!r}. {hint}")
    return enroll(journal, catalog, found[group].ids, name, kind)


def enroll(journal: Journal, catalog: Catalog, ids: Sequence[str], name: str, kind: str = "") -> EditResult:
    """Enroll past queries without their photos: features and thumbnails come from the journal.

    Args:
        journal: with the decisions.
        catalog: to edit.
        ids: decisions, settled after the edit.
        name: of a new or existing product.
        kind: of an existing product, that the photos are; empty for none.

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
    effect = catalog.enroll(name, list({shot.sha256: shot for shot in shots}.values()), kind)  # each photo once
    assert effect.product is not None
    journal.resolve(ids, effect.product.id)
    return effect


def sheet_of(groups: Sequence[UnknownGroup], name: str) -> ContactSheet:
    """A contact sheet of the groups, with photos if the journal keeps them."""
    lead = (
        f"{len(groups)} groups of unknown photos that look alike, the most central photos first. Enroll one with: "
        f'mixtura discover {name} --accept GROUP --name "..."'
    )
    return ContactSheet(f"Likely new products for {name}", lead, tuple(_sheet_group(group) for group in groups))


def _sheet_group(group: UnknownGroup) -> SheetGroup:
    note = f"{group.size} photos, nearest to {group.nearest}, {group.first[:10]} to {group.last[:10]}"
    return SheetGroup(group.id, note, (PictureRow("", tuple(Picture(id, id[:8]) for id in group.ids[:MAX_PICTURES])),))


def _shot(journal: Journal, id: str, row: Float[np.ndarray, " D"]) -> Shot:
    """A decision as a shot; the hash is that of the features, since the photo is gone."""
    return Shot(row, hashlib.sha256(row.tobytes()).hexdigest(), f"journal {id}", journal.picture(id))


class Space:
    """A space in which the photos of each product scatter equally in all directions, with the catalog's tightness."""

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
        """Map rows into the space, centered on the catalog and scaled to unit length."""
        rows = solve_triangular(self._factor, (x - self.center).T, lower=True).T
        length = np.sqrt(np.square(rows).sum(1, keepdims=True))
        return rows / np.where(length > 0, length, 1.0)

    def clusters(self, rows: Float[np.ndarray, "N D"]) -> Int[np.ndarray, " N"]:
        """A group number for each row: average linkage, cut where groups become looser than products."""
        distance = squareform(np.clip(1 - rows @ rows.T, 0, None), checks=False)
        return fcluster(linkage(distance, "average"), 1 - self.least, "distance").astype(np.int64) - 1

    def nearest(self, rows: Float[np.ndarray, "N D"]) -> str:
        """The product whose mean has the highest average cosine to the rows."""
        return self.classes[int((rows @ self._mean.T).mean(0).argmax())]


def _factor(deviation: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "D D"]:
    """Cholesky factor of the shrunken within-product covariance."""
    scatter = deviation.T @ deviation / len(deviation)
    size = float(np.trace(scatter)) / len(scatter)
    return np.linalg.cholesky(
        (1 - SPHERE_SHARE) * scatter + (SPHERE_SHARE * size if size > 0 else 1.0) * np.eye(len(scatter))
    )


def _tightness(rows: Float[np.ndarray, "N D"]) -> float:
    """Mean cosine of unit-length rows to their center."""
    return float(np.sqrt(np.square(rows.mean(0)).sum()))


def _group(
    space: Space, rows: Float[np.ndarray, "M D"], asked: Sequence[Sequence[int]], notes: Sequence[LoggedDecision]
) -> UnknownGroup:
    """A group of different photos; ``asked`` holds, per photo, the indices in ``notes`` of its decisions."""
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
