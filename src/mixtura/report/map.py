"""The map section: a 2-D view of the embeddings with the mixture's ellipses, and one small map per class."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from markupsafe import Markup

from mixtura.formats import count, shorten
from mixtura.records.decision import EmbeddingMap
from mixtura.report import svg
from mixtura.report.parts import PageContext, Section, render

MAX_LABELED = 12  # classes named on the large map
MAX_ELLIPSES = 24  # components with an ellipse on the large map; rings at their centers beyond that
MAX_PANELS = 12  # small maps
MAX_POINTS = 2000  # most dots drawn
ELLIPSE_RADIUS = 2.1460  # square root of the 90% quantile of chi-square with 2 degrees of freedom


@dataclass(frozen=True)
class Panel:
    """The small map of one class."""

    name: str
    svg: Markup


@dataclass(frozen=True)
class MapTransform:
    """Converts coordinates to pixels at equal scale on both axes."""

    low: np.ndarray
    scale: float
    height: float

    def place(self, xy: np.ndarray) -> np.ndarray:
        """Convert values to pixels, with y upwards."""
        pixels = (xy - self.low) * self.scale
        return np.stack([pixels[..., 0], self.height - pixels[..., 1]], axis=-1)


def embedding_map(material: PageContext) -> Section | None:
    """Return the large map and the small ones; ``None`` if the evaluation has no map."""
    view, names = material.evaluation.map, material.evaluation.classes
    if view is None or len(view.xy) == 0:
        return None
    sheet, chosen = _sheet(view.xy), _sample(len(view.xy))
    label = f"Map of {count(len(chosen), 'photo')} of {count(len(names), 'class', 'classes')}, most similar together."
    ground = svg.tag("g", svg.dots(sheet.place(view.xy[chosen]).tolist(), "cloud"), id="map-cloud")
    overview = svg.drawing(label, svg.DRAWING_WIDTH, sheet.height, ground, *_overview(view, sheet, names, chosen))
    panels = _panels(material, view, sheet)
    strange = bool((view.label < 0).any())
    body = render(
        "map.html",
        overview=overview,
        panels=panels,
        shown=len(panels) - strange,
        total=len(names),
        strange=strange,
        rings=len(view.mean) > MAX_ELLIPSES,
    )
    return Section("Map of the classes", _lead(len(chosen), len(view.xy)), body)


def _lead(drawn: int, total: int) -> str:
    text = (
        "Each dot is a photo; similar photos are close together. An ellipse is one component of the model and should "
        "contain about 90% of its photos. The map has only two dimensions; classes that overlap here may be separate."
    )
    return text + (f" {drawn:,} of {total:,} photos are drawn." if drawn < total else "")


def _sample(total: int) -> np.ndarray:
    return np.arange(total) if total <= MAX_POINTS else np.random.default_rng(0).permutation(total)[:MAX_POINTS]


def _sheet(xy: np.ndarray) -> MapTransform:
    low, high = np.quantile(xy, [0.004, 0.996], axis=0)
    span = np.maximum(high - low, 1e-9 * max(float(np.abs(xy).max()), 1.0))
    low, span = low - 0.06 * span, 1.12 * span
    scale = float(min(svg.DRAWING_WIDTH / span[0], svg.DRAWING_WIDTH / span[1]))
    height = float(np.clip(span[1] * scale, 240, svg.DRAWING_WIDTH))
    shift = (np.array([svg.DRAWING_WIDTH, height]) / scale - span) / 2
    return MapTransform(low - shift, scale, height)


def _overview(view: EmbeddingMap, sheet: MapTransform, names: tuple[str, ...], chosen: np.ndarray) -> list[Markup]:
    strange = chosen[view.label[chosen] < 0]
    parts = [svg.dots(sheet.place(view.xy[strange]).tolist(), "cloud unknown")]
    if len(view.mean) <= MAX_ELLIPSES:
        parts += [_ellipse(view, sheet, k, "ellipse") for k in range(len(view.mean))]
    else:
        parts += [svg.tag("circle", cx=x, cy=y, r=3.5, class_="ring") for x, y in sheet.place(view.mean).tolist()]
    if len(names) <= MAX_LABELED:
        parts += _labels(view, sheet, names)
    return parts


def _ellipse(view: EmbeddingMap, sheet: MapTransform, k: int, kind: str) -> Markup:
    value, vector = np.linalg.eigh(view.covariance[k].astype(np.float64))
    angle = np.linspace(0, 2 * np.pi, 49)
    circle = np.stack([np.cos(angle), np.sin(angle)]) * np.sqrt(np.maximum(value, 0))[:, None] * ELLIPSE_RADIUS
    return svg.path(sheet.place(view.mean[k] + (vector @ circle).T).tolist(), kind)


def _labels(view: EmbeddingMap, sheet: MapTransform, names: tuple[str, ...]) -> list[Markup]:
    """Place names at the centers of their components, pushed down where they would overlap."""
    spots = []
    for index, name in enumerate(names):
        mine = view.component_class == index
        if mine.any():
            x, y = sheet.place(view.mean[mine].mean(axis=0))
            written = shorten(name, 16)
            half = 3.6 * len(written) + 3
            spots.append([float(np.clip(x, half, svg.DRAWING_WIDTH - half)), float(y) + 4, half, written])
    spots.sort(key=lambda spot: spot[1])
    for _ in range(6):
        for above, below in combinations(spots, 2):
            if abs(above[0] - below[0]) < above[2] + below[2] and below[1] - above[1] < 14:
                below[1] = above[1] + 14
        spots.sort(key=lambda spot: spot[1])
    return [svg.text(x, min(max(y, 12), sheet.height - 4), name, "place", "middle") for x, y, _, name in spots]


def _panels(material: PageContext, view: EmbeddingMap, sheet: MapTransform) -> list[Panel]:
    names, recall = material.evaluation.classes, material.evaluation.recall
    weakest = sorted(range(len(names)), key=lambda i: recall[names[i]].value if names[i] in recall else 2.0)
    strange = bool((view.label < 0).any())
    panels = [_panel(view, sheet, index, names[index]) for index in weakest[: MAX_PANELS - strange]]
    if strange:
        panels.append(_panel(view, sheet, -1, "Not in the catalog"))
    return panels


def _panel(view: EmbeddingMap, sheet: MapTransform, index: int, name: str) -> Panel:
    mine = np.flatnonzero(view.label == index)
    mine = mine[_sample(len(mine))][:400]
    parts = [svg.tag("use", href="#map-cloud")]
    parts.append(svg.dots(sheet.place(view.xy[mine]).tolist(), "own unknown" if index < 0 else "own"))
    parts += (
        [_ellipse(view, sheet, k, "ellipse") for k in np.flatnonzero(view.component_class == index).tolist()]
        if index >= 0
        else []
    )
    return Panel(
        name, svg.drawing(f"Map of {name}: {count(len(mine), 'photo')}", svg.DRAWING_WIDTH, sheet.height, *parts)
    )
