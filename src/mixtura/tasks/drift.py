"""Drift: do query photos still look like those that the catalog was calibrated on?

Four tests of the latest photos, each with a p-value that is valid if nothing has changed:

- *unknown*: are more photos unknown than stated? Of n genuine photos, the number below the k-th lowest of M calibration
  scores is beta-binomial, exactly, as long as they are exchangeable.
- *typicality*: does the typicality of the others have the distribution of the calibration photos? A two-sample
  Kolmogorov-Smirnov test, so that the size of a small calibration set is taken into account.
- *mix*: do the classes have the same shares as before? Chi-square, with rare classes pooled.
- *classes*: has one class moved? The squared distance between its centers now and before, in spreads, compared with
  random permutations of photos (a gamma distribution with their mean and variance), times the number of classes.

The limit of each is the false-alarm rate divided by the number of tests and by 30 looks (Bonferroni): with one look a
day, a false alarm occurs in at most one month of a hundred.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float
from scipy.stats import betabinom, chi2_contingency, gamma, ks_2samp

from mixtura.catalog import Catalog
from mixtura.catalog.journal import Journal
from mixtura.errors import UsageError
from mixtura.formats import short_percent
from mixtura.model.model import Model
from mixtura.records.journal import Alarm, ClassShare, Day, Drift, LoggedDecision
from mixtura.tasks.evaluate import share

FALSE_ALARM_RATE = 0.01  # share of months without any change that have an alarm
N_TESTS, N_LOOKS = 4, 30
P_VALUE_LIMIT = FALSE_ALARM_RATE / (N_TESTS * N_LOOKS)  # of a p-value
WINDOW_PHOTOS, REFERENCE_PHOTOS = (
    200,
    2000,
)  # latest photos tested, and the photos before them for comparison
MIN_PHOTOS = 50  # photos; with fewer, nothing is tested
MIN_CLASS_PHOTOS = 5  # photos of a class, now and before, needed to compare its centers
MIN_EXPECTED = 5.0  # expected photos of a class that chi-square needs
N_PERMUTATIONS = 400
MAX_DAYS = 3650  # days


@dataclass(frozen=True)
class Sample:
    """Photos as the current model sees them: ``x`` in its space, ``label`` a name, ``accepted`` if not unknown."""

    x: Float[np.ndarray, "N R"]
    label: np.ndarray
    typicality: Float[np.ndarray, " N"]
    accepted: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    @property
    def labels(self) -> list[str]:
        """The classes of the accepted photos."""
        return self.label[self.accepted].tolist()


def run(journal: Journal, catalog: Catalog, days: int = 30) -> Drift:
    """Test whether the photos of the last days resemble those that the catalog was calibrated on.

    Args:
        journal: with the decisions.
        catalog: re-evaluates the latest photos, so that an edit in between is not taken for drift.
        days: length of the period, 1 to 3650.

    Raises:
        UsageError: ``days`` is out of range.
    """
    if not 1 <= days <= MAX_DAYS:
        raise UsageError(f"A period of {days} days cannot be shown. Give 1 to {MAX_DAYS} days.")
    model, noted = catalog.model, journal.logged(days)
    comparable = journal.comparable(model)
    good = [note for note in noted if note.reason != "bad_photo" and note.id in comparable]
    now = sample(model, journal.embedding([note.id for note in good[-WINDOW_PHOTOS:]]))
    earlier = [note.id for note in good[:-WINDOW_PHOTOS][-REFERENCE_PHOTOS:]]
    before = sample(model, journal.embedding(earlier))
    return Drift(
        period=days,
        days=tuple(_day(date, list(notes)) for date, notes in groupby(noted, lambda note: note.at[:10])),
        count=len(noted),
        window=len(now),
        before=len(before),
        stated_false_reject=model.decision.false_reject_rate,
        false_alarms=FALSE_ALARM_RATE,
        alarms=(
            *against_calibration(now, len(model.typicality.scores), model.decision.false_reject_rate),
            mix_alarm(now, before),
            classes_alarm(now, before),
        ),
        mix=_parts(now.labels, before.labels, [str(label) for label in catalog.known().label]),
        left_out=sum(note.id not in comparable for note in noted),
    )


def sample(model: Model, embedding: Float[np.ndarray, "N D"]) -> Sample:
    """Evaluate photos with the current model."""
    if len(embedding) == 0:
        none = np.zeros(0)
        return Sample(np.zeros((0, 1)), none.astype(str), none, none.astype(bool))
    answers = model.answers(embedding)
    label = np.array(model.classes)[answers.predicted]
    x = model.project(embedding).numpy().astype(np.float64)
    return Sample(x, label, answers.typicality, answers.verdict != "unknown")


def against_calibration(now: Sample, held: int, stated: float, limit: float = P_VALUE_LIMIT) -> tuple[Alarm, Alarm]:
    """Test the share of unknown photos, and the typicality of the others.

    Args:
        now: the latest photos.
        held: number of calibration photos of the typicality.
        stated: false-reject rate, a share.
        limit: p-value below which an alarm is raised.
    """
    lowest = max(math.ceil(stated * (held + 1)) - 1, 0)  # number of calibration photos with a typicality that low
    count, unknown = len(now), int((~now.accepted).sum())
    if count < MIN_PHOTOS:
        return _few("unknown", count, limit), _few("typicality", count, limit)
    p = float(betabinom.sf(unknown - 1, count, lowest, held + 1 - lowest)) if lowest else 1.0
    said = (
        f"{unknown} of the latest {count} photos are unknown ({short_percent(unknown / count)}); "
        f"of photos like the catalog's, {short_percent(stated)} would be."
    )
    if p < limit:
        said += " Things are asked about that the catalog does not have, or photos are taken in another way."
    first = Alarm("unknown", unknown / count, p, limit, p < limit, said)
    typical = now.typicality[now.accepted]
    if len(typical) < MIN_PHOTOS or held - lowest < MIN_PHOTOS:
        return first, _few("typicality", min(len(typical), held - lowest), limit)
    reference = (np.arange(lowest + 1, held + 1) + 0.5) / (held + 1)
    distance, p = map(float, tuple(ks_2samp(typical, reference))[:2])
    mean, usual = float(typical.mean()), float(reference.mean())
    said = (
        f"Mean typicality of those that are not unknown: {short_percent(mean)}, where {short_percent(usual)} is usual."
    )
    if p < limit:
        said += " They look less like the catalog's photos." if mean < usual else " They look alike too much: copies?"
    return first, Alarm("typicality", distance, p, limit, p < limit, said)


def mix_alarm(now: Sample, before: Sample, limit: float = P_VALUE_LIMIT) -> Alarm:
    """Test the shares of the classes against the photos before."""
    new, old = Counter(now.labels), Counter(before.labels)
    count, total = new.total(), new.total() + old.total()
    if min(count, old.total()) < MIN_PHOTOS:
        return _few("mix", min(count, old.total()), limit)
    names = sorted(set(new) | set(old))
    often = [name for name in names if (new[name] + old[name]) * min(count, total - count) / total >= MIN_EXPECTED]
    table = [
        [counts[name] for name in often] + [counts.total() - sum(counts[n] for n in often)] for counts in (new, old)
    ]
    columns = np.array(table)[:, np.array(table).sum(0) > 0]
    if columns.shape[1] < 2:
        return Alarm("mix", 0.0, 1.0, limit, False, "Only one class is asked about.")
    statistic, p = map(float, tuple(chi2_contingency(columns, correction=False))[:2])
    said = f"Classes of the latest {count} photos beside those of {old.total()} before."
    changed = max(names, key=lambda name: abs(new[name] / count - old[name] / old.total()))
    if p < limit:
        shares = f"{short_percent(new[changed] / count)} now, {short_percent(old[changed] / old.total())} before"
        said += f" The mix has changed, most of all {changed}: {shares}."
    return Alarm("mix", statistic, p, limit, p < limit, said, changed if p < limit else None)


def classes_alarm(now: Sample, before: Sample, limit: float = P_VALUE_LIMIT) -> Alarm:
    """Test the centers of the classes against the photos before; reports the class that has moved most."""
    names = [
        name
        for name, count in sorted(Counter(now.labels).items())
        if min(count, Counter(before.labels)[name]) >= MIN_CLASS_PHOTOS
    ]
    if not names or min(len(now), len(before)) < MIN_PHOTOS:
        return _few("classes", min(len(now), len(before)), limit)
    rng = np.random.default_rng(0)
    found = [
        _moved(now.x[now.accepted & (now.label == n)], before.x[before.accepted & (before.label == n)], rng)
        for n in names
    ]
    worst = min(range(len(names)), key=lambda i: found[i][1])
    ratio, p = found[worst][0], min(1.0, found[worst][1] * len(names))
    said = f"{len(names)} classes have photos enough to compare their centers."
    if p < limit:
        said += (
            f" Photos of {names[worst]} have changed: their center lies {ratio:.1f} times as far off as chance would "
            "put it. Look at its latest photos."
        )
    return Alarm("classes", ratio, p, limit, p < limit, said, names[worst])


def _moved(
    now: Float[np.ndarray, "N R"], before: Float[np.ndarray, "M R"], rng: np.random.Generator
) -> tuple[float, float]:
    """Distance between two centers, as a multiple of that expected by chance, and its p-value."""
    rows, count = np.concatenate([now, before]), len(now)
    spread = rows.std(0)
    rows = (rows - rows.mean(0)) / np.where(spread > 0, spread, 1.0)
    chosen = np.zeros((N_PERMUTATIONS, len(rows)))
    for line in chosen:
        line[rng.permutation(len(rows))[:count]] = 1
    chosen[0] = np.arange(len(rows)) < count
    squares = np.square(chosen @ rows).sum(1)  # rows sum to zero, so one sum locates both centers
    actual, chance = squares[0], squares[1:]
    mean, variance = chance.mean(), chance.var()
    if not variance > 0:
        return 1.0, 1.0
    return math.sqrt(actual / mean), float(gamma.sf(actual, mean**2 / variance, scale=variance / mean))


def _few(kind: str, count: int, limit: float) -> Alarm:
    return Alarm(
        kind, math.nan, math.nan, limit, False, f"Not tested: {count} photos to compare, {MIN_PHOTOS} are needed."
    )


def _day(date: str, notes: Sequence[LoggedDecision]) -> Day:
    good = [note for note in notes if note.reason != "bad_photo"]
    unknown, unsure = (np.array([note.verdict == word for note in good], dtype=bool) for word in ("unknown", "unsure"))
    typicality = sum(note.typicality for note in good) / len(good) if good else math.nan
    mix = Counter(note.label for note in good if note.verdict != "unknown")
    return Day(date, len(notes), len(notes) - len(good), share(unknown), share(unsure), typicality, dict(mix))


def _parts(now: Sequence[str], before: Sequence[str], catalog: Sequence[str]) -> tuple[ClassShare, ...]:
    """The shares of every class, most frequent first."""
    counts = [Counter(labels) for labels in (now, before, catalog)]
    names = sorted(set().union(*counts), key=lambda name: (-counts[0][name], -counts[1][name], name))
    return tuple(
        ClassShare(name, *(count[name] / count.total() if count else math.nan for count in counts)) for name in names
    )
