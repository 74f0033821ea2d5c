"""Describe the limits of the data in plain sentences."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable

from mixtura.datasets.items import to_split
from mixtura.features.records import Features
from mixtura.fitting.heads import OBJECTIVE_KEYS
from mixtura.formats import count, short_percent
from mixtura.model.model import Model
from mixtura.names import quoted, same_name_key
from mixtura.pipeline.training_set import Gathered, train_part
from mixtura.records.decision import VERDICTS
from mixtura.scores.typicality import can_reject
from mixtura.sections import GRADIENT, FitSection

STEP_KEYS = ("optimizer", "learning_rate", "final_learning_rate", "epochs", "batch_size", "patience")
MAX_NAMED_CLASSES = 5  # classes named in one sentence


def notes(gathered: Gathered, model: Model, section: FitSection) -> tuple[str, ...]:
    """Sentences on doubtful labels, on classes with too few photos, and on settings that have no effect."""
    features, classes = gathered.features, set(model.classes)
    learned = Counter(train_part(features, model.classes).label)
    tested = set(features.select_split("test").classes)
    strange = tested - set(features.select([s != "test" for s in features.split]).classes)
    single = {label for label in classes if learned[label] == 1}
    said = [
        _of("has one photo to learn from", "have one photo each to learn from", single, "Add photos."),
        _of("has no photo to test with", "have no photo to test with", classes - tested - single, "Add photos."),
        _of("occurs only in the test part", "occur only in the test part", strange, "It tests the verdict unknown."),
        *_alike(features.classes),
        *_like_verdicts(model.classes),
        _in_two_classes(features),
        _like_splits(features),
        _unlabeled(gathered.unlabeled),
        str(model.facts.get("stopped", "")),
        _too_few(len(model.typicality.scores), model.decision.false_reject_rate),
        _unread(section),
    ]
    return (*gathered.notes, *(sentence for sentence in said if sentence))


def _unread(section: FitSection) -> str:
    """A sentence on settings of gradient steps where there are none."""
    if section.solver == GRADIENT:
        return ""
    default = FitSection()
    unread = [f"fit.{key}" for key in (*STEP_KEYS, *OBJECTIVE_KEYS) if getattr(section, key) != getattr(default, key)]
    if not unread:
        return ""
    has, what = ("has", "it") if len(unread) == 1 else ("have", "them")
    return (
        f"{', '.join(unread)} {has} no effect: the solver {section.solver} takes no gradient steps. Leave {what} out, "
        "or add --solver gradient."
    )


def _of(one: str, several: str, labels: set[str], advice: str) -> str:
    named = ", ".join(map(repr, sorted(labels)[:MAX_NAMED_CLASSES])) + (
        ", ..." if len(labels) > MAX_NAMED_CLASSES else ""
    )
    if not labels:
        return ""
    return (
        f"Class {named} {one}. {advice}" if len(labels) == 1 else f"{len(labels)} classes ({named}) {several}. {advice}"
    )


def _alike(labels: Iterable[str]) -> list[str]:
    """Sentences on classes with nearly the same name, which are probably one."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        spellings[same_name_key(label)].append(label)
    return [
        f"The classes {', '.join(map(repr, names))} differ only in upper and lower case, blanks or invisible "
        "characters. If they are one, give them one name."
        for names in spellings.values()
        if len(names) > 1
    ]


def _like_verdicts(classes: Iterable[str]) -> list[str]:
    """Sentences on classes that answers cannot tell from a verdict."""
    return [
        f"The class {quoted(name)} is named like the verdict {same_name_key(name)}, and was learned as a class like "
        f"any other. If it holds what is in no class, fit with --unknown {shlex.quote(name)}; if not, rename it."
        for name in classes
        if same_name_key(name) in VERDICTS
    ]


def _in_two_classes(features: Features) -> str:
    """A sentence on files with the same bytes and different labels."""
    places: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(features.sha256):
        if digest:
            places[digest].append(row)
    found = [rows for rows in places.values() if len({features.label[row] for row in rows}) > 1]
    if not found:
        return ""
    first = " and ".join(features.source[row] for row in found[0][:2])
    lie = "item lies" if len(found) == 1 else "items lie"
    return (
        f"{len(found):,} {lie} in two classes or more, byte for byte ({first}). Remove the wrong one; mixtura inspect "
        "lists them."
    )


def _like_splits(features: Features) -> str:
    """A sentence on classes that are named like splits and have sub-folders, as splits do."""
    inner: dict[str, set[str]] = defaultdict(set)
    for label, source in zip(features.label, features.source, strict=True):
        folders = source.split("/")[:-1]
        if label is not None and label in folders[:-1] and to_split(label):
            inner[label].add(folders[folders.index(label) + 1])
    named = sorted(label for label, folders in inner.items() if len(folders) > 1)
    if not named:
        return ""
    return (
        f"The class {named[0]!r} is named like a split and holds {count(len(inner[named[0]]), 'folder')}. If these are "
        "the classes, move them up, or put a second split beside it, such as test."
    )


def _unlabeled(unlabeled: int) -> str:
    return f"Items without a label were left out: {unlabeled:,}." if unlabeled else ""


def _too_few(held: int, rate: float) -> str:
    if can_reject(held, rate):
        return ""
    return (
        f"Only {held} photos could be held out. At a false-reject rate of {short_percent(rate)} that is too few to "
        f"call anything unknown that is not far beyond all of them; it takes {int(1 / rate)} or more."
    )
