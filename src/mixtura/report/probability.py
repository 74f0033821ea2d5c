"""The section on probabilities: the reliability diagram and the risk-coverage curve, side by side."""

import numpy as np
from markupsafe import Markup

from mixtura.formats import percent
from mixtura.metrics.calibration import Bins, ece, reliability
from mixtura.metrics.intervals import wilson
from mixtura.metrics.selective import risk_coverage
from mixtura.report import svg
from mixtura.report.parts import Figure, PageContext, Section, render

MIN_BIN_COUNT = 10  # photos; a bin with fewer has a hollow dot
AXIS_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def probability(material: PageContext) -> Section | None:
    """Return two figures for the catalog photos, or ``None`` if there are none."""
    known = material.known
    if not known.any():
        return None
    stated, correct = material.evaluation.probability[known].astype(np.float64), material.correct[known]
    figures = [_reliability(stated, correct), _risk_coverage(stated, correct)]
    return Section("Can you trust the probability?", _lead(stated, correct), render("figures.html", figures=figures))


def _lead(stated: np.ndarray, correct: np.ndarray) -> str:
    mean, right, error = float(stated.mean()), float(correct.mean()), ece(stated, correct)
    if abs(mean - right) <= 0.01:
        verdict = "well calibrated overall"
    else:
        verdict = "somewhat overconfident" if mean > right else "somewhat underconfident"
    points = f"{100 * error:.1f} percentage points"
    return (
        f"The model states {percent(mean)} on average and is right for {percent(right)} of the photos: {verdict}. "
        f"On average, a stated probability is off by {points}."
    )


def _reliability(stated: np.ndarray, correct: np.ndarray) -> Figure:
    bins = reliability(stated, correct)
    area, strip = svg.Plot(44, 36, 384, 236), svg.Plot(44, 252, 384, 292, y_range=(0, max(int(bins.count.max()), 1)))
    parts = [
        area.y_axis(AXIS_TICKS, _percent, "Share that is right"),
        svg.line((area.x(0), area.y(0)), (area.x(1), area.y(1)), "ideal"),
        svg.text(area.x(0.1), area.y(0.03), "as stated", "note"),
        *[_bin(area, bins, i) for i in np.flatnonzero(bins.count).tolist()],
        *[strip.bar(low, high, n, "bar known") for low, high, n in zip(bins.low, bins.high, bins.count, strict=True)],
        strip.x_axis(AXIS_TICKS, _percent, "Stated probability"),
        svg.text(strip.left + 4, strip.top + 8, "photos", "note"),
    ]
    drawing = svg.drawing(_describe(bins), svg.DRAWING_WIDTH, 332, *parts)
    caption = (
        "On the dashed line, the stated probability is correct; below it, the model is overconfident. "
        f"Lines are 95% intervals; a hollow dot means fewer than {MIN_BIN_COUNT} photos; the bars show all counts."
    )
    return Figure(drawing, caption)


def _bin(area: svg.Plot, bins: Bins, index: int) -> Markup:
    low, high = wilson(int(bins.right[index]), int(bins.count[index]))
    x = area.x(bins.stated[index])
    kind = "dot few" if bins.count[index] < MIN_BIN_COUNT else "dot"
    dot = svg.tag("circle", cx=x, cy=area.y(bins.measured[index]), r=4, class_=kind)
    return svg.line((x, area.y(low)), (x, area.y(high)), "range known") + dot


def _describe(bins: Bins) -> str:
    full = np.flatnonzero(bins.count)
    pairs = ", ".join(f"{percent(bins.stated[i], 0)} stated {percent(bins.measured[i], 0)} right" for i in full)
    return f"Reliability diagram: {pairs}."


def _risk_coverage(stated: np.ndarray, correct: np.ndarray) -> Figure:
    coverage, risk = risk_coverage(stated, correct)
    best = risk_coverage(correct.astype(np.float64), correct)[1]
    top = 1.12 * max(float(risk[coverage >= 0.05].max()), 0.01)  # the first few answers are mostly noise
    area = svg.Plot(44, 36, 384, 292, y_range=(0, top))
    keep = _thin(len(coverage))
    curve = area.points(coverage[keep], np.minimum(risk[keep], top))
    parts = [
        area.y_axis(svg.ticks(0, top, 4), _percent, "Share wrong among the answered"),
        svg.path(area.points(coverage[keep], np.minimum(best[keep], top)), "ideal"),
        svg.path(curve, "curve known"),
        svg.tag("circle", cx=area.x(1), cy=area.y(min(risk[-1], top)), r=4, class_="dot"),
        area.x_axis(AXIS_TICKS, _percent, "Share of photos answered, surest first"),
    ]
    at = {share: float(risk[max(round(share * len(risk)), 1) - 1]) for share in (0.5, 0.8, 1.0)}
    said = (
        f"Answering all, {percent(at[1.0])} are wrong; only the surest 80%, {percent(at[0.8])}; "
        f"only the surest half, {percent(at[0.5])}."
    )
    drawing = svg.drawing(f"Risk-coverage curve. {said}", svg.DRAWING_WIDTH, 332, *parts)
    return Figure(drawing, f"{said} The dashed line is the best that any order of the answers could do.")


def _thin(count: int, most: int = 300) -> np.ndarray:
    """Indices of at most ``most`` points of a long curve, with its last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _percent(share: float) -> str:
    digits = 0 if abs(100 * share - round(100 * share)) < 1e-9 else 1
    return f"{100 * share:.{digits}f}%"
