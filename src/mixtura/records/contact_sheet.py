"""Contact sheets as plain records: groups of pictures with words, which the report draws as one page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A picture by the id of its item, what stands below it, and a shorter note such as a similarity."""

    id: str
    caption: str
    note: str = ""


@dataclass(frozen=True)
class PictureRow:
    """Pictures in a row under a few words."""

    heading: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class SheetGroup:
    """What belongs together: a cluster, the answer to a query, or near-duplicates of each other."""

    name: str
    note: str
    strips: tuple[PictureRow, ...]


@dataclass(frozen=True)
class ContactSheet:
    """A whole page: ``lead`` says what is to be seen, ``facts`` are names with their values."""

    title: str
    lead: str
    groups: tuple[SheetGroup, ...]
    facts: tuple[tuple[str, str], ...] = ()
