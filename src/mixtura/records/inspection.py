"""Records of an inspection of labeled items."""

from dataclasses import dataclass

from mixtura.records.decision import Neighbor


@dataclass(frozen=True)
class NearDuplicates:
    """Items that are near-duplicates of each other.

    ``lowest`` and ``highest`` are the cosines of the pairs that join them; ``labels`` and ``splits`` are the values
    among them: more than one label is a contradiction, and train beside test makes the test too easy.
    """

    items: tuple[Neighbor, ...]
    lowest: float
    highest: float
    labels: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class DuplicateSearch:
    """All groups of near-duplicates, largest first; ``why`` explains in a sentence where the limit comes from."""

    items: int
    limit: float
    why: str
    pairs: int
    groups: tuple[NearDuplicates, ...]


@dataclass(frozen=True)
class Suspect:
    """An item whose label is probably wrong.

    ``given`` and ``suggested`` are classes with their out-of-fold probabilities, in [0, 1]. Suspects are sorted by
    the difference of the two, largest first.
    """

    id: str
    source: str
    given: str
    suggested: str
    given_probability: float
    suggested_probability: float


@dataclass(frozen=True)
class Outlier:
    """An item that resembles no other in the catalog.

    ``typicality`` is the share of items that look at least this unusual; ``spreads`` is the distance of its score below
    the median, in robust standard deviations.
    """

    id: str
    source: str
    label: str
    typicality: float
    spreads: float


@dataclass(frozen=True)
class Inspection:
    """Suspected label errors, near-duplicates and outliers.

    ``items`` were given, of which ``judged`` have an out-of-fold score; ``accuracy`` is the share of those whose
    label is the most probable class. ``clashes`` are near-duplicates with different labels, ``copies`` those with the
    same; ``limit`` is the cosine from which two items are near-duplicates, and ``why`` explains where it comes from.
    ``strangers`` is a sentence on the share of strangers that the model would notice, empty where there is no model.
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
    strangers: str = ""
