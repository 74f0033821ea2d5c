"""The section on named subclasses: a 2-D view by t-SNE with their means, colored by class."""

import math

import numpy as np
from markupsafe import Markup

from mixtura.formats import count
from mixtura.records.decision import SubclassMap
from mixtura.report import svg
from mixtura.report.parts import Figure, PageContext, Section, render

HUES = 10
"""Colors of the style sheet; more classes share them."""

MARGIN, ARM, RADIUS = 14.0, 5.0, 9.0  # pixels: around the picture, of a plus, of a star
POINTS = 5


def subclass_map(material: PageContext) -> Section | None:
    """Return the picture; ``None`` if the evaluation has no subclasses."""
    view = material.evaluation.subclass_map
    if view is None:
        return None
    return map_section(view, material.evaluation.classes)


def map_section(view: SubclassMap, names: tuple[str, ...]) -> Section:
    """Return the picture of a report or of a contact sheet, with what to read from it."""
    shared = " Classes share colors." if len(names) > HUES else ""
    lead = (
        "Each dot is a photo, colored by its class. A plus is the mean of a subclass, a star that of a class. Photos "
        "that lie together are alike; the distance between groups that lie apart says nothing."
    )
    caption = f"t-SNE of {count(len(view.xy), 'photo')} and of the means, in their features.{shared}"
    return Section("Subclasses", lead, render("figures.html", figures=[Figure(picture(view, names), caption)]))


def picture(view: SubclassMap, names: tuple[str, ...]) -> Markup:
    """Return the drawing: dots, then pluses, then stars with the names of their classes as tooltips."""
    size = svg.DRAWING_WIDTH
    every = np.concatenate([view.xy, view.subclass, view.mean])
    low, high = every.min(0), every.max(0)
    scale = (size - 2 * MARGIN) / max(float((high - low).max()), 1e-9)
    shift = (size - scale * (high - low)) / 2

    def place(xy: np.ndarray) -> list[list[float]]:
        return (shift + scale * (xy - low)).tolist()

    dots = [svg.dots(place(view.xy[view.label == c]), f"kind hue{c % HUES}") for c in range(len(names))]
    pluses = [
        _plus(x, y, kind)
        for (x, y), parent in zip(place(view.subclass), view.class_parent.tolist(), strict=True)
        for kind in ("halo", f"plus hue{parent % HUES}")
    ]
    stars = [_star(x, y, c, names[c]) for c, (x, y) in enumerate(place(view.mean))]
    label = f"{count(len(view.xy), 'photo')}, means of {len(view.subclass)} subclasses and {len(names)} classes."
    return svg.drawing(label, size, size, *dots, *pluses, *stars)


def _plus(x: float, y: float, kind: str) -> Markup:
    return svg.tag("path", d=f"M{x - ARM:.1f} {y:.1f}h{2 * ARM}M{x:.1f} {y - ARM:.1f}v{2 * ARM}", class_=kind)


def _star(x: float, y: float, index: int, name: str) -> Markup:
    """A star whose inner corners lie at four tenths of its radius."""
    corners = [
        (x + radius * math.sin(math.pi * turn / POINTS), y - radius * math.cos(math.pi * turn / POINTS))
        for turn in range(2 * POINTS)
        for radius in [RADIUS if turn % 2 == 0 else 0.4 * RADIUS]
    ]
    steps = " ".join(f"{svg.number(a)} {svg.number(b)}" for a, b in corners)
    return svg.tag("path", svg.tag("title", name), d=f"M{steps}Z", class_=f"star hue{index % HUES}")
