"""Print records for people (tables), for programs (JSON-ready values) and for scripts (lines)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from mixtura.cli.output import one_line, shown
from mixtura.formats import count, duration, percent
from mixtura.records.decision import Decision, Evaluation, Interval
from mixtura.records.strangers import StrangerEstimate

VERDICT_STYLES = {
    "match": "green",
    "unsure": "yellow",
    "unknown": "magenta",
    "ok": "green",
    "warning": "yellow",
    "broken": "red",
}
"""Color only repeats what the word says."""

SUMMARY_METRICS = (
    ("top1", "Right class (top-1)"),
    ("balanced", "Balanced accuracy"),
    ("ece", "Calibration error (ECE)"),
    ("auroc_unknown", "In the catalog or not (AUROC)"),
    ("stated_false_reject", "False-reject rate, stated"),
    ("false_reject", "False-reject rate, measured"),
    ("unknown_found", "Strangers reported as unknown"),
)
"""The metrics in the summary table, with their labels."""

WEAKEST_SHOWN = 3
PROBLEMS_SHOWN = 5
WIDE_COLUMNS = 110
"""Minimum terminal width, in columns, for a table with whole sentences."""


def weakest(evaluation: Evaluation, count: int = WEAKEST_SHOWN) -> list[tuple[str, Interval]]:
    """Return the classes with the lowest recall, worst first; classes without test items are left out."""
    tested = [(name, interval) for name, interval in evaluation.recall.items() if interval.count]
    return sorted(tested, key=lambda pair: (pair[1].value, pair[0]))[:count]


def evaluation_view(evaluation: Evaluation, title: str = "") -> Table:
    """Return the summary table of an evaluation."""
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold", pad_edge=False)
    genuine = int((evaluation.true >= 0).sum())
    strangers = len(evaluation.ids) - genuine
    tested = f"{count(genuine, 'test item')} of {count(len(evaluation.classes), 'class', 'classes')}"
    table.add_column(tested + (f", {count(strangers, 'stranger')}" if strangers else ""))
    table.add_column("Measured", justify="right")
    table.add_column("95% interval", justify="right")
    measured = {"stated_false_reject": evaluation.alpha} | evaluation.metrics
    for name, words in SUMMARY_METRICS:
        if name in measured:
            table.add_row(words, percent(measured[name]), _between(evaluation.intervals.get(name)))
    for place, (label, recall) in enumerate(weakest(evaluation)):
        words = Text(f"{'Weakest classes' if place == 0 else '':17}{shown(label)}")
        table.add_row(words, percent(recall.value), _between(recall))
    return table


def shift_view(evaluation: Evaluation) -> list[RenderableType]:
    """Return a sentence on test items that are not like those that set the limit; nothing where they are."""
    return [Text(f"{evaluation.shift}\n", style="yellow")] if evaluation.shift else []


def measured_view(evaluation: Evaluation) -> list[RenderableType]:
    """Return an evaluation on its own: the summary table, what is unlike, and the files left out."""
    return [
        evaluation_view(evaluation, _domain_of(evaluation)),
        *shift_view(evaluation),
        *problems_view(evaluation.problems),
        *second_view(evaluation),
    ]


def second_view(evaluation: Evaluation) -> list[RenderableType]:
    """Return the evaluation on the second domain of the data; nothing where there is none."""
    return [] if evaluation.second is None else measured_view(evaluation.second)


def _domain_of(evaluation: Evaluation) -> str:
    return "" if evaluation.domain is None else f"Domain {shown(evaluation.domain)}"


def measured_record(evaluation: Evaluation) -> dict[str, Any]:
    """Return the figures of an evaluation on its own, and the files left out, JSON-ready."""
    return evaluation_record(evaluation) | {"problems": [problem_record(one) for one in evaluation.problems]}


def evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    """Return the figures of an evaluation, without its items, JSON-ready; those of a second domain are in it."""
    domain = {} if evaluation.domain is None else {"domain": evaluation.domain}
    second = {} if evaluation.second is None else {"second": measured_record(evaluation.second)}
    figures = {
        "classes": evaluation.classes,
        "items": len(evaluation.ids),
        "alpha": evaluation.alpha,
        "metrics": evaluation.metrics,
        "groups": evaluation.facts.get("groups", {}),
        "per_class": [vars(row) for row in evaluation.per_class],
        "intervals": {name: _interval_record(value) for name, value in evaluation.intervals.items()},
        "recall": {name: _interval_record(value) for name, value in evaluation.recall.items()},
        "weakest": [label for label, _ in weakest(evaluation)],
        "shift": evaluation.shift,
        "facts": evaluation.facts,
    }
    return domain | figures | second


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    """Return one metric per line: name, tab, share in [0, 1]; those of a second domain begin with ``second.``."""
    lines = [f"{name}\t{value:.6g}" for name, value in evaluation.metrics.items()]
    second = [] if evaluation.second is None else evaluation_lines(evaluation.second)
    return [*lines, *(f"second.{line}" for line in second)]


def fit_record(made: Any, page: Path) -> dict[str, Any]:
    """Return the paths, duration in seconds, left-out files and figures of a fit, JSON-ready."""
    record = {"model": made.bundle_path, "report": page, "seconds": made.seconds, "notes": made.notes}
    record["problems"] = [problem_record(problem) for problem in made.problems]
    return record | evaluation_record(made.evaluation)


def fit_view(made: Any, page: Path) -> list[RenderableType]:
    """Return the summary table of a fit, its left-out files and notes, and the next command."""
    model = shown(str(made.bundle_path))
    said = Text.assemble(
        ("Model   ", "dim"), f"{model}\n", ("Report  ", "dim"), f"{shown(str(page))}\n", ("Try     ", "dim"),
        f"mixtura predict {model} FILE",
    )  # fmt: skip
    notes = [Text(f"{one_line(note)}\n", style="yellow") for note in made.notes]
    return [
        evaluation_view(made.evaluation, f"Fitted in {duration(made.seconds)}"),
        *shift_view(made.evaluation),
        *strangers_view(made.evaluation.facts),
        *problems_view(made.problems),
        *second_view(made.evaluation),
        *notes,
        said,
    ]


def strangers_view(facts: Mapping[str, Any]) -> list[RenderableType]:
    """Return how often a model would report strangers as unknown, in a sentence; nothing without the estimate."""
    estimate = StrangerEstimate.of_facts(facts)
    return [] if estimate is None else [Text(f"{one_line(estimate.sentence)}\n")]


def extract_record(made: Any, store: Path) -> dict[str, Any]:
    """Return the path, counts, duration in seconds and left-out files of an extraction, JSON-ready."""
    return {
        "store": store,
        "done": made.done,
        "skipped": made.skipped,
        "seconds": made.seconds,
        "problems": [problem_record(problem) for problem in made.problems],
        "notes": made.notes,
    }


def extract_view(made: Any, store: Path) -> list[RenderableType]:
    """Return an extraction in two lines, and the first problems."""
    rate = f", {made.done / made.seconds:.0f} per second" if made.done and made.seconds > 0 else ""
    said = f"{made.done} computed in {duration(made.seconds)}{rate}; {made.skipped} already in the store."
    views: list[RenderableType] = [Text(said), *problems_view(made.problems), *notes_view(made.notes)]
    return [*views, Text.assemble(("Features  ", "dim"), shown(str(store)))]


def notes_view(notes: Iterable[str]) -> list[RenderableType]:
    """Return sentences on the limits of the data, one per line."""
    return [Text(one_line(note), style="yellow") for note in notes]


def problems_view(problems: Sequence[Any]) -> list[RenderableType]:
    """Return the number of left-out files, and the first of them with reasons."""
    if not problems:
        return []
    lines = [f"{len(problems)} could not be used and were left out:"]
    lines += [f"  {shown(problem.source)}: {_reason(problem)}" for problem in problems[:PROBLEMS_SHOWN]]
    if len(problems) > PROBLEMS_SHOWN:
        lines.append(f"  and {len(problems) - PROBLEMS_SHOWN} more (all of them with --json)")
    return [Text("\n".join(lines), style="yellow")]


def _reason(problem: Any) -> str:
    """Return the message of an unusable file without the name that it begins with, to be shown after the name."""
    return one_line(problem.message.removeprefix(f"{problem.source}: "))


def problem_record(problem: Any) -> dict[str, Any]:
    """Return an unusable file, JSON-ready."""
    return {"source": problem.source, "reason": problem.reason, "message": problem.message}


def is_problem(answer: Any) -> bool:
    """Whether an answer reports an unreadable file."""
    return not isinstance(answer, Decision)


def answer_record(answer: Any) -> dict[str, Any]:
    """Return a decision, or ``{"id": ..., "error": ...}`` for an unreadable file."""
    if is_problem(answer):
        return {"id": answer.source, "error": {"reason": answer.reason, "message": answer.message}}
    return answer.to_dict()


def answer_line(answer: Any) -> str:
    """Return file, verdict, label, probability and typicality; for an unreadable file, ``error`` and the reason."""
    if is_problem(answer):
        return f"{shown(answer.source)}\terror\t{answer.reason}"
    numbers = f"{answer.probability:.4f}\t{answer.typicality:.4f}"
    kind = f"\t{shown(answer.subclass or '')}" if _is_named(answer) else ""
    return f"{shown(answer.id)}\t{answer.verdict}\t{shown(answer.label)}\t{numbers}{kind}"


def answers_view(answers: Sequence[Any]) -> list[RenderableType]:
    """Return a table with one row per file; for several files, also the count of each verdict."""
    if len(answers) < 2:
        return [AnswersTable(answers)]
    counts = Counter("unreadable" if is_problem(answer) else answer.verdict for answer in answers)
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return [AnswersTable(answers), Text(said, style="dim")]


class AnswersTable:
    """A table with one row per file; on a narrow terminal, the sentences are below the table instead of in it."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self.answers = answers

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[RenderableType]:
        """Yield the table for the terminal's width."""
        wide, named = options.max_width >= WIDE_COLUMNS, any(map(_is_named, self.answers))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("File", overflow="fold")
        table.add_column("Verdict", no_wrap=True)
        table.add_column("Class", overflow="fold")
        if named:
            table.add_column("Subclass", overflow="fold")
        table.add_column("Prob.", justify="right", no_wrap=True)
        table.add_column("Typical", justify="right", no_wrap=True)
        if wide:
            table.add_column("Why", overflow="fold")
        for answer in self.answers:
            row = _answer_row(answer)
            row = (*row[:3], _subclass_cell(answer), *row[3:]) if named else row
            table.add_row(*row[: len(table.columns)])
        yield table
        if not wide:
            for answer in self.answers:
                yield _answer_sentence(answer)


