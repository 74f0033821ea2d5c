"""Records of the journal: logged decisions, drift over days, and groups of unknown photos."""

from dataclasses import dataclass

from mixtura.records.decision import Interval


def left_out_note(strange: int, count: int) -> tuple[str, ...]:
    """A sentence on journal decisions by another encoder; empty if there are none."""
    if not strange:
        return ()
    return (
        f"{strange} of {count} decisions in the journal were made with another encoder than the catalog's and are not "
        "compared with it.",
    )


def bad_photos_note(bad: int) -> tuple[str, ...]:
    """A sentence on journal decisions on blurred, dark or blank photos; empty if there are none."""
    if not bad:
        return ()
    were = "photo was" if bad == 1 else "photos were"
    return (f"{bad} {were} blurred, dark or blank (reason bad_photo) and not taken into account.",)


@dataclass(frozen=True)
class LoggedDecision:
    """One decision of the journal.

    ``at`` is ISO 8601 in UTC. ``told`` is true if the client gave feedback, and ``product`` is the id in it (none:
    "it is not in the catalog"). ``photo`` is true if a thumbnail is kept.
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
    """The decisions of one day (UTC), as logged: ``mix`` counts the classes of those not unknown.

    ``bad`` photos (blurred, dark, blank) count only in ``count``; ``typicality`` is a mean, NaN if there is nothing
    to average.
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
    """One test of the latest photos; it is raised if ``p`` is below ``limit``.

    ``kind`` is unknown, typicality, mix or classes. ``p`` is the probability of a ``statistic`` at least this large
    if nothing has changed, NaN if there are too few photos to test; ``product`` is the class in question.
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
    """The share of a class, in [0, 1]: in the latest photos, in the photos before them, and in the catalog."""

    product: str
    now: float
    before: float
    catalog: float


@dataclass(frozen=True)
class Drift:
    """How the photos of the last days compare with the catalog's calibration photos.

    ``window`` counts the latest photos, which the alarms test, and ``before`` the photos they are compared with.
    ``left_out`` decisions count in ``days`` only, because their features come from another encoder than the catalog's.
    ``period`` is in days. ``false_alarms`` is the largest share of months, at one look a day, with an alarm although
    nothing has changed.
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
        """Sentences to show beside the figures."""
        return (
            *left_out_note(self.left_out, self.count),
            *bad_photos_note(sum(day.bad for day in self.days)),
        )

    @property
    def raised(self) -> tuple[Alarm, ...]:
        """The raised alarms."""
        return tuple(alarm for alarm in self.alarms if alarm.raised)


@dataclass(frozen=True)
class UnknownGroup:
    """Unknown photos that resemble each other and likely show one novel class.

    ``ids`` are decisions, most central first; ``size`` counts a photo with several decisions once.
    ``tightness`` is the mean cosine of the photos to their center, in the space where the catalog's products are round;
    ``usual`` is its median over the catalog's products. ``nearest`` is the nearest product.
    """

    id: str
    ids: tuple[str, ...]
    size: int
    nearest: str
    tightness: float
    usual: float
    first: str
    last: str
