"""A sweep as files for a paper, beside its page: the figures as SVG files, and every cell as a LaTeX table.

The figures are the drawings of the page, put together with their titles and legends. Each file holds its own style, in
the colors of the printed page, with no variable left in it: it opens alone, in a browser or a drawing program.
"""

import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from markupsafe import Markup, escape

from mixtura import files
from mixtura.metrics.replicates import best_rows, summarize
from mixtura.records.sweep import Summary, Sweep
from mixtura.report import svg
from mixtura.report.latex import escaped, tabular
from mixtura.report.svg import Number
from mixtura.report.sweep import TABLE_COLUMNS, Entry, entries, explained_text
from mixtura.report.sweep_plots import by_size, by_variance, head_styles

VARIANCE_FILE, DIMENSIONS_FILE, SIZES_FILE = "accuracy-by-variance.svg", "dimensions.svg", "accuracy-by-size.svg"
TABLE_FILE = "table.tex"

MOST_PANELS = 3  # side by side
GAP = 24.0  # pixels between panels, and around them
LINE_HEIGHT = 22.0  # of titles and legends
SAMPLE_HEIGHT = 14.0  # of the lines and marks in them
CHARACTER_WIDTH = 6.6  # a generous mean for 12 px; an SVG cannot ask for the width of a text
RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")

Titled = tuple[Markup, Markup]  # what stands above a drawing, and the drawing
Sampled = tuple[Markup, str]  # a line or mark of a legend, and its meaning

LATEX_COLUMNS = TABLE_COLUMNS[:5]
LATEX_NOTE = """\
% Means over the runs of each cell on the test samples, with 95% intervals or half of their length.
% The best value of each column is bold. Needs \\usepackage{booktabs}."""


def write_files(sweep: Sweep, folder: Path) -> tuple[Path, ...]:
    """Write the table and those figures that the sweep has something for; the names of the files are returned.

    All are replaced together, or none. A figure that an earlier sweep left there and this one lacks is deleted.

    Args:
        sweep: what to report.
        folder: an existing folder.

    Raises:
        CannotWrite: the folder cannot be written.
        OutOfSpace: the disk is full.
    """
    drawn = figures(sweep)
    contents = {TABLE_FILE: latex(sweep), **drawn}
    files.write_all({folder / name: text.encode() for name, text in contents.items()})
    for name in {VARIANCE_FILE, DIMENSIONS_FILE, SIZES_FILE} - set(drawn):
        with files.explained(folder / name):
            (folder / name).unlink(missing_ok=True)
    return tuple(folder / name for name in contents)


def latex(sweep: Sweep) -> str:
    """Return a booktabs table with one row for each cell of the grid, to be included by a paper.

    Cells of which no run finished have dashes.
    """
    summaries = _finite(sweep)
    columns = [entries(column, summaries) for column in LATEX_COLUMNS]
    found = dict(zip((one.cell for one in summaries), zip(summaries, *columns, strict=True), strict=True))
    head = ["Head", "Method", "Variance", "Gaussians", *(column.label for column in LATEX_COLUMNS), "Runs"]
    rows = []
    for cell in dict.fromkeys(run.cell for run in sweep.runs):
        named = [cell.head, cell.method, explained_text(cell.explained_variance), str(cell.n_components)]
        values, runs = ["--"] * len(LATEX_COLUMNS), 0
        if cell in found:
            summary, *own = found[cell]
            values, runs = [*map(_value, own)], summary.runs
        rows.append([*map(escaped, named), *values, str(runs)])
    return f"{LATEX_NOTE}\n{tabular('ll' + 'r' * (len(head) - 2), [escaped(one) for one in head], rows)}"


def _value(entry: Entry) -> str:
    """Return a mean with its margin, the best in bold."""
    text = f"\\textbf{{{escaped(entry.text)}}}" if entry.best else escaped(entry.text)
    if entry.margin.startswith("± "):
        return f"{text} $\\pm$ {escaped(entry.margin.removeprefix('± '))}"
    return f"{text} ({escaped(entry.margin)})" if entry.margin else text


def figures(sweep: Sweep) -> dict[str, str]:
    """Return the text of each SVG file by its name: none without a finished run, only sizes with a single variance."""
    summaries, look = _finite(sweep), head_styles(sweep.runs)
    if not summaries:
        return {}
    best = best_rows(sweep)
    marks = [(look[one.cell.head].sample(), one.cell.head) for one in best]
    heading = "Accuracy by number of parameters. Large: the best cell of each head, chosen on validation samples."
    panels = [(_title(Markup(""), method, ""), drawn) for method, drawn in by_size(summaries, best, look)]
    drawn = {SIZES_FILE: _document(heading, panels, marks)}
    if len({one.cell.explained_variance for one in summaries}) > 1:
        plots = by_variance(summaries, look)
        legend = [*plots.legend, *([(Markup(""), "bands: 95% intervals")] if plots.banded else [])]
        panels = [
            (_title(one.look.sample() if one.look else Markup(""), one.head, one.soft), drawing)
            for one, drawing in plots.panels
        ]
        drawn[VARIANCE_FILE] = _document("Accuracy by variance kept.", panels, legend)
        drawn[DIMENSIONS_FILE] = _document("Dimensions by variance kept.", [(Markup(""), plots.dimensions)], [])
    return drawn


