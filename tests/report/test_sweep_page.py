import html
import itertools
import math
import random
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from statistics import fmean

import numpy as np
import pytest

from mixtura.metrics.replicates import best_rows
from mixtura.metrics.right import packed
from mixtura.records.sweep import Run, Skipped, Sweep, table
from mixtura.report.sweep import sweep_page, write_sweep
from mixtura.report.sweep_plots import MARK_PATHS, N_COLORS, accuracy_scale, head_styles

HEADS = ("gaussian", "sdgm", "linear")
VARIANCES = (0.2, 0.6, 0.95, 1.0)
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"


def made(heads=HEADS, variances=VARIANCES, seeds=3, components=(1, 2), failing=0.05, seed=0):
    """Runs whose accuracy rises with the variance that is kept; some of them failed."""
    rng = random.Random(seed)
    runs = []
    for (place, head), method, explained, number, one in itertools.product(
        enumerate(heads), (("closed", ""), ("gradient", "conditional")), variances, components, range(seeds)
    ):
        start = Run(head, *method, explained, number, one, "", "failed", note="The loss was not finite.")
        if rng.random() < failing:
            runs.append(start)
            continue
        error = (0.02 + 0.01 * place + math.exp(-5 * explained)) * rng.uniform(0.8, 1.2)
        measured = {"accuracy": 1 - error, "nll": 2 * error, "ece": error / 3, "brier": error * 1.5}
        size = {
            "dimension": round(100 * explained),
            "parameters": 10 * number * round(100 * explained),
            "sparsity": 0.0,
        }
        cost = {"seconds": rng.random(), "memory": 20.0, "val_accuracy": 1 - error * 1.1, "val_nll": 2.1 * error}
        runs.append(replace(start, status="done", note="", **measured, **size, **cost))
    return Sweep({"data": "made up", "versions": {"torch": "2.11"}}, tuple(runs))


