"""Contact sheets as plain records: captioned groups of pictures, which the report draws as one page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A picture by the id of its item, its caption, and a shorter note such as a similarity."""

    id: str
    caption: str
    note: str = ""


@dataclass(frozen=True)
class PictureRow:
    """A row of pictures under a short heading."""

    heading: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class SheetGroup:
    """One group: a cluster, the results of a query, or near-duplicates of each other."""

    name: str
    note: str
    strips: tuple[PictureRow, ...]


@dataclass(frozen=True)
class ContactSheet:
    """A whole page: ``lead`` says what it shows, ``facts`` are pairs of name and value."""

    title: str
    lead: str
    groups: tuple[SheetGroup, ...]
    facts: tuple[tuple[str, str], ...] = ()
