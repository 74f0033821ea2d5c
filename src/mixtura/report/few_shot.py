"""The page of a few-shot evaluation: how well each classifier learns new classes from a few items."""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from mixtura.formats import count, listing, percent
from mixtura.records.few_shot import INDUCTIVE, TRANSDUCTIVE, FewShot, FewShotResult
from mixtura.report import svg
from mixtura.report.facts import grouped
from mixtura.report.page import assemble
from mixtura.report.parts import Figure, Section, render

SETTINGS = {
    INDUCTIVE: "Each query is classified alone (inductive).",
    TRANSDUCTIVE: "The queries of an episode are classified together (transductive): compare with other such figures.",
}
ROW_HEIGHT, BINS = 30.0, 20


def few_shot_page(found: FewShot, title: str) -> str:
    """Return the page as HTML."""
    sections = {"results": _results(found), "episodes": _episodes(found), "facts": _facts(found)}
    return assemble(title, sections)


def _results(found: FewShot) -> Section:
    best = max(found.results, key=lambda one: one.mean)
    tied = [one.classifier for one in found.results if one.mean >= best.low and one is not best]
    lead = (
        f"{found.named}: each of {count(len(found.way), 'episode')} draws its classes anew from "
        f"{count(found.classes, 'new class', 'new classes')} ({count(found.items, 'item')}), with "
        f"{count(found.query, 'query', 'queries')} per class. Best: {best.classifier}, {percent(best.mean)}"
        f"{', with ' + listing(tied) + ' within its interval' if tied else ''}. Intervals: 95%, over the episodes. "
        f"{SETTINGS[found.setting]}"
    )
    body = render("few_shot.html", results=found.results, first=found.results[0].classifier, drawing=_dots(found))
    return Section("Accuracy on new classes", " ".join((lead, *found.notes)), body)


def _dots(found: FewShot) -> Markup:
    """Draw a dot and its interval for each classifier."""
    ends = [edge for one in found.results for edge in _edges(one)]
    margin = max(0.02, 0.1 * (max(ends) - min(ends)))
    span = (max(0.0, min(ends) - margin), min(1.0, max(ends) + margin))
    height = 10 + ROW_HEIGHT * len(found.results)
    area = svg.Plot(92, 6, 388, height, span)
    parts = [area.x_axis(svg.ticks(*span, 4), lambda value: percent(value, 0), "Accuracy")]
    for place, one in enumerate(found.results):
        y = 6 + ROW_HEIGHT * (place + 0.5)
        low, high = _edges(one)
        parts += [
            svg.text(84, y + 4, one.classifier, "tick", "end"),
            svg.line((area.x(low), y), (area.x(high), y), "range"),
            svg.tag("circle", cx=area.x(one.mean), cy=y, r=3.5, class_="dot"),
        ]
    spoken = "Mean accuracy. " + "; ".join(f"{one.classifier}: {percent(one.mean)}" for one in found.results)
    return svg.drawing(spoken, svg.DRAWING_WIDTH, height + 42, *parts)


def _edges(one: FewShotResult) -> tuple[float, float]:
    """The interval, or the mean where there is none."""
    return (one.mean, one.mean) if math.isnan(one.low) else (one.low, one.high)


def _episodes(found: FewShot) -> Section:
    figures = [Figure(_histogram(one, found.results), f"{one.classifier}: {_spread(one)}") for one in found.results]
    lead = "Number of episodes by accuracy. Episodes differ by their classes and by the items to learn from."
    return Section("Episode by episode", lead, render("figures.html", figures=figures))


def _spread(one: FewShotResult) -> str:
    low, middle, high = np.quantile(one.accuracy, (0.05, 0.5, 0.95)).tolist()
    return f"half of the episodes above {percent(middle)}, nine in ten from {percent(low)} to {percent(high)}."


def _histogram(one: FewShotResult, results: Sequence[FewShotResult]) -> Markup:
    """Draw bars; all classifiers share both axes."""
    heights = {id(each): np.histogram(each.accuracy, bins=BINS, range=(0, 1))[0] for each in results}
    most = max(int(found.max()) for found in heights.values())
    area = svg.Plot(44, 34, 384, 200, (0.0, 1.0), (0, most))
    ticks = sorted({float(int(tick)) for tick in svg.ticks(0, most, 4)})
    parts = [area.y_axis(ticks, lambda value: f"{value:,.0f}", "Episodes")]
    edges = np.linspace(0, 1, BINS + 1)
    parts += [
        area.bar(low, high, int(height), "bar known")
        for low, high, height in zip(edges, edges[1:], heights[id(one)], strict=False)
    ]
    parts.append(area.x_axis([0.0, 0.25, 0.5, 0.75, 1.0], lambda value: percent(value, 0), "Accuracy"))
    return svg.drawing(f"Episodes by accuracy of {one.classifier}. {_spread(one)}", svg.DRAWING_WIDTH, 242, *parts)


def _facts(found: FewShot) -> Section:
    drawn = {"protocol": found.protocol, "shot": found.shot, "query": found.query, "seed": found.seed}
    drawn |= {"way": f"{found.way.min()} to {found.way.max()}", "episodes": len(found.way)}
    used = {"new classes": found.classes, "items": found.items, "base classes": found.base}
    times = {one.classifier: f"{one.seconds:.2f} s, once before {one.prepared:.2f} s" for one in found.results}
    groups = grouped({"episodes": drawn, "data": used, "time": times, "versions": found.facts})
    lead = "Everything you need to draw the same episodes; episodes.json beside this page lists them."
    return Section("How it was made", lead, render("facts.html", groups=groups))
