"""The page of an inspection: labels that look wrong, duplicate photos, photos that look like no other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mixtura.formats import count, listing, percent
from mixtura.records.inspection import Inspection, NearDuplicates, Outlier, Suspect
from mixtura.report.mistakes import address
from mixtura.report.page import assemble, save
from mixtura.report.parts import Section, Thumbnails, render

MAX_CARDS, MAX_ROWS = 12, 60
PICTURES_BESIDE = 3  # photos of a group beside the first one

T = TypeVar("T")


@dataclass(frozen=True)
class SidePicture:
    """A further photo of a group."""

    address: str
    label: str


@dataclass(frozen=True)
class Finding:
    """One finding to review: ``name`` is a label; ``word`` and ``other`` say what it is compared with."""

    address: str
    name: str
    word: str
    other: str
    note: str
    sources: tuple[str, ...]
    more: tuple[SidePicture, ...] = ()


def write_care(care: Inspection, path: Path, thumbnails: Thumbnails) -> Path:
    """Write an inspection as one self-contained HTML file.

    Raises:
        CannotWrite, OutOfSpace: the page cannot be written.
    """
    return save(path, care_page(care, thumbnails))


def care_page(care: Inspection, thumbnails: Thumbnails) -> str:
    """Return the page as HTML; only the thumbnails on it are requested."""
    sections = {
        "summary": _summary(care),
        "labels": _section(
            "Labels that look wrong",
            f"{count(len(care.suspects), 'label')} may be wrong, clearest first. Some are right and the photo is "
            "just hard: look before you move one.",
            care.suspects,
            lambda one: _suspect(one, thumbnails),
        ),
        "clashes": _section(
            "One photo, several labels",
            f"{count(len(care.clashes), 'group')} of near-duplicates with conflicting labels: "
            "at most one of the labels can be right.",
            care.clashes,
            lambda one: _twins(one, thumbnails),
        ),
        "copies": _section(
            "Duplicate photos",
            f"{count(len(care.copies), 'group')} of near-duplicates with one label. Copies add nothing, and a copy in "
            "both the training and the test split makes the test too easy.",
            care.copies,
            lambda one: _twins(one, thumbnails),
        ),
        "outliers": _section(
            "Photos that look like no other",
            f"{count(len(care.outliers), 'photo')} far from all others, farthest first: often a screenshot, a "
            "blurred photo, or something not for sale.",
            care.outliers,
            lambda one: _outlier(one, thumbnails),
        ),
    }
    title = f"Inspection of {Path(care.place).name}" if care.place else "Inspection of the data"
    return assemble(title, {name: section for name, section in sections.items() if section is not None})


def _summary(care: Inspection) -> Section:
    found = [
        (len(care.suspects), "Labels that look wrong", "The photo clearly looks like a different class."),
        (len(care.clashes), "Photos with several labels", "The same photo, or nearly, under conflicting labels."),
        (len(care.copies), "Duplicate photos", "The same photo, or nearly, under one label."),
        (len(care.outliers), "Photos that look like no other", "Far from every class and from most photos."),
    ]
    names = [words[0].lower() + words[1:] for number, words, _ in found if number]
    say = f"Worth a look: {listing(names)}." if names else "Nothing stands out."
    lead = (
        f"{say} Of {count(care.items)} photos in {count(care.classes, 'class', 'classes')}, {count(care.judged)} were "
        f"judged by a model that had not seen them; it agrees with {percent(care.accuracy)} of the labels."
    )
    return Section("In short", lead, render("care_counts.html", counts=found))


def _section(title: str, lead: str, found: Sequence[T], card: Callable[[T], Finding]) -> Section | None:
    """Return a section of cards, or of rows if there are no photos; ``None`` if nothing was found."""
    if not found:
        return None
    findings = [card(one) for one in found[:MAX_ROWS]]
    pictured = any(one.address for one in findings)
    left = len(found) - len(findings)
    body = render("care.html", shown=findings[:MAX_CARDS], rest=findings[MAX_CARDS:], pictured=pictured, left=left)
    return Section(title, lead, body)


def _suspect(one: Suspect, thumbnails: Thumbnails) -> Finding:
    note = (
        f"Probability of the label {percent(one.given_probability)}, of the other {percent(one.suggested_probability)}"
    )
    photo = address(thumbnails(one.id))
    return Finding(photo, one.given, "looks like", one.suggested, note, (one.source,))


def _twins(one: NearDuplicates, thumbnails: Thumbnails) -> Finding:
    first, *others = one.items
    more = tuple(SidePicture(address(thumbnails(item.id)), item.label) for item in others[:PICTURES_BESIDE])
    word, other = (
        ("and", listing([label for label in one.labels if label != first.label])) if len(one.labels) > 1 else ("", "")
    )
    note = f"{count(len(one.items), 'photo')}, cosine {one.lowest:.4f} or more"
    if "test" in one.splits and len(one.splits) > 1:
        note += "; some are in the test split, some in training"
    return Finding(
        address(thumbnails(first.id)), first.label, word, other, note, tuple(i.source for i in one.items), more
    )


def _outlier(one: Outlier, thumbnails: Thumbnails) -> Finding:
    note = f"{-one.spreads:.1f} spreads below the median; {percent(one.typicality)} of photos look this unusual"
    return Finding(address(thumbnails(one.id)), one.label, "", "", note, (one.source,))
