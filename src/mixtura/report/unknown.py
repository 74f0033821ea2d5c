"""The section on strangers: typicality and raw score of photos in and not in the catalog, with the threshold."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from mixtura.formats import count, interval, percent
from mixtura.records.decision import OTHER_KIND, Interval
from mixtura.records.strangers import StrangerEstimate
from mixtura.report import svg
from mixtura.report.parts import Figure, PageContext, Section, render

HISTOGRAM_BINS = 20
SCORE_BINS = 32


@dataclass(frozen=True)
class Threshold:
    """A line through both panels, and its label."""

    value: float
    text: str


def unknown(material: PageContext) -> Section:
    """Return two figures, each with one panel for catalog photos and one for photos not in the catalog."""
    evaluation = material.evaluation
    figures = [_typicality(material)]
    if np.isfinite(evaluation.score).sum() > 1:
        figures.append(_score(material))
    return Section(
        "Does it reject photos that are not in the catalog?", _lead(material), render("figures.html", figures=figures)
    )


def _lead(material: PageContext) -> str:
    alpha, metrics = material.evaluation.alpha, material.evaluation.metrics
    text = (
        f"A photo is called unknown if its typicality is below {percent(alpha)}: fewer than {percent(alpha)} of "
        "genuine photos of the class look that unusual. "
    )
    span = material.evaluation.intervals.get("false_reject")
    if span is not None:
        text += (
            f"So about {percent(alpha)} of genuine photos should be rejected. {percent(span.value)} were, "
            f"{_compare(span, alpha)} (95% interval {interval(span.low, span.high)}). "
        )
        if material.evaluation.shift:
            text += f"{OTHER_KIND.capitalize()}. "
    text += _strangers(material)
    if material.known.all():
        return f"{text}No photos of anything else were tested, so how often it notices these was not measured."
    strange = ~material.known
    found = float((material.verdict[strange] == "unknown").mean())
    text += f"Of {count(int(strange.sum()), 'photo')} not in the catalog, {percent(found)} were reported as unknown. "
    if "auroc_unknown" in metrics:
        text += (
            f"In {percent(metrics['auroc_unknown'])} of all pairs, the catalog photo looks more familiar than the "
            "other one (AUROC)."
        )
    return text


def _strangers(material: PageContext) -> str:
    """How often strangers would be reported as unknown, from the classes that were left out in turn."""
    estimate = StrangerEstimate.of_facts(material.evaluation.facts)
    if estimate is None:
        return ""
    if estimate.noticed is None:
        return f"{estimate.sentence} "
    least = ", ".join(estimate.least_noticed())
    return (
        f"{estimate.sentence} This was estimated by leaving some of your classes out in turn; least often reported as "
        f"unknown were {least}. "
    )


def _compare(measured: Interval, stated: float) -> str:
    if measured.low <= stated <= measured.high:
        return "in line with that"
    return "clearly fewer than that" if measured.value < stated else "clearly more than that"


def _typicality(material: PageContext) -> Figure:
    alpha, values = material.evaluation.alpha, np.clip(material.evaluation.typicality, 0, 1)
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    threshold = Threshold(alpha, f"unknown below {percent(alpha, 0 if alpha >= 0.01 else 1)}")
    drawing = _panels(material, values, edges, threshold, "Typicality")
    caption = (
        "The typicality of catalog photos should be uniform; that of photos not in the catalog should peak left of the "
        "line."
    )
    return Figure(drawing, caption)


def _score(material: PageContext) -> Figure:
    score, alpha = material.evaluation.score.astype(np.float64), material.evaluation.alpha
    finite = score[np.isfinite(score)]
    low, high = np.quantile(finite, [0.005, 0.995])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    clipped = np.clip(score, low, high)
    cut = float(np.quantile(clipped[material.known] if material.known.any() else clipped, alpha))
    threshold = Threshold(cut, f"{percent(alpha, 0 if alpha >= 0.01 else 1)} of catalog photos are left")
    edges = np.linspace(low, high, SCORE_BINS + 1)
    drawing = _panels(material, clipped, edges, threshold, "Score (higher is more familiar)")
    caption = (
        "The raw score behind the typicality, over all classes. Each class has its own threshold; "
        "the dashed line shows a common one. The outermost bars include all values beyond them."
    )
    return Figure(drawing, caption)


def _panels(material: PageContext, values: np.ndarray, edges: np.ndarray, cut: Threshold, title: str) -> Markup:
    """Stack the histograms over a common axis; each has its own scale, labeled at its top."""
    span = (float(edges[0]), float(edges[-1]))
    groups = [("In the catalog", material.known, "known"), ("Not in the catalog", ~material.known, "unknown")]
    groups = [group for group in groups if group[1].any()]
    height, gap, top = (104, 34, 52) if len(groups) == 2 else (242, 0, 52)
    parts, spoken, area = [], [], svg.Plot(44, top, 384, top + height, span)
    x, lower = area.x(cut.value), top + len(groups) * height + gap
    flip = x > 220
    parts.append(svg.text(x + (-5 if flip else 5), 26, cut.text, "note", "end" if flip else "start"))
    for name, group, kind in groups:
        share = np.histogram(values[group], edges)[0] / group.sum()
        area = svg.Plot(44, top, 384, top + height, span, (0, float(share.max())))
        parts.append(_panel(area, share, edges, kind))
        side = (area.left, "start") if flip else (area.right, "end")
        parts.append(svg.text(side[0], area.top - 5, f"{name}: {group.sum():,}", f"name {kind}", side[1]))
        below = float((values[group] < cut.value).mean())
        spoken.append(f"{name}: {percent(below)} of {group.sum():,} photos are left of the line")
        top += height + gap
    parts.append(svg.line((x, 30), (x, lower), "cut"))
    write = (lambda v: f"{100 * v:.0f}%") if span == (0.0, 1.0) else (lambda v: f"{v:,.6g}".replace("-", "−"))
    parts.append(area.x_axis(svg.ticks(*span, 4), write, title))
    return svg.drawing(f"{title}. {'; '.join(spoken)}.", svg.DRAWING_WIDTH, area.bottom + 40, *parts)


def _panel(area: svg.Plot, share: np.ndarray, edges: np.ndarray, kind: str) -> Markup:
    peak = float(share.max())
    bars = [area.bar(edges[i], edges[i + 1], share[i], f"bar {kind}") for i in range(len(share))]
    base = svg.line((area.left, area.bottom), (area.right, area.bottom), "axis")
    label = svg.text(area.left - 6, area.top + 4, percent(peak, 0 if peak >= 0.095 else 1), "tick", "end")
    zero = svg.text(area.left - 6, area.bottom + 4, "0%", "tick", "end")
    return Markup("").join([svg.line((area.left, area.top), (area.right, area.top), "grid"), *bars, base, label, zero])
