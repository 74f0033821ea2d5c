"""What an inspection of labeled items finds."""

from dataclasses import dataclass

from mixtura.records.decision import Neighbor


@dataclass(frozen=True)
class NearDuplicates:
    """Items that are near-duplicates of each other.

    ``lowest`` and ``highest`` are the cosines of the pairs that join them; ``labels`` and ``splits`` hold what occurs
    among them: more than one label is a contradiction, and train beside test makes a test too easy.
    """

    items: tuple[Neighbor, ...]
    lowest: float
    highest: float
    labels: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class DuplicateSearch:
    """All groups of near-duplicates, the largest first; ``why`` says in a sentence where the limit comes from."""

    items: int
    limit: float
    why: str
    pairs: int
    groups: tuple[NearDuplicates, ...]


@dataclass(frozen=True)
class Suspect:
    """An item whose label looks wrong.

    ``given`` and ``suggested`` are classes; the probabilities are those of a model that has not seen the item, in
    [0, 1]. The suspects come with the greatest difference first.
    """

    id: str
    source: str
    given: str
    suggested: str
    given_probability: float
    suggested_probability: float


@dataclass(frozen=True)
class Outlier:
    """An item that looks like no other of the catalog.

    ``typicality`` is the share of items that look at least this unusual, ``spreads`` how far its score lies below the
    median, in robust standard deviations.
    """

    id: str
    source: str
    label: str
    typicality: float
    spreads: float


@dataclass(frozen=True)
class Inspection:
    """Suspected label errors, near-duplicates and outliers.

    ``items`` were given, ``judged`` of them by a model that had not seen them; ``accuracy`` is the share of those whose
    label is the most probable class. ``clashes`` are near-duplicates with different labels, ``copies`` those of one
    label; ``limit`` is the cosine from which two items are near-duplicates, and ``why`` says where it comes from.
    """

    place: str
    items: int
    classes: int
    judged: int
    accuracy: float
    family: str
    suspects: tuple[Suspect, ...]
    clashes: tuple[NearDuplicates, ...]
    copies: tuple[NearDuplicates, ...]
    limit: float
    why: str
    outliers: tuple[Outlier, ...]
