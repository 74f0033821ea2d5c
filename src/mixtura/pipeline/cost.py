"""Say what a long extraction will take, once it is known, and what a smaller size would save."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from mixtura.datasets.items import Dataset
from mixtura.encoders.sizes import FAST_SIZE, size_of
from mixtura.errors import BadItem, MixturaError
from mixtura.features.extract import Progress
from mixtura.features.inputs import encoded, stacked
from mixtura.formats import count, duration
from mixtura.interfaces import Encoder, SoundEncoder
from mixtura.pipeline import factory
from mixtura.sections import EncoderSection

LONG_SECONDS = 30.0  # shorter extractions are not reported
MEASURED_SECONDS = 3.0  # encoded for so long before a time is named
TRIAL_PHOTOS, TRIAL_SHARE = 16, 40  # read and encoded twice at both sizes; one in so many of what is left, at most
MIN_SPEEDUP = 1.2  # a smaller gain is not reported


class CostWatch:
    """Hands progress on and, once in a long extraction, puts into its ``message`` what is left and how long it takes.

    The time of an item is measured from the second batch on, as the first one warms up; if a single batch takes longer
    than :data:`MEASURED_SECONDS`, it alone is measured.

    Args:
        progress: receives the records.
        tell: returns the sentence for a number of items left and the seconds of one.
    """

    def __init__(self, progress: Callable[[Progress], None], tell: Callable[[int, float], str]) -> None:
        self._progress, self._tell = progress, tell
        self._first: Progress | None = None
        self._before = 0.0  # seconds in which stored items were skipped
        self._told = False

    def __call__(self, now: Progress) -> None:
        """Hand one record on."""
        each = None if self._told else self._seconds_each(now)
        if each is not None and now.left * each >= LONG_SECONDS:
            self._told = True
            now = replace(now, message=self._tell(now.left, each))
        self._progress(now)

    def _seconds_each(self, now: Progress) -> float | None:
        """Seconds of one item; ``None`` while too few have been encoded."""
        if not now.encoded:
            self._before = now.seconds
            return None
        first = self._first = self._first or now
        if now.seconds - self._before < MEASURED_SECONDS:
            return None
        if now.encoded == first.encoded:
            return (now.seconds - self._before) / now.encoded
        return (now.seconds - first.seconds) / (now.encoded - first.encoded)


def sentence(encoder: factory.Encoder, section: EncoderSection, dataset: Dataset, left: int, each: float) -> str:
    """What is left to read, at which size and in which time, and what ``--fast`` would save.

    Args:
        encoder: at work.
        section: that it was made of.
        dataset: being read.
        left: items.
        each: seconds of one.
    """
    size = size_of(encoder.identity)
    at = "" if size is None else f" at {size} px"
    what = count(left, "sound" if isinstance(encoder, SoundEncoder) else "photo")
    told = f"{what} left{at}, {each:.2g} s each: {duration(left * each)} in all."
    photos = min(TRIAL_PHOTOS, left // TRIAL_SHARE)
    gain = speedup(encoder, section, dataset, photos) if photos else 1.0
    if gain < MIN_SPEEDUP:
        return told
    quick = duration(left * each / gain)
    return f"{told} --fast reads at {FAST_SIZE} px, about {gain:.1f} times as fast ({quick})."


def speedup(encoder: factory.Encoder, section: EncoderSection, dataset: Dataset, photos: int) -> float:
    """How many times as fast photos are read and encoded at :data:`FAST_SIZE`, measured on a few; 1 if not applicable.

    Args:
        encoder: at its present size.
        section: that it was made of.
        dataset: of the photos.
        photos: how many to measure.
    """
    size = size_of(encoder.identity)
    if isinstance(encoder, SoundEncoder) or size is None or size <= FAST_SIZE:
        return 1.0
    try:
        small = factory.encoder_of(section.model_copy(update={"size": FAST_SIZE}))
    except MixturaError:  # this network takes one size only
        return 1.0
    assert not isinstance(small, SoundEncoder)
    rows = range(0, len(dataset), max(1, len(dataset) // photos))[:photos]
    # In turns and the best of two: the decoder threads are still busy, and a network's first run is slow.
    times = [(_seconds(encoder, dataset, rows), _seconds(small, dataset, rows)) for _ in range(2)]
    now, then = map(min, zip(*times, strict=True))
    return now / then if now and then else 1.0


def _seconds(encoder: Encoder, dataset: Dataset, rows: Sequence[int]) -> float:
    """The time to read and encode some photos, leaving out the unreadable; 0 if there is none left."""
    start, prepared = time.perf_counter(), []
    for row in rows:
        try:
            prepared.append(encoder.prepare(dataset.image(row, draft=encoder.draft)))
        except (BadItem, OSError):
            continue
    if not prepared:
        return 0.0
    encoded(encoder, stacked(prepared))
    return time.perf_counter() - start
