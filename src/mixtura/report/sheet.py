"""Contact sheets: groups of small pictures on one page. It needs no network and runs no script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixtura.formats import count
from mixtura.records.contact_sheet import ContactSheet, PictureRow, SheetGroup
from mixtura.report.mistakes import address
from mixtura.report.page import assemble, save
from mixtura.report.parts import Section, Thumbnails, render

MAX_PICTURES = 200
"""Maximum groups on a page, so that it stays light enough to open; the page says how many it leaves out."""


@dataclass(frozen=True)
class Drawn:
    """A picture formatted for the page: a data URL, or an empty string if there is none."""

    address: str
    caption: str
    note: str


def write_sheet(
    sheet: ContactSheet, path: Path, thumbnails: Thumbnails, further: Mapping[str, Section] | None = None
) -> Path:
    """Write a contact sheet as one HTML file.

    Args:
        sheet: what to show.
        path: the file to write; an existing file is replaced atomically.
        thumbnails: the JPEG bytes for an item's id, or ``None``.
        further: sections between the pictures and the facts, by id.

    Raises:
        CannotWrite, OutOfSpace: the file cannot be written.
    """
    return save(path, sheet_page(sheet, thumbnails, further))


def sheet_page(sheet: ContactSheet, thumbnails: Thumbnails, further: Mapping[str, Section] | None = None) -> str:
    """Return the page as HTML."""
    shown = [_group(group, thumbnails) for group in sheet.groups[:MAX_PICTURES]]
    rest = len(sheet.groups) - len(shown)
    lead = sheet.lead + (f" {count(rest, 'more group')} are not shown." if rest else "")
    sections = {
        "pictures": Section("Pictures", lead, render("sheet.html", groups=shown, facts=())),
        **(further or {}),
        "facts": Section("How it was made", "", render("sheet.html", groups=(), facts=sheet.facts)),
    }
    return assemble(sheet.title, {name: one for name, one in sections.items() if name != "facts" or sheet.facts},
                    "sheet.css")  # fmt: skip


def _group(group: SheetGroup, thumbnails: Thumbnails) -> tuple[SheetGroup, Sequence[tuple[PictureRow, list[Drawn]]]]:
    strips = [
        (strip, [Drawn(address(thumbnails(one.id)), one.caption, one.note) for one in strip.pictures])
        for strip in group.strips
        if strip.pictures
    ]
    return group, strips
