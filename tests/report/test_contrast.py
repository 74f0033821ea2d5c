"""WCAG 2.2: text at least 4.5 to 1 against what is behind it, marks that carry meaning at least 3 to 1."""

import re
from importlib.resources import files

import pytest

STYLE = files("mixtura.report").joinpath("style.css").read_text()
PALETTES = dict(zip(("light", "dark", "print"), re.findall(r":root \{(.*?)\}", STYLE, flags=re.S), strict=True))


def colors(block):
    found = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{3,6})", block))
    return {
        name: [int(c, 16) for c in re.findall("..", x[1:] if len(x) == 7 else "".join(2 * c for c in x[1:]))]
        for name, x in found.items()
    }


def luminance(color):
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", PALETTES)
def test_text_and_marks_can_be_seen(palette):
    color = colors(PALETTES[palette])
    for name in ("ink", "soft", "known", "unknown", "wrong"):
        assert contrast(color[name], color["paper"]) >= 4.5, name
    assert contrast(color["unsure"], color["paper"]) >= 3


@pytest.mark.parametrize("palette", PALETTES)
def test_figures_in_the_darkest_cells_can_be_read(palette):
    color = colors(PALETTES[palette])
    share = int(re.search(r"--shade: (\d+)%", PALETTES[palette])[1]) / 100
    for name in ("known", "wrong"):
        cell = [share * a + (1 - share) * b for a, b in zip(color[name], color["paper"], strict=True)]
        assert contrast(color["ink"], cell) >= 4.5, name