class Tables(HTMLParser):
    """The cells of every table with their exact values; holds tags to be balanced."""

    def __init__(self):
        super().__init__()
        self.open, self.tables, self.tags, self.row = [], [], set(), None

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.add(tag)
        if tag not in {"meta", "link", "img", "wbr"}:
            self.open.append(tag)
        if tag == "table":
            self.tables.append((values, []))
        elif tag == "tr":
            self.row = []
            self.tables[-1][1].append(self.row)
        elif tag in ("th", "td"):
            self.row.append({"text": "", "value": None, "class": values.get("class") or ""})
        elif tag == "data":
            self.row[-1]["value"] = float(values["value"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"th", "td"} & set(self.open):
            self.row[-1]["text"] += data


def read(text):
    reader = Tables()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def grids(text):
    return [(values, rows) for values, rows in read(text).tables if values.get("class") == "grid"]


def test_the_table_of_components_by_variance_equals_the_records():
    """Acceptance test 15: every cell is the mean of its long-format rows, and no row is left out."""
    sweep = made()
    columns = table(sweep.runs)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    seen = set()

    def of(row):
        method = f"{row['solver']} ({row['objective']})" if row["objective"] else row["solver"]
        return row["head"], method, 100 * row["explained_variance"], row["n_components"]

    for values, lines in grids(sweep_page(sweep, "A sweep")):
        numbers = [int(cell["text"].split()[0]) for cell in lines[0][1:]]
        for line in lines[1:]:
            for number, cell in zip(numbers, line[1:], strict=True):
                key = (values["data-head"], values["data-method"], float(line[0]["text"].rstrip("%")), number)
                own = [row[values["data-metric"]] for row in rows if of(row) == key and row["status"] == "done"]
                seen.add((values["data-metric"], *key))
                if not own:
                    assert cell["value"] is None and "no run finished" in cell["text"]
                    continue
                assert cell["value"] == pytest.approx(fmean(own), rel=1e-14)
                factor, digits = (100, 2) if values["data-metric"] in ("accuracy", "ece") else (1, 4)
                assert cell["text"].split()[0] == f"{factor * fmean(own):.{digits}f}"
                assert ("±" in cell["text"] or " to " in cell["text"]) == (len(own) > 1)
    cells = {of(row) for row in rows if row["status"] == "done"}
    assert {(metric, *cell) for metric in ("accuracy", "nll", "ece", "brier") for cell in cells} <= seen


def test_the_best_of_each_table_is_the_best():
    for values, lines in grids(sweep_page(made(), "A sweep")):
        cells = [cell for line in lines[1:] for cell in line[1:] if cell["value"] is not None]
        pick = max if values["data-metric"] == "accuracy" else min
        marked = [cell["value"] for cell in cells if "top" in cell["class"]]
        assert marked == [pick(cell["value"] for cell in cells)]


def test_test_rows_do_not_choose_the_best_cell():
    sweep = made(failing=0.0)
    flipped = Sweep({}, tuple(replace(run, accuracy=1 - run.accuracy, nll=-run.nll) for run in sweep.runs))
    assert [one.cell for one in best_rows(sweep)] == [one.cell for one in best_rows(flipped)]
    for one in best_rows(sweep):
        means = {
            run.cell: fmean([r.val_accuracy for r in sweep.runs if r.cell == run.cell])
            for run in sweep.runs
            if run.head == one.cell.head
        }
        assert means[one.cell] == max(means.values())


def test_a_cell_that_lost_runs_does_not_win_over_a_whole_one():
    whole = Run("a", "closed", "", 0.5, 1, 0, "", "done", accuracy=0.8, val_accuracy=0.8, val_nll=1.0)
    lucky = replace(whole, n_components=2, val_accuracy=0.9)
    lost = replace(lucky, seed=1, status="failed")
    no_val = replace(whole, head="b", val_accuracy=math.nan)
    runs = (whole, lucky, lost, no_val, replace(lost, head="c"))
    assert [(one.cell.head, one.cell.n_components) for one in best_rows(Sweep({}, runs))] == [("a", 1), ("b", 1)]
    assert [one.cell.n_components for one in best_rows(Sweep({}, (lucky, lost)))] == [2]
    assert "No run of c finished." in sweep_page(Sweep({}, runs), "A sweep")


def test_the_best_table_marks_each_metric_and_states_its_direction():
    text = sweep_page(made(), "A sweep")
    rows = next(rows for values, rows in read(text).tables if values.get("class") == "best")
    assert [cell["text"] for cell in rows[0][1:5]] == [
        "Accuracy, %higher is better",
        "NLL, natslower is better",
        "ECE, %lower is better",
        "Brierlower is better",
    ]
    assert len(rows) == 1 + len(HEADS)
    for column, pick in enumerate((max, min, min, min), 1):
        cells = [row[column] for row in rows[1:]]
        assert [c["value"] for c in cells if "top" in c["class"]] == [pick(c["value"] for c in cells)]


def test_nothing_leaves_the_sweep_page_and_drawings_speak():
    text = sweep_page(made(), "A sweep")
    tags = read(text).tags
    assert not {"script", "iframe", "object", "form", "img"} & tags
    assert "default-src 'none'" in text and "url(" not in text and "@import" not in text
    assert all(link.startswith(("#", "data:")) for link in re.findall(r'(?:href|src)="([^"]*)"', text))
    drawings = re.findall(r"<svg viewBox.*?</svg>", text, flags=re.S)
    assert len(drawings) == 2 * len(HEADS) + 3  # a panel per head and count, the dimensions, two methods by size
    for drawing in drawings:
        root = ET.fromstring(drawing)
        assert root.get("role") == "img" and len(root.get("aria-label")) > 30
        assert len(root.findall(".//title")) >= len(VARIANCES)
        assert not re.search(r"\b(nan|inf)\b", drawing)
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(set(ids)) == len(ids)
    assert {"summary", "variance", "sizes", "cells", "notes", "facts"} <= set(ids)


def test_names_in_a_sweep_are_escaped():
    sweep = made(heads=(EVIL, "b"), seeds=2)
    runs = tuple(replace(run, solver=EVIL, fold=EVIL, note=EVIL, tested=1) for run in sweep.runs)
    text = sweep_page(Sweep({EVIL: EVIL, "x": {EVIL: [EVIL]}}, runs), EVIL)
    assert not {"script", "img"} & read(text).tags
    assert EVIL in html.unescape(text)


def test_one_variance_has_no_plots_by_variance_and_one_run_no_margin():
    text = sweep_page(made(variances=(1.0,), seeds=1, failing=0.0), "A sweep")
    assert 'id="variance"' not in text and 'id="sizes"' in text and 'id="notes"' not in text

    assert "±" not in text and "interval" not in text.partition("<body>")[2]


def test_a_sweep_where_all_failed_says_so():
    sweep = made(failing=1.0)
    text = sweep_page(sweep, "A sweep")
    read(text)
    assert "None of 48 runs of 16 cells finished" in sweep_page(made(heads=("a",), failing=1.0), "A sweep")
    assert 'id="notes"' in text and 'id="cells"' not in text
    assert f"The other {len(sweep.runs) - 30} runs" in text


def test_failures_are_listed_with_their_notes_and_warnings_after_them():
    sweep = made(failing=0.1)
    warned = replace(next(run for run in sweep.runs if run.status == "done"), note="Few rows.", seed=99)
    text = sweep_page(Sweep({}, (warned, *sweep.runs)), "A sweep")
    notes = [rows[1:] for values, rows in read(text).tables if values.get("class") == "notes"]
    failed = sum(run.status == "failed" for run in sweep.runs)
    assert [row[-1]["text"] for rows in notes for row in rows] == ["failed The loss was not finite."] * failed + [
        "Few rows."
    ]
    assert f"{failed} runs failed" in text


def test_the_sweep_is_written_whole(tmp_path):
    path = write_sweep(made(), tmp_path / "new" / "sweep.html", title="A sweep")
    assert path.read_text().startswith("<!doctype html>")
    assert path.read_text() == sweep_page(made(), "A sweep")


def drawn_marks(panel):
    """Color, mark and dashes of each line of a panel."""
    lines = re.findall(r'class="trace (color\d) (dash\d)"', panel)
    marks = re.findall(r'<path d="([^"]*)"[^>]*class="mark (color\d)"', panel)
    return {(color, dash, *{d for d, own in marks if own == color}) for color, dash in lines}


@pytest.mark.parametrize("components", [(1,), (1, 2)])
def test_five_methods_are_told_apart_by_color_mark_and_dashes(components):
    methods = [("closed", ""), ("em", ""), *(("gradient", name) for name in ("conditional", "hybrid", "large_margin"))]
    runs = [
        replace(run, solver=solver, objective=objective)
        for run in made(components=components, failing=0.0).runs
        if run.solver == "closed"
        for solver, objective in methods
    ]
    text = sweep_page(Sweep({}, tuple(runs)), "A sweep")
    section = text.partition('id="variance"')[2].partition('id="sizes"')[0]
    panels = re.findall(r"<svg viewBox[^>]*role.*?</svg>", section, flags=re.S)[:-1]
    assert len(panels) == len(HEADS) * len(components)
    for panel in panels:
        looks = drawn_marks(panel)
        assert len(looks) == len(methods)
        for channel in zip(*looks, strict=True):
            assert len(set(channel)) == len(methods)
    legend = section.partition("</ul>")[0]
    assert [item in legend for item in ("closed", "em", "gradient (hybrid)", "gradient (large_margin)")] == [True] * 4
    assert {(color, dash) for color, dash, _ in looks} == set(re.findall(r'class="trace (color\d) (dash\d)"', legend))
    assert len(re.findall(r"<svg viewBox[^>]*role", text.partition('id="sizes"')[2])) == len(methods)


def test_selected_and_skipped_are_told():
    sweep = made(failing=0.0)
    right = packed(np.arange(600) >= 30)
    runs = tuple(replace(run, right=right, tested=600) for run in sweep.runs)
    left_out = (Skipped("linear", "gradient", "hybrid", 1, "It has no density."),)
    text = sweep_page(Sweep({}, runs, left_out), "A sweep")
    best = next(rows for values, rows in read(text).tables if values.get("class") == "best")
    told = [row[-1]["text"] for row in best[1:]]
    assert told.count("selected") == 1 and told.count("equal, p = 1") == len(HEADS) - 1
    skipped = next(rows for values, rows in read(text).tables if values.get("class") == "skipped")
    assert [cell["text"] for cell in skipped[1]] == ["linear", "gradient (hybrid)", "1", "It has no density."]
    assert "1 combination was skipped." in text and "chance of seeds and test samples" in text


def test_heads_look_different_from_one_another():
    runs = [Run(str(i), "closed", "", 0.01, 1, 0, "", "done") for i in range(N_COLORS * len(MARK_PATHS))]
    assert len({(look.color, look.mark) for look in head_styles(runs).values()}) == N_COLORS * len(MARK_PATHS)


def test_the_axis_of_accuracy_rises_and_has_lines_inside():
    for values in ([0.971, 0.979], [0.2, 0.98], [1.0, 1.0], [0.5], [0.0, 1.0], [0.9, 0.9999], [0.999, 0.9999]):
        scale = accuracy_scale(values)
        assert len(scale.ticks) >= 2
        assert scale.low <= min(values) and max(values) <= scale.high + 1e-4  # the axis of errors ends above 0
        heights = [scale.drawn(scale.low + (scale.high - scale.low) * i / 50) for i in range(51)]
        assert all(low < high for low, high in itertools.pairwise(heights))


def luminance(color):
    linear = [((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 255 / 12.92 for c in bytes.fromhex(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_marks_of_a_sweep_can_be_seen():
    """WCAG 2.2: marks that carry meaning at least 3 to 1 against the paper."""
    folder = files("mixtura.report")
    pages, own = (
        [re.findall(r":root \{(.*?)\}", folder.joinpath(name).read_text(), flags=re.S)][0]
        for name in ("style.css", "sweep.css")
    )
    for page, palette in zip(pages, own, strict=True):
        paper = re.search(r"--paper: #([0-9a-f]+)", page)[1]
        ground = luminance(paper if len(paper) == 6 else "".join(2 * c for c in paper))
        colors = re.findall(r"--s[a-g]: #([0-9a-f]{6})", palette)
        assert len(colors) == N_COLORS
        for color in colors:
            low, high = sorted([luminance(color), ground])
            assert (high + 0.05) / (low + 0.05) >= 3, color
