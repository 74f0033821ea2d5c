"""Draw a sweep: accuracy by variance kept, in small panels, and accuracy of every cell by size.

With one method, a panel is a head, with its color and mark, and dashes tell the numbers of components apart. With
several, a panel is a head and a number of components, and each method has its own color, mark and dashes; accuracy by
size has one panel per method. So you never need color to read a drawing.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mixtura.formats import percent
from mixtura.records.sweep import Run, Summary
from mixtura.report import svg
from mixtura.report.svg import Number

PANEL_WIDTH = 340.0  # width of a small drawing
MAX_BANDS = 2  # lines of a panel; the bands of more would cover one another
N_COLORS = 7  # in the style sheet
N_DASHES = 6  # in the style sheet
MARK_PATHS = (
    "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1 -1 0z",
    "M-.9 -.9H.9V.9H-.9z",
    "M0 -1.15L1.1 .85H-1.1z",
    "M0 -1.3L1.2 0L0 1.3L-1.2 0z",
    "M0 1.15L1.1 -.85H-1.1z",
    "M-1.15 0L.85 -1.1V1.1z",
    "M-.4 -1.2H.4V-.4H1.2V.4H.4V1.2H-.4V.4H-1.2V-.4H-.4z",
)
"""Marks in units of their radius: circle, square, triangle, diamond, triangles pointing down and left, cross."""

ACCURACY_TICKS = (0.0, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998)
"""Accuracies where a logarithmic axis may have a grid line."""


@dataclass(frozen=True)
class HeadStyle:
    """How a head looks on the page."""

    name: str
    color: str
    mark: str

    def draw(self, at: svg.Point, radius: float, spoken: str) -> Markup:
        """Return the mark at a place, with its tooltip."""
        place = f"translate({svg.number(at[0])} {svg.number(at[1])}) scale({svg.number(radius)})"
        return svg.tag("path", svg.tag("title", spoken), d=self.mark, transform=place, class_=f"mark {self.color}")

    def sample(self) -> Markup:
        """Return the mark for use in text."""
        return Markup('<svg class="sample" viewBox="-2 -2 4 4" aria-hidden="true">{}</svg>').format(
            svg.tag("path", d=self.mark, transform="scale(1.3)", class_=f"mark {self.color}")
        )


@dataclass(frozen=True)
class LineStyle:
    """How a line looks: the color and mark of its head or its method, and its dashes."""

    look: HeadStyle
    dash: int

    def sample(self) -> Markup:
        """Return a piece of the line, with its mark, for a legend."""
        line = svg.line((0, 5), (34, 5), f"trace {self.look.color} dash{self.dash % N_DASHES}")
        mark = svg.tag(
            "path", d=self.look.mark, transform="translate(17 5) scale(3.4)", class_=f"mark {self.look.color}"
        )
        return Markup('<svg class="dash" viewBox="0 0 34 10" aria-hidden="true">{}{}</svg>').format(line, mark)


@dataclass(frozen=True)
class Line:
    """The cells of a head, a method and a number of components, by explained variance."""

    head: str
    method: str
    n_components: int
    points: tuple[Summary, ...]


@dataclass(frozen=True)
class Scale:
    """An accuracy axis: its range and ticks as accuracies, and the function ``of`` that is drawn."""

    low: float
    high: float
    ticks: tuple[float, ...]
    of: Callable[[float], float]

    def area(self, left: Number, top: Number, right: Number, bottom: Number, x: tuple[Number, Number]) -> svg.Plot:
        """Return a plot area with this as its y-axis."""
        return svg.Plot(left, top, right, bottom, x, (self.of(self.low), self.of(self.high)))

    def drawn(self, value: float) -> float:
        """Return the height of an accuracy, clipped to the area."""
        return self.of(min(max(value, self.low), self.high))

    def y_axis(self, area: svg.Plot) -> Markup:
        """Return the axis lines and labels."""
        written = {self.of(tick): f"{100 * tick:.6g}%" for tick in self.ticks}
        return area.y_axis(list(written), lambda place: written[place], "Accuracy")


def head_styles(runs: Iterable[Run]) -> dict[str, HeadStyle]:
    """Return a color and a mark for each head, in the order of the runs."""
    return styles(dict.fromkeys(run.head for run in runs))


def styles(names: Iterable[str]) -> dict[str, HeadStyle]:
    """Return a color and a mark for each name; no two are alike."""
    return {
        name: HeadStyle(name, f"color{i % N_COLORS}", MARK_PATHS[(i + i // N_COLORS) % len(MARK_PATHS)])
        for i, name in enumerate(names)
    }


def accuracy_scale(values: Sequence[float]) -> Scale:
    """Return a linear scale, or a logarithmic one if the highest error is over four times the lowest.

    On a linear scale, one poor cell would squeeze all the good ones together.
    """
    low, high = min(values), max(values)
    least = max(1 - high, 1e-4)
    if 1 - low <= 4 * least:
        pad = max(0.06 * (high - low), 0.002)
        low, high = max(low - pad, 0.0), min(high + pad, 1.0)
        return Scale(low, high, tuple(svg.ticks(low, high, 4)), float)
    low, high = 1 - min((1 - low) * 1.1, 1.0), 1 - least / 1.15
    inside = [tick for tick in ACCURACY_TICKS if low <= tick <= high]
    if len(inside) > 7:
        inside = inside[-1::-2][::-1]
    return Scale(low, high, tuple(inside), lambda value: -math.log10(max(1 - value, 1e-5)))


@dataclass(frozen=True)
class PanelTitle:
    """What a panel is of: a head, its mark where marks stand for heads, and its number of components, if of one."""

    head: str
    look: HeadStyle | None
    n_components: int | None

    @property
    def soft(self) -> str:
        """Return the number of components in words; empty for a panel of all."""
        return "" if self.n_components is None else f"{self.n_components} per class"


@dataclass(frozen=True)
class VariancePlots:
    """Accuracy by variance kept: panels with titles, a legend of their lines, and the dimensions kept.

    ``banded`` says whether bands around the lines are intervals.
    """

    panels: tuple[tuple[PanelTitle, Markup], ...]
    legend: tuple[tuple[Markup, str], ...]
    dimensions: Markup
    banded: bool


def by_variance(summaries: list[Summary], look: dict[str, HeadStyle]) -> VariancePlots:
    """Draw one panel per head (and number of components, with several methods), and one of the dimensions kept."""
    scale = accuracy_scale([one.mean["accuracy"] for one in summaries])
    span = _span([_percent(one) for one in summaries])
    lines, drawn_as = _lines(summaries), _line_styles(summaries)
    panels, grouped = [], _panels(lines, look)
    banded = max(map(len, grouped.values())) <= MAX_BANDS
    for title, own in grouped.items():
        context = _context([line for line in lines if line not in own], scale, span)
        drawn = [_line(line, scale, span, drawn_as(line, look), banded) for line in own]
        panels.append((title, _panel(own[0].head, scale, span, [context, *drawn], own)))
    banded = banded and any(math.isfinite(one.half_width["accuracy"]) for one in summaries)
    return VariancePlots(tuple(panels), _legend(lines, drawn_as, look), _dimensions(summaries, span), banded)


def _lines(summaries: list[Summary]) -> list[Line]:
    own: dict[tuple[str, str, int], list[Summary]] = {}
    for one in summaries:
        own.setdefault((one.cell.head, one.cell.method, one.cell.n_components), []).append(one)
    return [Line(*key, tuple(sorted(points, key=_percent))) for key, points in own.items()]


def _line_styles(summaries: list[Summary]) -> Callable[[Line, dict[str, HeadStyle]], LineStyle]:
    """Return the style of a line: by its method if there are several, else by its head and number of components."""
    methods = list(dict.fromkeys(one.cell.method for one in summaries))
    counts = sorted({one.cell.n_components for one in summaries})
    if len(methods) > 1:
        own = styles(methods)
        return lambda line, look: LineStyle(own[line.method], methods.index(line.method))
    return lambda line, look: LineStyle(look[line.head], counts.index(line.n_components))


def _panels(lines: list[Line], look: dict[str, HeadStyle]) -> dict[PanelTitle, list[Line]]:
    """Return the lines of each panel, by its title; heads in the order of the page."""
    several, counts = _several_methods(lines), {line.n_components for line in lines}
    found: dict[PanelTitle, list[Line]] = {}
    for line in sorted(lines, key=lambda line: (list(look).index(line.head), line.n_components)):
        alone = line.n_components if several and len(counts) > 1 else None
        found.setdefault(PanelTitle(line.head, None if several else look[line.head], alone), []).append(line)
    return found


def _several_methods(lines: list[Line]) -> bool:
    return len({line.method for line in lines}) > 1


def _legend(
    lines: list[Line], drawn_as: Callable[[Line, dict[str, HeadStyle]], LineStyle], look: dict[str, HeadStyle]
) -> tuple[tuple[Markup, str], ...]:
    """Return a sample and its meaning for each method, or for each number of components if there is one method."""
    if _several_methods(lines):
        return tuple({line.method: (drawn_as(line, look).sample(), line.method) for line in lines}.values())
    plain = HeadStyle("", "plain", MARK_PATHS[0])
    counts = sorted({line.n_components for line in lines})
    return tuple((LineStyle(plain, i).sample(), f"{one} per class") for i, one in enumerate(counts))


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of the values, never empty."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _area(scale: Scale, span: tuple[float, float]) -> svg.Plot:
    return scale.area(44, 30, PANEL_WIDTH - 18, 216, span)


def _panel(name: str, scale: Scale, span: tuple[float, float], drawn: list[Markup], own: list[Line]) -> Markup:
    area = _area(scale, span)
    axes = [scale.y_axis(area), area.x_axis(svg.ticks(*span), _text, "Variance kept")]
    return svg.drawing(_spoken(name, own), PANEL_WIDTH, 256, *axes, *drawn)


def _percent(one: Summary) -> float:
    """Return the explained variance of a cell in percent, for axes and texts."""
    return round(100 * one.cell.explained_variance, 10)


def _text(value: float) -> str:
    return f"{value:g}%"


def _spoken(name: str, lines: list[Line]) -> str:
    parts = []
    for line in lines:
        best = max(line.points, key=lambda one: one.mean["accuracy"])
        ends = [
            f"{percent(one.mean['accuracy'])} at {_text(_percent(one))}" for one in (line.points[0], line.points[-1])
        ]
        parts.append(
            f"{line.method}, {line.n_components} per class: {' to '.join(ends)}, "
            f"highest {percent(best.mean['accuracy'])} at {_text(_percent(best))}"
        )
    return f"Accuracy of {name} by variance kept. {'; '.join(parts)}."


def _context(lines: list[Line], scale: Scale, span: tuple[float, float]) -> Markup:
    """Draw the lines of all other heads."""
    area = _area(scale, span)
    return Markup("").join(svg.path(_places(line.points, area, scale), "others") for line in lines)


def _places(points: Sequence[Summary], area: svg.Plot, scale: Scale, edge: int | None = None) -> list[svg.Point]:
    """Return the means, or the lower (0) or upper (1) ends of their intervals, as pixels."""
    return [(area.x(_percent(one)), area.y(scale.drawn(_accuracy(one, edge)))) for one in points]


def _accuracy(one: Summary, edge: int | None) -> float:
    return one.mean["accuracy"] if edge is None else one.interval["accuracy"][edge]


def _line(line: Line, scale: Scale, span: tuple[float, float], style: LineStyle, banded: bool) -> Markup:
    """Draw the band, line and marks."""
    area, look = _area(scale, span), style.look
    wide = [one for one in line.points if math.isfinite(one.half_width["accuracy"])]
    band = [*_places(wide, area, scale, 1), *reversed(_places(wide, area, scale, 0))]
    drawn = [svg.path(band, f"band {look.color}")] if banded and len(wide) > 1 else []
    if len(line.points) > 1:
        drawn.append(svg.path(_places(line.points, area, scale), f"trace {look.color} dash{style.dash % N_DASHES}"))
    radius = 3.2 if len(line.points) <= 10 else 2.2
    for one, place in zip(line.points, _places(line.points, area, scale), strict=True):
        drawn.append(look.draw(place, radius, told(one)))
    return Markup("").join(drawn)


def told(one: Summary) -> str:
    """Describe a cell in one line."""
    low, high = one.interval["accuracy"]
    margin = f" ({100 * low:.2f} to {100 * high:.2f})" if math.isfinite(low) else ""
    return (
        f"{one.cell.head}, {one.cell.method}, {_text(_percent(one))} of variance, {one.cell.n_components} per class: "
        f"{100 * one.mean['accuracy']:.2f}%{margin}, {one.mean['parameters']:,.0f} parameters"
    )


def _dimensions(summaries: list[Summary], span: tuple[float, float]) -> Markup:
    """Draw the number of dimensions needed for each variance, on a logarithmic axis."""
    found: dict[float, list[float]] = {}
    for one in summaries:
        found.setdefault(_percent(one), []).append(one.mean["dimension"])
    points = sorted((kept, math.log10(max(sum(own) / len(own), 1.0))) for kept, own in found.items())
    low, high = min(y for _, y in points), max(y for _, y in points)
    area = svg.Plot(
        44, 30, PANEL_WIDTH - 18, 216, span, (low - 0.05, high + 0.1) if high > low else (low - 0.5, high + 0.5)
    )
    places = area.points(*zip(*points, strict=True))
    parts = [
        area.y_axis(_decades(*area.y_range), lambda place: f"{10**place:,.0f}", "Dimensions"),
        area.x_axis(svg.ticks(*span), _text, "Variance kept"),
        svg.path(places, "trace plain dash0"),
        *[
            svg.tag("circle", svg.tag("title", _dimension(kept, y)), cx=x, cy=place, r=2.6, class_="mark plain")
            for (kept, y), (x, place) in zip(points, places, strict=True)
        ],
    ]
    spoken = "; ".join(_dimension(kept, y) for kept, y in points)
    return svg.drawing(f"Dimensions by variance kept: {spoken}.", PANEL_WIDTH, 256, *parts)


def _dimension(kept: float, place: float) -> str:
    return f"{_text(kept)} needs {10**place:,.0f}"


def _decades(low: Number, high: Number) -> list[float]:
    """Return the places of 1, 2 and 5 times powers of ten in a range; only powers of ten if there are many."""
    tens = range(math.floor(low), math.ceil(high) + 1)
    every = [ten + math.log10(part) for ten in tens for part in (1, 2, 5)]
    inside = [place for place in every if low <= place <= high]
    return inside if len(inside) <= 6 else [float(ten) for ten in tens if low <= ten <= high]


def by_size(
    summaries: list[Summary], best: list[Summary], look: dict[str, HeadStyle]
) -> tuple[tuple[str, Markup], ...]:
    """Draw every cell as a mark, with the best of each head large and with its interval; one panel per method."""
    methods = list(dict.fromkeys(one.cell.method for one in summaries))
    return tuple((method, _sizes_panel(summaries, best, look, method, len(methods) > 1)) for method in methods)


def _sizes_panel(
    summaries: list[Summary], best: list[Summary], look: dict[str, HeadStyle], method: str, narrow: bool
) -> Markup:
    scale = accuracy_scale([one.mean["accuracy"] for one in summaries])
    places = [_log_size(one) for one in summaries]
    low, high = min(places), max(places)
    width, bottom = (PANEL_WIDTH, 240) if narrow else (svg.DRAWING_WIDTH, 292)
    area = scale.area(44, 36, width - 16, bottom, (low - 0.08, high + 0.08) if high > low else (low - 0.5, high + 0.5))
    own = [one for one in summaries if one.cell.method == method]
    chosen = {one.cell for one in best}
    small = [_dot(one, area, scale, look, 2.6) for one in own if one.cell not in chosen]
    large = [_interval(one, area, scale, look) + _dot(one, area, scale, look, 5.5) for one in own if one.cell in chosen]
    axes = [scale.y_axis(area), area.x_axis(_decades(*area.x_range), _tens, "Parameters")]
    spoken = "; ".join(told(one) for one in best if one.cell.method == method)
    label = f"Accuracy by parameters, {method}: {spoken or 'no head is best so'}."
    return svg.drawing(label, width, bottom + 40, *axes, *small, *large)


def _log_size(one: Summary) -> float:
    return math.log10(max(one.mean["parameters"], 1.0))


def _tens(place: float) -> str:
    """Return the label for a power of ten.

    >>> _tens(2.0), _tens(4.0), _tens(6.0)
    ('100', '10k', '1M')
    """
    value = 10**place
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size * (1 - 1e-9):
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:,.0f}"


def _at(one: Summary, area: svg.Plot, scale: Scale, edge: int | None = None) -> svg.Point:
    return area.x(_log_size(one)), area.y(scale.drawn(_accuracy(one, edge)))


def _dot(one: Summary, area: svg.Plot, scale: Scale, look: dict[str, HeadStyle], radius: float) -> Markup:
    large = radius > 4
    drawn = look[one.cell.head].draw(_at(one, area, scale), radius, told(one))
    return drawn if large else svg.tag("g", drawn, class_="faint")


def _interval(one: Summary, area: svg.Plot, scale: Scale, look: dict[str, HeadStyle]) -> Markup:
    if not math.isfinite(one.half_width["accuracy"]):
        return Markup("")
    return svg.line(_at(one, area, scale, 0), _at(one, area, scale, 1), f"whisker {look[one.cell.head].color}")
