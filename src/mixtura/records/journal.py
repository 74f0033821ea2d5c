"""The records of the journal: what was decided, how the days compare, and which unknown photos belong together."""

from dataclasses import dataclass

from mixtura.records.decision import Interval


def left_out_note(strange: int, count: int) -> tuple[str, ...]:
    """A sentence on decisions of the journal that were made with another encoder; none where there are none."""
    if not strange:
        return ()
    return (
        f"{strange} of {count} decisions in the journal were made with another encoder than the catalog's and are not "
        "compared with it.",
    )


@dataclass(frozen=True)
class LoggedDecision:
    """One decision of the journal.

    ``at`` is ISO 8601 in UTC; ``product`` is the id that the client told, ``told`` whether the client said anything
    (with no product: "it is not in the catalog"); ``photo`` whether a thumbnail is kept.
    """

    id: str
    at: str
    verdict: str
    reason: str | None
    label: str
    probability: float
    typicality: float
    told: bool
    product: str | None
    photo: bool


@dataclass(frozen=True)
class Day:
    """The decisions of one day (UTC), as they were told: ``mix`` counts the classes of those not called unknown.

    ``bad`` photos (blurred, dark, blank) count in ``count`` and in nothing else; ``typicality`` is a mean, NaN where
    there is nothing to average.
    """

    date: str
    count: int
    bad: int
    unknown: Interval
    unsure: Interval
    typicality: float
    mix: dict[str, int]


@dataclass(frozen=True)
class Alarm:
    """One test of the latest photos: ``p`` below ``limit`` raises it.

    ``kind`` is unknown, typicality, mix or classes. ``p`` is the probability of a ``statistic`` at least this
    large if nothing has changed, NaN where there are too few photos to test; ``product`` is the class it is about.
    """

    kind: str
    statistic: float
    p: float
    limit: float
    raised: bool
    sentence: str
    product: str | None = None


@dataclass(frozen=True)
class ClassShare:
    """The share of a class, in [0, 1]: among the latest photos, among those before them, and in the catalog."""

    product: str
    now: float
    before: float
    catalog: float


@dataclass(frozen=True)
class Drift:
    """How the photos of the last days compare with what the catalog was calibrated on.

    ``window`` photos are the latest ones, which the alarms are about, ``before`` those they are compared with.
    ``left_out`` decisions count in ``days`` only: their features are of another encoder than the catalog's.
    ``period`` is in days. ``false_alarms`` is the share of months, looked at once a day, in which an alarm is raised
    though nothing has changed: at most this.
    """

    period: int
    days: tuple[Day, ...]
    count: int
    window: int
    before: int
    stated_false_reject: float
    false_alarms: float
    alarms: tuple[Alarm, ...]
    mix: tuple[ClassShare, ...]
    left_out: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know beside the figures, in sentences."""
        return left_out_note(self.left_out, self.count)

    @property
    def raised(self) -> tuple[Alarm, ...]:
        """The alarms that were raised."""
        return tuple(alarm for alarm in self.alarms if alarm.raised)


@dataclass(frozen=True)
class UnknownGroup:
    """Unknown photos that look like one product that the catalog does not have.

    ``ids`` are decisions, the most central first; ``size`` counts a photo that was asked about several times once.
    ``tightness`` is the mean cosine of the photos to their center, where the products of the catalog are round, and
    ``usual`` the median of that over its products. ``nearest`` is the product that they are nearest to.
    """

    id: str
    ids: tuple[str, ...]
    size: int
    nearest: str
    tightness: float
    usual: float
    first: str
    last: str