def checks_view(checks: Iterable[Any]) -> Table:
    """Return the checks of the doctor, with advice for those that failed."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "Checked", "Found"):
        table.add_column(name, overflow="fold")
    for check in checks:
        found = check.detail if check.status == "ok" or not check.advice else f"{check.detail} {check.advice}"
        table.add_row(_word(check.status), check.name, Text(one_line(found)))
    return table


def sets_view(sets: Mapping[str, Any]) -> Table:
    """Return a table of the public data sets, with where to get each and which files are read."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Name", no_wrap=True)
    table.add_column("What it is, where to get it, what is read", overflow="fold")
    for name, one in sets.items():
        said = Text.assemble(one_line(one["about"]), "\n", ("Get    ", "dim"), one_line(one["get"]))
        said.append_text(Text.assemble("\n", ("Files  ", "dim"), f"{one_line(one['layout'])}\n"))
        table.add_row(name, said)
    return table


def written(path: Path) -> Text:
    """Return the line that says where something was written."""
    return Text.assemble(("Written  ", "dim"), shown(str(path)))


def _answer_row(answer: Any) -> tuple[RenderableType, ...]:
    if is_problem(answer):
        return Text(shown(answer.source)), Text("unreadable", "red"), "-", "-", "-", Text(_reason(answer))
    return (
        Text(shown(answer.id)),
        _word(answer.verdict),
        Text(shown(answer.label)),
        percent(answer.probability),
        percent(answer.typicality),
        Text(one_line(answer.sentence)),
    )


def _is_named(answer: Any) -> bool:
    """Whether an answer is that of a model whose subclasses have names."""
    return not is_problem(answer) and answer.subclass_probability is not None


def _subclass_cell(answer: Any) -> RenderableType:
    if not _is_named(answer) or answer.subclass is None:
        return "-"
    return Text(f"{shown(answer.subclass)} {percent(answer.subclass_probability)}")


def _answer_sentence(answer: Any) -> Text:
    name, sentence = (answer.source, _reason(answer)) if is_problem(answer) else (answer.id, one_line(answer.sentence))
    return Text.assemble((f"{shown(Path(name).name)}  ", "bold"), sentence)


def _word(word: str) -> Text:
    return Text(word, VERDICT_STYLES.get(word, ""))


def _between(interval: Interval | None) -> str:
    return f"{percent(interval.low)} to {percent(interval.high)}" if interval else ""


def _interval_record(interval: Interval) -> dict[str, Any]:
    return {"value": interval.value, "low": interval.low, "high": interval.high, "count": interval.count}
