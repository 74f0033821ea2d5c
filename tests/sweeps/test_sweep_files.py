"""The files of a sweep for a paper: metrics in long format, a LaTeX table, and figures that open alone."""

import csv
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mixtura.cli.app import run as command
from mixtura.features.records import Rows, to_features
from mixtura.features.store import FeatureStore
from mixtura.metrics.replicates import summarize
from mixtura.records.sweep import DONE, KEY_COLUMNS, METRIC_COLUMNS, Run, Sweep
from mixtura.report.sweep_files import SIZES_FILE, TABLE_FILE, figures, latex, write_files

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep by the command, with a cell that cannot be fitted; its folder, and what ``--json`` printed."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("files")
    number = np.arange(120)
    x = rng.standard_normal((3, 6))[number % 3] + 0.7 * rng.standard_normal((len(number), 6))
    ids, none, identity = [*map(str, number)], [None] * len(number), {"name": "tiny", "size": "32 px", "weights": "w"}
    rows = Rows(x, ids, ids, [f"c{i % 3}" for i in number], none, none, none, np.ones(len(x)), [""] * len(x))
    FeatureStore.create(folder / "store", identity, 6, "float32").append(to_features(rows, identity))
    words = ["--heads", "spherical,tied", "--explained-variance", "0.5,0.9", "--n-components", "1,60"]
    given = ["sweep", str(folder / "store"), "-o", str(folder / "out"), *words, "--n-seeds", "2", "--jobs", "1"]
    assert command([*given, "--solver", "em"]) == 0
    return folder / "out", given


def finished(folder):
    lines = (folder / "runs.jsonl").read_text().splitlines()[1:]
    return [run for run in map(json.loads, lines) if run["status"] == DONE]


def test_the_long_table_read_again_is_the_runs(made):
    folder, _ = made
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = {
        (*(str(run[name]) for name in KEY_COLUMNS), metric): run[metric]
        for run in finished(folder)
        for metric in METRIC_COLUMNS
        if run[metric] is not None
    }
    assert {(*(row[name] for name in KEY_COLUMNS), row["metric"]): float(row["value"]) for row in rows} == expected
    assert len(rows) == len(expected) > 2 * 2 * 2 * 10


def test_the_command_names_its_files(made, capsys):
    folder, given = made
    assert command([*given, "--solver", "em", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert sorted(record["files"]) == sorted(map(str, [*folder.glob("*.svg"), folder / TABLE_FILE]))
    assert len(record["files"]) == 4
    assert command([*given, "--solver", "em"]) == 0
    said = capsys.readouterr().out
    assert all(path in said for path in (*record["files"], str(folder / "metrics.csv")))


def test_the_latex_table_has_a_row_for_each_cell(made):
    folder, _ = made
    text = (folder / TABLE_FILE).read_text()
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text) == ["tabular"]
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1]
    rows = re.search(r"\\midrule\n(.*)\\bottomrule", text, re.DOTALL)[1].splitlines()
    assert len(rows) == 2 * 2 * 2 and all(row.endswith(r" \\") for row in rows)
    assert {row.count(" & ") for row in rows} == {len(columns) - 1}
    assert sum(" & -- & " in row for row in rows) == 2 * 2  # 60 components do not fit into so few rows
    assert text.count("{") == text.count("}")


def test_names_are_escaped_in_the_table_and_in_the_figures():
    name = "own_heads:A&B<{50%}$#~^\\"
    runs = [Run(name, "closed", "", kept, 1, 0, "", DONE, accuracy=kept, parameters=3) for kept in (0.5, 0.9)]
    row = latex(Sweep({}, tuple(runs))).partition("\\midrule\n")[2]
    shown = row.partition(" & ")[0]
    assert not re.search(r"(?<!\\)[$#_%&<~^]", shown)
    words = {"textless": "<", "textasciitilde": "~", "textasciicircum": "^", "textbackslash": "\\"}
    assert re.sub(r"\\(text\w+)\{\}|\\(.)", lambda found: words.get(found[1], found[2]), shown) == name
    for text in figures(Sweep({}, tuple(runs))).values():
        ET.fromstring(text)
    assert any(
        one.text == name for one in ET.fromstring(figures(Sweep({}, tuple(runs)))[SIZES_FILE]).iter(f"{SVG}text")
    )


def test_figures_open_alone(made):
    folder, _ = made
    for path in folder.glob("*.svg"):
        text = path.read_text()
        root = ET.fromstring(text)
        assert root.tag == f"{SVG}svg" and root.find(f"{SVG}title").text
        assert "var(" not in text and "url(" not in text and "href" not in text
        style = root.find(f"{SVG}style").text
        for one in root.iter(f"{SVG}path"):  # without a rule of its own, a path is a black area
            kind, *own = one.get("class").split()
            assert f".{kind}.{own[0]} {{" in style if own else f"svg .{kind} {{" in style
        view = [float(side) for side in root.get("viewBox").split()]
        for group in root.findall(f"{SVG}g"):
            left, top = map(float, re.findall(r"[\d.]+", group.get("transform")))
            panel = group.findall(f"{SVG}svg")[-1]
            assert left > 0 and left + float(panel.get("width")) < view[2]
            assert top > 0 and top + float(panel.get("y")) + float(panel.get("height")) < view[3]


def test_the_figures_show_every_finished_cell(made):
    folder, _ = made
    cells = {(run["head"], run["explained_variance"], run["n_components"]) for run in finished(folder)}
    root = ET.fromstring((folder / SIZES_FILE).read_text())
    told = [one.text for one in root.iter(f"{SVG}title") if "parameters" in one.text and "per class" in one.text]
    assert len(told) == len(cells)


def test_a_figure_that_a_sweep_lacks_does_not_stay(tmp_path):
    runs = tuple(Run("a", "closed", "", kept, 1, 0, "", DONE, accuracy=kept, parameters=3) for kept in (0.5, 0.9))
    (tmp_path / "mine.svg").write_text("mine")
    assert len(write_files(Sweep({}, runs), tmp_path)) == 4
    written = write_files(Sweep({}, runs[:1]), tmp_path)
    assert {path.name for path in written} == {TABLE_FILE, SIZES_FILE}
    assert {path.name for path in tmp_path.iterdir()} == {TABLE_FILE, SIZES_FILE, "mine.svg"}
    assert len(summarize(runs)) == 2
