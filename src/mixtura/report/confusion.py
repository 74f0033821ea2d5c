"""The section on confusions: a table for few classes, a map of squares for many, and the most confused pairs."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from mixtura.formats import count, percent
from mixtura.metrics.classification import confusion as count_confusion
from mixtura.report import svg
from mixtura.report.parts import PageContext, Section, render

WITH_NUMBERS = 12  # most classes for cells with a number
WITH_NAMES = 40  # most classes for rows with a name
MAX_BLOCKS = 100  # squares along a side of the compact map
MAX_PAIRS = 10
FULL_SHADE = 0.4  # share of a class at which an error has the darkest shade
SHADE_LEVELS = (0.0, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Cell:
    """A cell of the table: ``shade`` is 0 to 100, ``text`` the content, ``note`` the tooltip."""

    text: str
    note: str
    kind: str
    shade: float


@dataclass(frozen=True)
class Pair:
    """A class, the class it was taken for, and how often."""

    true: str
    predicted: str
    number: int
    share: float


def confusion(material: PageContext) -> Section | None:
    """Return the confusion of catalog photos, with often confused classes next to each other."""
    known, names = material.known, material.evaluation.classes
    if not known.any() or len(names) < 2:
        return None
    table = count_confusion(material.evaluation.true[known], material.evaluation.predicted[known], len(names))
    order = similar_beside(table)
    ordered, sorted_names = table[np.ix_(order, order)], [names[i] for i in order]
    compact = _compact(ordered) if len(names) > WITH_NAMES else None
    body = render(
        "confusion.html",
        names=sorted_names,
        cells=None if compact else _cells(ordered, sorted_names),
        totals=ordered.sum(axis=1).tolist(),
        figures=len(names) <= WITH_NUMBERS,
        compact=compact,
        pairs=most_confused(table, names),
    )
    return Section("Which classes are confused", _lead(table), body)


def _lead(table: np.ndarray) -> str:
    wrong = int(table.sum() - np.trace(table))
    if wrong == 0:
        return f"All {count(int(table.sum()), 'catalog photo')} were classified correctly."
    errors = table.copy()
    np.fill_diagonal(errors, 0)
    largest = int(np.sort(errors, axis=None)[-MAX_PAIRS:].sum())
    text = f"Of {count(int(table.sum()), 'catalog photo')}, {count(wrong)} were assigned the wrong class. "
    if np.count_nonzero(errors) > MAX_PAIRS:
        text += f"The {MAX_PAIRS} most confused pairs make up {percent(largest / wrong, 0)} of those. "
    return text + "Classes that are often confused are next to each other."


def similar_beside(table: np.ndarray) -> np.ndarray:
    """Return an order with often confused classes next to each other (average linkage over error rates)."""
    n = len(table)
    if n < 3:
        return np.arange(n)
    rate = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    distance = 1 - (rate + rate.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=n <= 200)
    return leaves_list(tree)


def most_confused(table: np.ndarray, names: tuple[str, ...]) -> list[Pair]:
    """Return the pairs with the most photos of one class taken for the other."""
    errors = table.copy()
    np.fill_diagonal(errors, 0)
    floor = min(2, int(errors.max()))  # a single photo is not a pattern, unless there is nothing else
    flat = np.argsort(-errors, axis=None, kind="stable")[:MAX_PAIRS]
    rows, columns = np.unravel_index(flat, errors.shape)
    totals = table.sum(axis=1)
    return [
        Pair(names[i], names[j], int(errors[i, j]), float(errors[i, j] / totals[i]))
        for i, j in zip(rows, columns, strict=True)
        if errors[i, j] >= max(floor, 1)
    ]


def _cells(table: np.ndarray, names: list[str]) -> list[list[Cell]]:
    totals = table.sum(axis=1)
    return [
        [_cell(int(table[i, j]), int(totals[i]), (names[i], names[j]), i == j) for j in range(len(names))]
        for i in range(len(names))
    ]


def _cell(number: int, total: int, names: tuple[str, str], right: bool) -> Cell:
    share = number / total if total else 0.0
    text = f"{100 * share:.0f}" if share >= 0.005 else "·" if number else ""
    shade = 100 * share if right else 100 * min(1.0, share / FULL_SHADE) ** 0.75
    said = "right" if right else f"taken for {names[1]}"
    note = f"{names[0]}: {number:,} of {total:,} {said}"
    return Cell(text, note, "right" if right else "wrong", round(shade, 1))


def _compact(table: np.ndarray) -> Markup:
    """Draw squares in five shades; neighboring classes share a square if there are more than ``MAX_BLOCKS``."""
    pooled = -(-len(table) // MAX_BLOCKS)
    starts = np.arange(0, len(table), pooled)
    table = np.add.reduceat(np.add.reduceat(table, starts, axis=0), starts, axis=1)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = svg.DRAWING_WIDTH / len(table)
    squares = [svg.tag("rect", x=0, y=0, width=svg.DRAWING_WIDTH, height=svg.DRAWING_WIDTH, class_="ground")]
    for kind, mask in (("right", np.eye(len(table), dtype=bool)), ("wrong", ~np.eye(len(table), dtype=bool))):
        level = np.digitize(share, SHADE_LEVELS, right=True)
        for step in range(1, len(SHADE_LEVELS) + 1):
            cells = np.argwhere(mask & (level == step))
            if len(cells):
                squares.append(_squares(cells, side, f"{kind} shade{step}"))
    label = f"Map of {len(share)} by {len(share)} squares: rows are true classes, columns predicted classes."
    return svg.drawing(label, svg.DRAWING_WIDTH, svg.DRAWING_WIDTH, *squares)


def _squares(cells: np.ndarray, side: float, kind: str) -> Markup:
    s = svg.number(side)
    steps = "".join(f"M{svg.number(j * side)} {svg.number(i * side)}h{s}v{s}h-{s}z" for i, j in cells)
    return svg.tag("path", d=steps, class_=kind)
