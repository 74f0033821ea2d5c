"""Print the kinds within classes as a table or as lines."""

from shlex import quote
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from mixtura.cli.output import plain_table, shown
from mixtura.cli.views import problems_view
from mixtura.core.subclasses.search import MIN_UNITS, UNITS_A_KIND
from mixtura.formats import count, duration
from mixtura.tasks.subclasses import ClassKinds, Subclasses


def kinds_lines(found: Subclasses) -> list[str]:
    """Return one line per kind, or per whole class: class, number (empty for a whole class) and size, with tabs."""
    lines: list[str] = []
    for one in found.classes:
        lines += [f"{shown(one.name)}\t{kind.number}\t{kind.size}" for kind in one.kinds]
        lines += [] if one.kinds else [f"{shown(one.name)}\t\t{one.size}"]
    return lines


def kinds_view(found: Subclasses, problems: Any, further: str) -> list[RenderableType]:
    """Return a table with one row per class, the split ones first, and the next command."""
    ordered = sorted(found.classes, key=lambda one: one.count == 1)
    table = plain_table(
        ("Class", "Result", "Photos", "Kinds", "Stability", "p", "p (Holm)"), [_row(one) for one in ordered], right=5
    )
    said = (
        f"{count(len(found.split), 'class', 'classes')} of {len(found.classes)} split, in {duration(found.seconds)}. "
        "Stability: the least of the kinds; 1 means that half of the photos always find the same. p: how often one "
        "Gaussian looks as split; Holm's correction counts all classes."
    )
    return [table, *problems_view(problems), Text(said), Text.assemble(("\nNext    ", "dim"), further)]


def advice(found: Subclasses, asked: int | None, min_rows: int) -> str:
    """Return what helps where every class stays whole; ``asked`` is the number of kinds that was asked for, if any."""
    if asked == 1:
        return "every class stays whole, as you asked"
    judged = [one for one in found.classes if one.limit > 1]
    if judged and asked is None:
        name = quote(judged[0].name)
        method = " --method mixture" if found.method == "hdbscan" else ""
        return (
            f"every class stays whole; to see kinds all the same, give their number: --class {name} --count 2{method}"
        )
    fewer = max((one.limit for one in judged), default=1)
    if asked is not None and 1 < fewer < asked:
        return f"every class stays whole; ask for fewer kinds: --count {fewer}"
    need = asked or 2
    able = [one.size for one in found.classes if one.independent >= max(MIN_UNITS, need * UNITS_A_KIND)]
    smaller = max(able, default=0) // need
    if 2 <= smaller < min_rows:
        return f"every class stays whole; allow for smaller kinds: --min-rows {smaller}"
    return "every class stays whole; add photos, and look again"


def _row(one: ClassKinds) -> tuple[str, ...]:
    sizes = " + ".join(f"{kind.size:,}" for kind in one.kinds)
    figures = (_number(one.stability, 2), _number(one.p_value, 3), _number(one.corrected, 3))
    result = f"{one.why} ({sizes})" if one.kinds else one.why
    return (shown(one.name), result, f"{one.size:,}", str(one.count), *figures)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