def _finite(sweep: Sweep) -> list[Summary]:
    return [one for one in summarize(sweep.runs) if math.isfinite(one.mean["accuracy"])]


def _title(sample: Markup, name: str, soft: str) -> Markup:
    """Return what stands above a panel, with its baseline at the bottom of a line."""
    left = 20.0 if sample else 0.0
    mark = _placed(sample, 0, 3, SAMPLE_HEIGHT) if sample else sample
    return mark + svg.text(left, 15, f"{name}, {soft}" if soft else name, "heading")


def _document(heading: str, panels: Sequence[Titled], legend: Sequence[Sampled]) -> str:
    """Return a whole file: the legend, and the panels below it from left to right, row by row."""
    sizes = [_size(drawing) for _, drawing in panels]
    wide, high = max(width for width, _ in sizes), max(height for _, height in sizes) + LINE_HEIGHT
    across = min(len(panels), MOST_PANELS)
    total = GAP + across * (wide + GAP)
    keys, below = _legend(legend, total)
    parts = [keys]
    for place, (title, drawing) in enumerate(panels):
        left, top = GAP + (place % across) * (wide + GAP), below + (place // across) * (high + GAP)
        moved = f"translate({svg.number(left)} {svg.number(top)})"
        parts.append(svg.tag("g", title, _placed(drawing, 0, LINE_HEIGHT), transform=moved))
    height = below + math.ceil(len(panels) / across) * (high + GAP)
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
        'font-family="Helvetica, Arial, sans-serif">\n<title>{title}</title>\n<style>\n{style}\n</style>\n'
        '<rect width="100%" height="100%" fill="#fff"/>\n{content}\n</svg>\n'
    ).format(
        w=svg.number(total),
        h=svg.number(height),
        title=escape(heading),
        style=Markup(_style()),  # noqa: S704  from our own style sheets
        content=Markup("\n").join(parts),
    )


def _legend(items: Iterable[Sampled], width: float) -> tuple[Markup, float]:
    """Return the legend, in as many lines as it needs, and where the panels begin below it."""
    left, top, parts = GAP, GAP, []
    for sample, meaning in items:
        indent = 0.0
        if sample:
            wide, high = _size(sample)
            indent = wide * SAMPLE_HEIGHT / high + 6
        room = indent + CHARACTER_WIDTH * len(meaning) + GAP
        if left > GAP and left + room > width:
            left, top = GAP, top + LINE_HEIGHT
        if sample:
            parts.append(_placed(sample, left, top, SAMPLE_HEIGHT))
        parts.append(svg.text(left + indent, top + 11, meaning))
        left += room
    return Markup("").join(parts), top + (LINE_HEIGHT + GAP / 2 if parts else 0.0)


def _size(drawing: Markup) -> tuple[float, float]:
    """Return width and height of a drawing or sample, from its view box."""
    found = re.match(r'<svg[^>]* viewBox="\S+ \S+ (\S+) (\S+)"', drawing)
    assert found is not None
    return float(found[1]), float(found[2])


def _placed(drawing: Markup, left: Number, top: Number, height: Number | None = None) -> Markup:
    """Return a drawing at a place in another one, in its own size or scaled to a height."""
    width, own = _size(drawing)
    height = own if height is None else height
    place = (f'{name}="{svg.number(value)}"' for name, value in (("x", left), ("y", top)))
    size = f'width="{svg.number(width * height / own)}" height="{svg.number(height)}"'
    return Markup(str(drawing).replace("<svg ", f"<svg {' '.join(place)} {size} ", 1))  # noqa: S704  was Markup


@cache
def _style() -> str:
    """Return the rules of the style sheets for drawings, with the colors of print in place of their variables.

    A rule with the color of a head becomes one rule for each color, because drawing programs know no variables.
    """
    folder = resources.files("mixtura.report")
    sheets = [folder.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "sweep.css")]
    values: dict[str, str] = {}
    for sheet in sheets:
        printed = re.findall(r":root \{(.*?)\}", sheet, flags=re.DOTALL)[-1]
        values |= dict(re.findall(r"--(\w+): ([^;]+);", printed))
    text = "\n".join(sheets)
    owners = re.findall(r"\.(\w+) \{ --own: var\(--(\w+)\); \}", text)
    rules = ["svg .heading { font-size: 13px; font-weight: 600; }"]
    for selectors, body in RULE.findall(text):
        if not selectors.strip().startswith("svg "):
            continue
        if "var(--own)" in body:
            rules += [f"{selectors.strip()}.{name} {{{body.replace('--own', f'--{color}')}}}" for name, color in owners]
        else:
            rules.append(f"{selectors.strip()} {{{body}}}")
    return re.sub(r"var\(--(\w+)\)", lambda found: values[found[1]], "\n".join(rules))
