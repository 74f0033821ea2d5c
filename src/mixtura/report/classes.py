"""The section on classes: the recall of each with its interval, and its most frequent confusion."""

from dataclasses import dataclass

import numpy as np

from mixtura.formats import count, interval, listing, percent
from mixtura.metrics.classification import confusion
from mixtura.records.decision import Interval
from mixtura.report.parts import PageContext, Section, render

MAX_ROWS = 25
MIN_ITEMS = 20


@dataclass(frozen=True)
class ClassRow:
    """A class with its recall, the share rejected as unknown, and the class it is most often taken for."""

    name: str
    recall: Interval
    away: float
    taken_for: str
    label: str


def classes(material: PageContext) -> Section | None:
    """Return a table with one dot and one interval per class, weakest first; ``None`` without tested classes."""
    rows = _rows(material)
    if not rows:
        return None
    known = material.known
    mean = float(np.mean([row.recall.value for row in rows]))
    shown = rows if len(rows) <= MAX_ROWS + 5 else rows[:MAX_ROWS]
    body = render("classes.html", shown=shown, rest=rows[len(shown) :], mean=mean, any_known=bool(known.any()))
    return Section("Class by class", _lead(rows, mean), body)


def _lead(rows: list[ClassRow], mean: float) -> str:
    weak = [row.name for row in rows if row.recall.high < mean]
    text = "Weakest first. The dot is the share of a class's photos classified correctly; "
    text += "the line through it is the 95% interval, which is wide if there are few test photos. "
    if weak:
        shown = [*weak[:4], f"{len(weak) - 4} more"] if len(weak) > 5 else weak
        text += f"Clearly below the mean of {percent(mean)}: {listing(shown)}. "
    few = sum(row.recall.count < MIN_ITEMS for row in rows)
    if few:
        who = "All classes have" if few == len(rows) else f"{count(few, 'class has', 'classes have')}"
        text += f"{who} fewer than {MIN_ITEMS} test photos: read those rows with care."
    return text.strip()


def _rows(material: PageContext) -> list[ClassRow]:
    evaluation, known = material.evaluation, material.known
    names = evaluation.classes
    table = confusion(evaluation.true[known], evaluation.predicted[known], len(names))
    np.fill_diagonal(table, 0)
    away = np.bincount(evaluation.true[known & (material.verdict == "unknown")], minlength=len(names))
    rows = []
    for index, name in enumerate(names):
        recall = evaluation.recall.get(name)
        if recall is None or recall.count == 0:
            continue
        other = int(table[index].argmax())
        taken_for = f"{names[other]} ({table[index, other]:,})" if table[index, other] else ""
        spoken = (
            f"{percent(recall.value)} of {count(recall.count, 'photo')} right, "
            f"95% interval {interval(recall.low, recall.high)}"
        )
        rows.append(ClassRow(name, recall, away[index] / recall.count, taken_for, spoken))
    return sorted(rows, key=lambda row: (row.recall.value, -row.recall.count, row.name))
