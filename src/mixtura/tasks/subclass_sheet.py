"""Arrange the kinds of classes as a contact sheet: the most typical and the borderline pictures of each."""

from mixtura.records.contact_sheet import ContactSheet, PictureRow, SheetGroup
from mixtura.tasks.contact_sheets import BORDERLINE_SHOWN, MAX_BORDERLINE_MARGIN, TYPICAL_SHOWN, picture_of
from mixtura.tasks.subclasses import ClassKinds, Kind, Subclasses

LEAD = (
    "Each kind shows its most typical photos first, then the borderline ones: those hardly nearer to the middle of "
    "this kind than to that of another kind of the same class."
)


def sheet_of(found: Subclasses, title: str) -> ContactSheet:
    """One group per kind; the classes that stay whole are listed below with the reason."""
    groups = [_group(found, one, kind) for one in found.split for kind in one.kinds]
    lead = LEAD if groups else "No class was split: each looks like one kind."
    return ContactSheet(title, lead, tuple(groups), facts(found))


def facts(found: Subclasses) -> tuple[tuple[str, str], ...]:
    """How many classes were split, how, and what was found in each."""
    split = len(found.split)
    counted = f"{split} of {len(found.classes)} classes are split, {len(found.classes) - split} stay whole"
    return (
        ("Classes", counted),
        ("Method", found.method),
        *((one.name, figures(one)) for one in found.classes),
    )


def figures(one: ClassKinds) -> str:
    """Why a class is split or whole, with its stability and p-values."""
    said = [one.why]
    if one.stability is not None and one.count > 1:
        said.append(f"least stability {one.stability:.2f}")
    if one.p_value is not None and one.corrected is not None:
        said.append(f"p = {one.p_value:.3f} against one Gaussian, {one.corrected:.3f} corrected for all classes")
    return "; ".join(said)


def _group(found: Subclasses, one: ClassKinds, kind: Kind) -> SheetGroup:
    typical = kind.typical[:TYPICAL_SHOWN]
    rest = [
        row
        for row in kind.borderline[:BORDERLINE_SHOWN]
        if row not in typical and found.margin[row] < MAX_BORDERLINE_MARGIN
    ]
    size = f"{kind.size:,} items" if kind.size != 1 else "1 item"
    note = f"{size}; stability {kind.stability:.2f}; {figures(one)}"
    features = found.features
    pictures = [picture_of(features, row) for row in typical]
    borderline = [picture_of(features, row, f"margin {found.margin[row]:.2f}") for row in rest]
    strips = (PictureRow("Typical", tuple(pictures)), PictureRow("Borderline", tuple(borderline)))
    return SheetGroup(f"{one.name}/{kind.number}", note, strips)
