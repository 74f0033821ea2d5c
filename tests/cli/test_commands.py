"""Each command calls its one task with what the user meant, and prints what it returned in three ways."""

import io
import json
import os
import pty
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from mixtura.cli.output import console_for
from mixtura.cli.views import answers_view, weakest
from mixtura.records.decision import Interval
from mixtura.records.strangers import StrangerEstimate
from mixtura.tasks.doctor import Check


@dataclass(frozen=True)
class Made:
    bundle_path: Path
    evaluation: object
    seconds: float = 12.3
    problems: tuple = ()
    notes: tuple = ()


@dataclass(frozen=True)
class Pace:
    done: int
    total: int
    rate: float = 10.0
    remaining: float = 3.0


@pytest.fixture
def pages(task):
    """Drawing replaced by a fake; returns the pages written."""
    written = []

    def write_report(evaluation, path, *, title, thumbnails):
        written.append((path, title))
        return path

    task("mixtura.report.page", write_report=write_report)
    task("mixtura.pipeline.thumbnails", thumbnails=lambda model, data: lambda id: None)
    return written


@pytest.mark.parametrize(("options", "heard"), [((), True), (("--json",), False), (("-q",), False)])
def test_without_a_terminal_progress_is_a_line_a_minute(mixtura, task, monkeypatch, options, heard):
    def run(recipe, progress):
        for minute in range(4):
            for second in range(60):
                now[0] = 60.0 * minute + second
                progress(SimpleNamespace(done=minute, total=10, rate=0.5, remaining=75.0))
        return SimpleNamespace(done=10, skipped=0, seconds=2.0, problems=(), notes=())

    now = [0.0]
    monkeypatch.setattr("mixtura.cli.progress.time.monotonic", lambda: now[0])
    task("mixtura.tasks.extract", run=run)
    told = mixtura("extract", "photos", "-o", "out", *options).err
    lines = [f"Reading: {minute} of 10, 0.5/s, 1 min 15 s left" for minute in (1, 2, 3)]
    assert [line for line in told.splitlines() if line.startswith("Reading")] == (lines if heard else [])


@pytest.mark.parametrize(("options", "heard"), [((), True), (("--json",), False), (("-q",), False)])
def test_what_an_extraction_has_to_say_is_told_once_and_not_to_programs(mixtura, task, options, heard):
    def run(recipe, progress):
        for done, message in ((0, "features/ is kept."), (5, "5 photos left.\x1b"), (10, "")):
            progress(SimpleNamespace(done=done, total=10, rate=5.0, remaining=1.0, message=message))
        return SimpleNamespace(done=10, skipped=0, seconds=2.0, problems=(), notes=())

    task("mixtura.tasks.extract", run=run)
    answer = mixtura("extract", "photos", "-o", "features", *options)
    assert answer.code == 0
    assert answer.err == ("features/ is kept.\n5 photos left.\\x1b\n" if heard else "")
    assert "left" not in answer.out


