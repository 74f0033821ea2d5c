"""In short: the sentence for the door, what was said of the photos, and the one table."""

from dataclasses import dataclass

import numpy as np

from mixtura.formats import count, interval, listing, percent
from mixtura.records.decision import Evaluation
from mixtura.report.parts import PageContext, Section, render

# name -> (label, what it means). Names that are not here follow below, as they are.
METRIC_TEXT = {
    "top1": ("Right class", "Share of catalog photos that were given their own class."),
    "top5": ("Right class among five", "Share whose class is among the five most probable."),
    "balanced": (
        "Right class, mean of classes",
        "The same, with each class counting the same however many photos it has.",
    ),
    "ece": ("Calibration error", "Mean gap between the stated probability and how often it is right. 0 is perfect."),
    "auroc_unknown": (
        "Known told from unknown",
        "Chance that a catalog photo looks more familiar than a foreign one (AUROC). Guessing gives 50%.",
    ),
    "fpr95": (
        "Unknown let in",
        "Share of foreign photos let in at the threshold that keeps 95% of the catalog photos.",
    ),
    "stated_false_reject": ("Turned away, stated", "Share of catalog photos that the model is set to turn away."),
    "false_reject": ("Turned away, measured", "Share of catalog photos that it did turn away as unknown."),
    "unknown_found": ("Unknown found", "Share of foreign photos that were turned away as unknown."),
    "nll": ("Log loss", "Mean negative log-probability of the true class, in nats. Lower is better."),
    "brier": ("Brier score", "Squared distance of the probabilities from the truth, 0 to 2. Lower is better."),
    "aurc": ("Area under risk-coverage", "Mean share of errors over all shares of photos answered. Lower is better."),
}
NOT_SHARES = {"nll", "brier", "aurc"}


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    label: str
    value: str
    interval: str
    meaning: str


@dataclass(frozen=True)
class Part:
    """A piece of a bar: what was said, how often; ``kind`` names its color."""

    kind: str
    label: str
    number: int
    share: float


@dataclass(frozen=True)
class Outcome:
    """A bar: what was said of one kind of photo."""

    name: str
    total: int
    parts: tuple[Part, ...]


def summary(material: PageContext) -> Section:
    """The table of all figures, and the answers as two bars."""
    evaluation = material.evaluation
    body = render("summary.html", rows=_rows(evaluation), outcomes=_outcomes(material))
    return Section("In short", _lead(material), body)


def _lead(material: PageContext) -> str:
    known = int(material.known.sum())
    classes = count(len(material.evaluation.classes), "class", "classes")
    sentences = []
    if known:
        right = int(material.correct.sum())
        sentences.append(
            f"Asked which class, the model is right for {percent(right / known)} of {count(known, 'catalog photo')} "
            f"in {classes} that it had not seen before."
        )
        away = int((material.known & (material.verdict == "unknown")).sum())
        sentences.append(
            f"It turned {percent(away / known)} of them away as unknown by mistake; "
            f"it is set to turn away about {percent(material.evaluation.alpha)}."
        )
    foreign = ~material.known
    if foreign.any():
        found = float((material.verdict[foreign] == "unknown").mean())
        sentences.append(
            f"Of {count(int(foreign.sum()), 'photo')} of things not in the catalog, {percent(found)} were recognized "
            "as unknown."
        )
    else:
        sentences.append("No photos of things outside the catalog were tested, so noticing them was not measured.")
    return " ".join(sentences)


def _rows(evaluation: Evaluation) -> list[Row]:
    order = [name for name in METRIC_TEXT if name in evaluation.metrics]
    order += [name for name in evaluation.metrics if name not in METRIC_TEXT]
    rows = [_row(evaluation, name) for name in order]
    weakest = sorted((one.value, name) for name, one in evaluation.recall.items() if one.count)[:3]
    if len(weakest) > 1 and weakest[0][0] < 1:
        names = listing([f"{name} {percent(value, 0)}" for value, name in weakest])
        rows.append(Row("Weakest classes", percent(weakest[0][0]), "", f"Right class: {names}."))
    return rows


def _row(evaluation: Evaluation, name: str) -> Row:
    value = evaluation.metrics[name]
    label, meaning = METRIC_TEXT.get(name, (name, ""))
    written = percent(value) if name not in NOT_SHARES and 0 <= value <= 1 else f"{value:.3f}"
    span = evaluation.intervals.get(name)
    return Row(label, written, interval(span.low, span.high) if span else "", meaning)


def _outcomes(material: PageContext) -> list[Outcome]:
    correct, verdict = material.correct, material.verdict
    named = verdict == "match"
    answers = {
        "right": ("right class", named & correct),
        "wrong": ("wrong class", named & ~correct),
        "unsure": ("unsure", verdict == "unsure"),
        "unknown": ("said unknown", verdict == "unknown"),
    }
    groups = {"Photos in the catalog": material.known, "Photos not in the catalog": ~material.known}
    return [_outcome(name, group, answers) for name, group in groups.items() if group.any()]


def _outcome(name: str, group: np.ndarray, answers: dict[str, tuple[str, np.ndarray]]) -> Outcome:
    total, foreign = int(group.sum()), name.startswith("Photos not")
    parts = []
    for kind, (label, mask) in answers.items():
        number = int((group & mask).sum())
        if number:
            parts.append(Part(kind, "given a class" if foreign and kind == "wrong" else label, number, number / total))
    return Outcome(name, total, tuple(parts))
