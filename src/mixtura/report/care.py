"""The page of an inspection: labels that look wrong, photos that are there twice, photos that look like no other."""

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
    """One thing to look at: ``name`` is a label, ``word`` and ``other`` say what it is set against."""

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
    """The page as text; only the thumbnails that are shown are asked for."""
    sections = {
        "summary": _summary(care),
        "labels": _section(
            "Labels that look wrong",
            f"{count(len(care.suspects), 'label')} may be wrong, the clearest first. Some are right and the photo is "
            "hard: look before you move one.",
            care.suspects,
            lambda one: _suspect(one, thumbnails),
        ),
        "clashes": _section(
            "One photo, several labels",
            f"{count(len(care.clashes), 'group')} of near-duplicates whose labels contradict each other: "
            "at most one of the labels can be right.",
            care.clashes,
            lambda one: _twins(one, thumbnails),
        ),
        "copies": _section(
            "Photos that are there twice",
            f"{count(len(care.copies), 'group')} of near-duplicates with one label. Copies add nothing, and a copy on "
            "either side of a test makes the test too easy.",
            care.copies,
            lambda one: _twins(one, thumbnails),
        ),
        "outliers": _section(
            "Photos that look like no other",
            f"{count(len(care.outliers), 'photo')} far from all others, the farthest first: often a screenshot, a "
            "blurred photo, or a thing that is not for sale.",
            care.outliers,
            lambda one: _outlier(one, thumbnails),
        ),
    }
    title = f"Care for {Path(care.place).name}" if care.place else "Care for the data"
    return assemble(title, {name: section for name, section in sections.items() if section is not None})


def _summary(care: Inspection) -> Section:
    found = [
        (len(care.suspects), "Labels that look wrong", "The photo clearly looks like another class than its label."),
        (len(care.clashes), "Photos with several labels", "The same photo, or nearly, under contradicting labels."),
        (len(care.copies), "Photos that are there twice", "The same photo, or nearly, under one label."),
        (len(care.outliers), "Photos that look like no other", "Far from every class and from the crowd."),
    ]
    names = [words[0].lower() + words[1:] for number, words, _ in found if number]
    say = f"Worth a look: {listing(names)}." if names else "Nothing stands out."
    lead = (
        f"{say} {count(care.judged, 'photo')} of {count(care.items)} in {count(care.classes, 'class', 'classes')} were "
        f"each judged by a model that had not seen them; it agrees with {percent(care.accuracy)} of the labels."
    )
    return Section("In short", lead, render("care_counts.html", counts=found))


def _section(title: str, lead: str, found: Sequence[T], card: Callable[[T], Finding]) -> Section | None:
    """A section with cards, or with rows where there is no photo at all; nothing where nothing was found."""
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
        note += "; some of them for testing, some for learning"
    return Finding(
        address(thumbnails(first.id)), first.label, word, other, note, tuple(i.source for i in one.items), more
    )


def _outlier(one: Outlier, thumbnails: Thumbnails) -> Finding:
    note = f"{-one.spreads:.1f} spreads below the median; {percent(one.typicality)} of photos look this unusual"
    return Finding(address(thumbnails(one.id)), one.label, "", "", note, (one.source,))
