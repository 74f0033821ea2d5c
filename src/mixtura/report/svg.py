"""Build small SVG drawings: tags with escaped content, a plot area and its axes.

Colors come from classes in the page's style sheet, so drawings adapt to light mode, dark mode and print.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

DRAWING_WIDTH = 400.0
Number = float | int | np.floating | np.integer
Point = Sequence[Number]  # x and y


def tag(element: str, *children: str, **attributes: str | Number) -> Markup:
    """Return an element; ``class_`` becomes class, underscores become hyphens, and non-Markup is escaped.

    >>> tag("text", "<b>", x=1.23456, class_="name")
    Markup('<text x="1.23" class="name">&lt;b&gt;</text>')
    """
    inner = Markup("").join(children)
    written = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _value(value))
        for name, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(element), written, inner)  # noqa: S704  element is a literal


def _value(value: str | Number) -> str:
    return value if isinstance(value, str) else number(value)


def number(value: Number) -> str:
    """Format a number with at most two decimals and no trailing zeros.

    >>> number(3.0), number(3.14159), number(-0.001)
    ('3', '3.14', '0')
    """
    written = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written


def drawing(label: str, width: Number, height: Number, *children: str) -> Markup:
    """Return the outer svg element: it scales to its column; screen readers read ``label``."""
    content = Markup("").join(children)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        number(width), number(height), label, content
    )


def text(x: Number, y: Number, content: str, kind: str = "", anchor: str = "start") -> Markup:
    """Return a line of text with its baseline at ``y``."""
    return tag("text", escape(content), x=x, y=y, class_=kind, text_anchor=anchor)


def line(start: Point, end: Point, kind: str) -> Markup:
    """Return a straight line."""
    return tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=kind)


def path(points: Iterable[Point], kind: str) -> Markup:
    """Return a line through points."""
    steps = " ".join(f"{number(x)} {number(y)}" for x, y in points)
    return tag("path", d=f"M{steps}", class_=kind)


def dots(points: Iterable[Point], kind: str) -> Markup:
    """Return many round dots in one element: lines of zero length with round caps."""
    return tag("path", d="".join(f"M{x:.1f} {y:.1f}h0" for x, y in points), class_=kind)


@dataclass(frozen=True)
class Plot:
    """A plot area: pixels left, top, right, bottom, and the values at its edges."""

    left: Number
    top: Number
    right: Number
    bottom: Number
    x_range: tuple[Number, Number] = (0.0, 1.0)
    y_range: tuple[Number, Number] = (0.0, 1.0)

    def x(self, value: Number) -> float:
        """Convert a value to pixels from the left."""
        low, high = self.x_range
        return float(self.left + (value - low) / (high - low) * (self.right - self.left))

    def y(self, value: Number) -> float:
        """Convert a value to pixels from the top."""
        low, high = self.y_range
        return float(self.bottom - (value - low) / (high - low) * (self.bottom - self.top))

    def points(self, xs: Iterable[Number], ys: Iterable[Number]) -> list[Point]:
        """Convert values to pixels."""
        return [(self.x(x), self.y(y)) for x, y in zip(xs, ys, strict=True)]

    def bar(self, low: Number, high: Number, value: Number, kind: str) -> Markup:
        """Return a bar from the bottom of the area to ``value``; nothing at 0."""
        top = self.y(value)
        if self.bottom - top <= 0:
            return Markup("")
        gap = 0.5
        left, right = self.x(low) + gap, self.x(high) - gap
        return tag("rect", x=left, y=top, width=max(right - left, 0.5), height=self.bottom - top, class_=kind)

    def x_axis(self, ticks: Sequence[float], write: Callable[[float], str], title: str) -> Markup:
        """Return the base line, with tick labels and then the title below it."""
        parts = [line((self.left, self.bottom), (self.right, self.bottom), "axis")]
        parts += [text(self.x(tick), self.bottom + 16, write(tick), "tick", "middle") for tick in ticks]
        parts.append(text((self.left + self.right) / 2, self.bottom + 34, title, "title", "middle"))
        return Markup("").join(parts)

    def y_axis(self, ticks: Sequence[float], write: Callable[[float], str], title: str) -> Markup:
        """Return grid lines with tick labels on their left; the title is above, so no text is rotated."""
        parts = [line((self.left, self.y(tick)), (self.right, self.y(tick)), "grid") for tick in ticks]
        parts += [text(self.left - 6, self.y(tick) + 4, write(tick), "tick", "end") for tick in ticks]
        parts.append(text(0, self.top - 12, title, "title"))
        return Markup("").join(parts)


def ticks(low: Number, high: Number, most: int = 5) -> list[float]:
    """Return round values from ``low`` to ``high``, at most ``most`` + 1.

    >>> ticks(0.0, 0.23), ticks(-130.0, 40.0)
    ([0.0, 0.05, 0.1, 0.15, 0.2], [-100.0, -50.0, 0.0])
    """
    coarse = 10.0 ** math.ceil(math.log10((high - low) / most))
    step = next(coarse * part for part in (0.2, 0.5, 1.0) if (high - low) / (coarse * part) <= most * (1 + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]