def test_fit_resolves_runs_draws_and_says_what_to_do_next(mixtura, task, pages, evaluation, tmp_path):
    def run(recipe, progress):
        for done in (0, 5, 10):
            progress(Pace(done, 10))
        return Made(recipe.output, evaluation)

    calls = task("mixtura.tasks.fit", run=run)
    shop = tmp_path / "shop"
    answer = mixtura(
        "fit", "photos", "-o", shop, "--size", 96, "--unknown", "other", "--unknown", "misc", "--n-components", "auto",
        "--set", "head.rank=8",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    recipe = calls[0][0][0]
    assert (recipe.data.kind, recipe.data.root, recipe.data.unknown) == ("folder", Path("photos"), ("other", "misc"))
    assert (recipe.encoder.size, recipe.head.n_components, recipe.head.rank) == (96, "auto", 8)
    assert pages == [(shop / "report.html", "shop")]
    for words in ("Right class (top-1)", "50.0%", "stated", "5.0%", "6.0%", "pear", f"mixtura predict {shop}"):
        assert words in answer.out
    assert "kiwi" not in answer.out
    assert "\x1b" not in answer.out + answer.err
    assert all(line == line.rstrip() for line in answer.out.splitlines())


def test_fit_says_how_many_strangers_would_be_noticed(mixtura, task, pages, evaluation):
    estimate = StrangerEstimate(0.58, 0.45, 0.7)
    told = replace(evaluation, facts=evaluation.facts | {"strangers": estimate.to_dict()})
    task("mixtura.tasks.fit", run=lambda recipe, progress: Made(recipe.output, told))
    assert estimate.sentence in " ".join(mixtura("fit", "photos", "-o", "shop").out.split())
    assert json.loads(mixtura("fit", "photos", "-o", "shop", "--json").out)["facts"]["strangers"]["noticed"] == 0.58


@pytest.mark.parametrize(("low", "says"), [(0.11, True), (0.04, False)])
def test_fit_says_if_the_test_photos_are_of_another_kind(mixtura, task, pages, evaluation, low, says):
    """Rejecting 14 of 100 where 5 are stated is no chance if the interval says so; within it nothing is said."""
    told = replace(evaluation, intervals={"false_reject": Interval(0.14, low, 0.17, 100)})
    task("mixtura.tasks.fit", run=lambda recipe, progress: Made(recipe.output, told))
    assert (
        "14% of genuine test items were rejected, where 5% is stated" in mixtura("fit", "photos", "-o", "a").out
    ) is says
    assert bool(json.loads(mixtura("fit", "photos", "-o", "shop", "--json").out)["shift"]) is says


def test_fit_answers_programs_and_scripts(mixtura, task, pages, evaluation):
    task("mixtura.tasks.fit", run=lambda recipe, progress: Made(recipe.output, evaluation))
    record = json.loads(mixtura("fit", "photos", "-o", "shop", "--json").out)
    assert record["model"] == "shop"
    assert record["report"] == "shop/report.html"
    assert record["metrics"]["top1"] == 0.5
    assert record["weakest"] == ["pear", "apple"]
    assert record["intervals"]["top1"] == {"value": 0.5, "low": 0.1, "high": 0.9, "count": 2}
    assert mixtura("fit", "photos", "-o", "shop", "-q").out == "shop\n"


def test_a_recipe_may_say_everything(mixtura, task, pages, evaluation, tmp_path):
    calls = task("mixtura.tasks.fit", run=lambda recipe, progress: Made(recipe.output, evaluation))
    file = tmp_path / "r.yaml"
    file.write_text("data: {kind: digits}\noutput: out\nhead: {family: full}\nseed: 3\n")
    assert mixtura("fit", "-r", file, "--family", "tied").code == 0
    recipe = calls[0][0][0]
    assert (recipe.data.kind, recipe.output, recipe.head.family, recipe.seed) == ("digits", Path("out"), "tied", 3)


def test_dry_run_prints_a_recipe_that_means_the_same(mixtura, tmp_path):
    first = mixtura("fit", "photos", "-o", "shop", "--family", "full", "--dry-run")
    assert yaml.safe_load(first.out)["head"]["family"] == "full"
    file = tmp_path / "r.yaml"
    file.write_text(first.out)
    assert mixtura("fit", "-r", file, "--dry-run").out == first.out
    assert json.loads(mixtura("fit", "-r", file, "--dry-run", "--json").out) == yaml.safe_load(first.out)


def test_extract_says_what_it_did_and_what_it_left_out(mixtura, task, unreadable):
    problems = (unreadable,) * 7
    made = SimpleNamespace(done=90, skipped=10, seconds=9.0, problems=problems, notes=("An old store.",))
    calls = task("mixtura.tasks.extract", run=lambda recipe, progress: made)
    answer = mixtura("extract", "photos", "-o", "features")
    assert calls[0][0][0].extract.store == Path("features")
    assert "90 computed in 9.0 s, 10 per second; 10 already in the store." in answer.out
    assert "7 could not be used" in answer.out and "An old store." in answer.out
    assert "b.jpg: b.jpg ends too early" in answer.out
    assert "and 2 more" in answer.out
    record = json.loads(mixtura("extract", "photos", "-o", "features", "--json").out)
    assert (record["done"], record["skipped"], len(record["problems"])) == (90, 10, 7)
    assert mixtura("extract", "photos", "--set", "output=shop", "-q").out == "shop/features\n"
    assert mixtura("extract", "photos").code == 2


def test_predict_answers_for_every_photo_and_ends_with_66_if_one_is_unreadable(mixtura, task, decision, unreadable):
    answers = [decision(), unreadable, decision("c.jpg", "unknown", "pear", reason="far_from_all", sentence="Far off.")]
    calls = task("mixtura.tasks.predict", run=lambda *arguments: answers)
    answer = mixtura("predict", "shop", "a.jpg", "b.jpg", "c.jpg")
    assert answer.code == 66
    assert calls[0][0] == (Path("shop"), [Path("a.jpg"), Path("b.jpg"), Path("c.jpg")], 3, None)
    rows = [line.split() for line in answer.out.splitlines()]
    assert ["a.jpg", "match", "apple", "98.7%", "40.0%", "Looks", "like", "apple."] in rows
    assert any(row[:2] == ["b.jpg", "unreadable"] for row in rows)
    assert any(row[:3] == ["c.jpg", "unknown", "pear"] for row in rows)
    assert "1 match, 1 unreadable, 1 unknown" in answer.out
    records = json.loads(mixtura("predict", "shop", "a.jpg", "--json").out)
    assert records[0]["verdict"] == "match"
    assert records[1] == {"id": "b.jpg", "error": {"reason": "truncated", "message": unreadable.message}}
    lines = mixtura("predict", "shop", "a.jpg", "-q").out.splitlines()
    assert lines[0].split("\t") == ["a.jpg", "match", "apple", "0.9870", "0.4000"]
    assert lines[1].split("\t") == ["b.jpg", "error", "truncated"]


def test_a_narrow_terminal_gets_the_sentences_below_the_table(decision, unreadable):
    def printed(width):
        console = Console(width=width, file=io.StringIO())
        with console.capture() as capture:
            console.print(*answers_view([decision("inbox/a.jpg"), unreadable]))
        return [line.rstrip() for line in capture.get().splitlines()]

    assert "a.jpg  Looks like apple." in printed(80)
    assert not any("Why" in line for line in printed(80))
    assert any(line.endswith("Looks like apple.") and "98.7%" in line for line in printed(140))


def test_an_unknown_item_is_an_answer_and_no_error(mixtura, task, decision):
    task("mixtura.tasks.predict", run=lambda *arguments: [decision(verdict="unknown", reason="far_from_all")])
    assert mixtura("predict", "shop", "a.jpg").code == 0


def test_predict_searches_folders_and_reads_names(mixtura, task, decision, tmp_path, monkeypatch):
    calls = task("mixtura.tasks.predict", run=lambda *arguments: [decision()])
    for name in ("b/2.PNG", "b/1.jpg", "a.webp", "notes.txt", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    mixtura("predict", "shop", tmp_path, "--neighbors", 0)
    assert calls[0][0][1] == [tmp_path / "a.webp", tmp_path / "b/1.jpg", tmp_path / "b/2.PNG"]
    assert calls[0][0][2] == 0
    photo = b"\x89PNG\r\n\x1a\n\0\n\nname.jpg\n"
    for given, found in (
        (b"x.jpg\n\ny z.jpg\n", [Path("x.jpg"), Path("y z.jpg")]),
        (b"x\ny.jpg\0b.jpg\0", [Path("x\ny.jpg"), Path("b.jpg")]),  # find -print0
        (b"BMW.jpg\r\nP5 1.jpg\nRIFF.wav", [Path("BMW.jpg"), Path("P5 1.jpg"), Path("RIFF.wav")]),
        (photo, [photo]),
        (b"BM\x36\x03\0\0\0\0", [b"BM\x36\x03\0\0\0\0"]),
        (b"P6 2 2 255 ............", [b"P6 2 2 255 ............"]),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        mixtura("predict", "shop", "-")
        assert calls[-1][0][1] == found
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert "There is no photo or sound in -" in mixtura("predict", "shop", "-").err
    empty = tmp_path / "empty"
    empty.mkdir()
    answer = mixtura("predict", "shop", empty)
    assert answer.code == 66
    assert "There is no photo or sound in" in answer.err


def test_hostile_names_cannot_steer_the_terminal(mixtura, task, decision):
    hostile = "a\x1b[2J\nb\udcff[red].jpg"
    answers = [decision(hostile, label="[bold]x[/bold]", sentence="It\x1b[31m is.")]
    task("mixtura.tasks.predict", run=lambda *arguments: answers)
    for option in ((), ("-q",), ("--json",)):
        answer = mixtura("predict", "shop", "a.jpg", *option)
        assert answer.code == 0, answer.err
        assert "\x1b" not in answer.out
        assert "[bold]x[/bold]" in answer.out
    assert json.loads(answer.out)[0]["id"] == hostile


def test_evaluate_takes_the_models_own_test_part_or_other_data(mixtura, task, evaluation):
    calls = task("mixtura.tasks.evaluate", run=lambda *arguments: evaluation)
    assert "2 test items of 3 classes" in mixtura("evaluate", "shop").out
    mixtura("evaluate", "shop", "list.csv", "--label", "coarse")
    assert calls[0][0] == (Path("shop"), None)
    section = calls[1][0][1]
    assert (section.kind, section.root, section.label) == ("csv", Path("list.csv"), "coarse")
    assert "top1\t0.5" in mixtura("evaluate", "shop", "-q").out.splitlines()


def test_report_writes_where_it_is_told(mixtura, task, pages, evaluation):
    task("mixtura.tasks.evaluate", run=lambda *arguments: evaluation)
    assert mixtura("report", "shop", "-q").out == "shop/report.html\n"
    assert json.loads(mixtura("report", "shop", "-o", "x.html", "--json").out)["report"] == "x.html"
    assert pages == [(Path("shop/report.html"), "shop"), (Path("x.html"), "shop")]


def test_demo_fits_and_draws(mixtura, task, pages, evaluation, tmp_path):
    calls = task("mixtura.tasks.demo", run=lambda output, progress: Made(output / "model", evaluation))
    answer = mixtura("demo", "-o", tmp_path)
    assert answer.code == 0, answer.err
    assert calls[0][0][0] == tmp_path
    assert pages[0][0] == tmp_path / "report.html"
    assert "Right class (top-1)" in answer.out
    assert answer.err == "The demo reads its photos (28 x 28 pixels) at 96 px; mixtura fit reads yours at 224 px.\n"


def test_doctor_ends_with_1_when_something_is_broken(mixtura, task):
    checks = [Check("python", "ok", "3.11"), Check("disk", "warning", "1 GB free.", "Make room.")]
    task("mixtura.tasks.doctor", run=lambda: checks)
    answer = mixtura("doctor")
    assert answer.code == 0
    assert "1 GB free. Make room." in answer.out
    checks.append(Check("weights", "broken", "Missing.", "Install them."))
    assert mixtura("doctor").code == 1
    assert [check["status"] for check in json.loads(mixtura("doctor", "--json").out)] == ["ok", "warning", "broken"]
    assert mixtura("doctor", "-q").out.splitlines()[0] == "ok\tpython\t3.11"


def test_data_lists_and_gets(mixtura, task, tmp_path):
    sets = {"digits": {"about": "8 x 8 digits", "get": "a shop", "layout": "digits.zip", "md5": {"digits.zip": "0a"}}}
    task("mixtura.tasks.data", list=lambda: sets, get=lambda name, folder: folder or Path("cache"))
    assert json.loads(mixtura("data", "list", "--json").out) == sets
    assert mixtura("data", "list", "-q").out == "digits\t8 x 8 digits\ta shop\tdigits.zip\n"
    shown = mixtura("data", "list").out
    assert all(text in shown for text in ("8 x 8 digits", "a shop", "digits.zip"))
    assert mixtura("data", "get", "digits", "-o", tmp_path, "-q").out == f"{tmp_path}\n"
    assert json.loads(mixtura("data", "get", "digits", "--json").out) == {"name": "digits", "folder": "cache"}


def test_the_weakest_classes_are_those_that_were_tested(evaluation):
    assert [name for name, _ in weakest(evaluation)] == ["pear", "apple"]


def test_a_terminal_gets_a_table_as_wide_as_it_is_and_a_pipe_whole_lines(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    leader, follower = pty.openpty()
    with os.fdopen(leader), os.fdopen(follower, "w") as terminal:
        assert console_for(terminal).width == 60
    assert console_for(io.StringIO()).width == 400
