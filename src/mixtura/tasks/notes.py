"""Describe the limits of the data in plain sentences."""

from collections import Counter

from mixtura.formats import short_percent
from mixtura.model.model import Model
from mixtura.pipeline.training_set import Gathered, train_part
from mixtura.scores.typicality import can_reject

MAX_NAMED_CLASSES = 5  # classes named in one sentence


def notes(gathered: Gathered, model: Model) -> tuple[str, ...]:
    """Sentences on unlabeled items, classes of one photo, classes never tested, and too few photos to reject any."""
    features, classes = gathered.features, set(model.classes)
    learned = Counter(train_part(features, model.classes).label)
    tested = set(features.select_split("test").classes)
    strange = tested - set(features.select([s != "test" for s in features.split]).classes)
    single = {label for label in classes if learned[label] == 1}
    said = [
        _of("has one photo to learn from", "have one photo each to learn from", single, "Add photos."),
        _of("has no photo to test with", "have no photo to test with", classes - tested - single, "Add photos."),
        _of("occurs only in the test part", "occur only in the test part", strange, "It tests the verdict unknown."),
        _unlabeled(gathered.unlabeled),
        str(model.facts.get("stopped", "")),
        _too_few(len(model.typicality.scores), model.decision.false_reject_rate),
    ]
    return (*gathered.notes, *(sentence for sentence in said if sentence))


def _of(one: str, several: str, labels: set[str], advice: str) -> str:
    named = ", ".join(map(repr, sorted(labels)[:MAX_NAMED_CLASSES])) + (
        ", ..." if len(labels) > MAX_NAMED_CLASSES else ""
    )
    if not labels:
        return ""
    return (
        f"Class {named} {one}. {advice}" if len(labels) == 1 else f"{len(labels)} classes ({named}) {several}. {advice}"
    )


def _unlabeled(count: int) -> str:
    return f"Items without a label were left out: {count}." if count else ""


def _too_few(held: int, rate: float) -> str:
    if can_reject(held, rate):
        return ""
    return (
        f"Only {held} photos could be held out: too few to call anything unknown at a false-reject rate of "
        f"{short_percent(rate)}. That takes {int(1 / rate)} or more."
    )
