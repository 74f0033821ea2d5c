"""The picture of named subclasses as a file: dots for photos, pluses for subclasses, stars for classes."""

import io
import math
import re
from importlib.resources import files

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from mixtura.records.decision import SubclassMap

PICTURE_FILE = "subclasses.png"
SIZE, FINER = 2000, 2  # pixels; drawn so many times larger, for smooth edges
MARGIN, DOT, ARM, RADIUS = 60, 7, 22, 36  # pixels: around the picture, of a dot, of a plus, of a star
OPACITY = 128  # of a dot, of 255
POINTS = 5
DPI = 300

Place = tuple[float, float]


def png(view: SubclassMap) -> bytes:
    """The drawing as a PNG file, for papers and slides; equal views give equal files.

    Args:
        view: what to draw; colors are those of the report, and more classes share them.
    """
    size, hues = SIZE * FINER, _hues()
    every = np.concatenate([view.xy, view.subclass, view.mean])
    low, high = every.min(0), every.max(0)
    scale = (size - 2 * MARGIN * FINER) / max(float((high - low).max()), 1e-9)
    shift = (size - scale * (high - low)) / 2

    def places(xy: np.ndarray) -> list[Place]:
        return [(float(x), float(y)) for x, y in shift + scale * (xy - low)]

    paper = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(paper, "RGBA")
    for place, label in zip(places(view.xy), view.label.tolist(), strict=True):
        draw.ellipse(_box(place, DOT * FINER), fill=(*hues[label % len(hues)], OPACITY))
    for place, parent in zip(places(view.subclass), view.class_parent.tolist(), strict=True):
        _plus(draw, place, 14, (255, 255, 255))
        _plus(draw, place, 7, hues[parent % len(hues)])
    for label, place in enumerate(places(view.mean)):
        draw.polygon(_star(place), fill=hues[label % len(hues)], outline="white", width=3 * FINER)
    held = io.BytesIO()
    paper.resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(held, "PNG", dpi=(DPI, DPI))
    return held.getvalue()


def _hues() -> list[tuple[int, int, int]]:
    """The colors of classes in the style sheet of the report."""
    style = files("mixtura.report").joinpath("style.css").read_text(encoding="utf-8")
    found = re.findall(r"\.hue\d \{ color: hsl\((\d+) (\d+%) (\d+%)\); \}", style)
    colors = [ImageColor.getrgb(f"hsl({hue}, {saturation}, {light})") for hue, saturation, light in found]
    return [(red, green, blue) for red, green, blue, *_ in colors]


def _box(place: Place, radius: int) -> tuple[float, float, float, float]:
    x, y = place
    return x - radius, y - radius, x + radius, y + radius


def _plus(draw: ImageDraw.ImageDraw, place: Place, width: int, color: tuple[int, int, int]) -> None:
    (x, y), arm = place, ARM * FINER
    draw.line([(x - arm, y), (x + arm, y)], fill=color, width=width * FINER)
    draw.line([(x, y - arm), (x, y + arm)], fill=color, width=width * FINER)


def _star(place: Place) -> list[Place]:
    """A star whose inner corners lie at four tenths of its radius."""
    (x, y), corners = place, list[Place]()
    for turn in range(2 * POINTS):
        radius = RADIUS * FINER * (1.0 if turn % 2 == 0 else 0.4)
        corners.append((x + radius * math.sin(math.pi * turn / POINTS), y - radius * math.cos(math.pi * turn / POINTS)))
    return corners
