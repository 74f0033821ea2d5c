"""The summary section: the headline sentences, the answers as bars, and the table of all figures."""

from dataclasses import dataclass, replace

import numpy as np

from mixtura.formats import count, interval, listing, percent
from mixtura.records.decision import Evaluation
from mixtura.report.parts import PageContext, Section, render

# name -> (label, meaning). Other metrics follow below under their own names.
METRIC_TEXT = {
    "top1": ("Right class", "Share of catalog photos classified correctly."),
    "top5": ("Right class among top five", "Share of photos whose class is among the five most probable."),
    "balanced": (
        "Right class, mean of classes",
        "The same, but every class has equal weight, however many photos it has.",
    ),
    "ece": ("Calibration error", "Mean gap between stated probability and measured accuracy. 0 is perfect."),
    "auroc_unknown": (
        "In the catalog or not",
        "Chance that a catalog photo looks more familiar than one not in the catalog (AUROC). Guessing gives 50%.",
    ),
    "aupr_unknown": (
        "Not in the catalog, among the unusual",
        "Area under precision and recall of photos not in the catalog (AUPR). Guessing gives their share.",
    ),
    "fpr95": (
        "Not in the catalog, but accepted",
        "Share of photos not in the catalog that pass the threshold that keeps 95% of the catalog photos.",
    ),
    "stated_false_reject": ("False-reject rate, stated", "Share of catalog photos the model is set to reject."),
    "false_reject": ("False-reject rate, measured", "Share of catalog photos it reported as unknown."),
    "unknown_found": ("Not in the catalog, and noticed", "Share of photos not in the catalog reported as unknown."),
    "nll": ("Log loss", "Mean negative log-probability of the true class, in nats. Lower is better."),
    "brier": ("Brier score", "Squared distance of the probabilities from the truth, 0 to 2. Lower is better."),
    "aurc": ("Area under risk-coverage", "Mean error rate over all coverages. Lower is better."),
}
BY_CLASS_TEXT = {
    "macro_f1": ("F1, mean of classes", "Harmonic mean of recall and precision, every class with equal weight."),
    "micro_f1": ("F1 of all photos together", "Equals the share of photos classified correctly."),
    "macro_precision": ("Precision, mean of classes", "Of the photos named as a class, the share that is of it."),
    "macro_specificity": ("Specificity, mean of classes", "Of the photos of other classes, the share not named so."),
    "mean_g": ("G-mean, mean of classes", "Mean of the roots of recall times specificity."),
    "geometric_mean_recall": ("G-mean of recalls", "Geometric mean of recalls; 0 if a class is never found."),
    "macro_auc": (
        "AUC, mean of classes",
        "Chance that a photo of a class is more probable than another (one-vs-rest).",
    ),
    "recall_many": ("Right class, many photos", "Mean over the classes with many photos to learn from."),
    "recall_medium": ("Right class, neither many nor few", "Mean over the classes between."),
    "recall_few": ("Right class, few photos", "Mean over the classes with few photos to learn from."),
    "recall_of_smallest": ("Right class, smallest class", "The class with the fewest photos to learn from."),
    "precision_of_largest": ("Precision of the largest class", "The class with the most photos to learn from."),
}
"""Figures that say more than the others only where classes are of unequal size."""

METRIC_TEXT |= BY_CLASS_TEXT
UNEQUAL = 3  # times as many training photos in the largest class as in the smallest
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
    """A segment of a bar: an answer and its frequency; ``kind`` names its color."""

    kind: str
    label: str
    number: int
    share: float


@dataclass(frozen=True)
class Outcome:
    """A bar: the answers for one kind of photo."""

    name: str
    total: int
    parts: tuple[Part, ...]


def summary(material: PageContext) -> Section:
    """Return the table of all figures, and the answers as two bars."""
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
            f"The model assigns the right class to {percent(right / known)} of {count(known, 'catalog photo')} "
            f"in {classes} that it had not seen before."
        )
        away = int((material.known & (material.verdict == "unknown")).sum())
        sentences.append(
            f"It wrongly reports {percent(away / known)} of them as unknown; "
            f"it is set to do so for about {percent(material.evaluation.alpha)}."
        )
    strange = ~material.known
    if strange.any():
        found = float((material.verdict[strange] == "unknown").mean())
        sentences.append(
            f"Of {count(int(strange.sum()), 'photo')} not in the catalog, it reports {percent(found)} as unknown."
        )
    else:
        sentences.append("No photos of anything else were tested, so how often it notices these was not measured.")
    return " ".join(sentences)


def _rows(evaluation: Evaluation) -> list[Row]:
    hidden = () if _unequal(evaluation) else BY_CLASS_TEXT
    order = [name for name in METRIC_TEXT if name in evaluation.metrics and name not in hidden]
    order += [name for name in evaluation.metrics if name not in METRIC_TEXT]
    rows = [_row(evaluation, name) for name in order]
    weakest = sorted((one.value, name) for name, one in evaluation.recall.items() if one.count)[:3]
    if len(weakest) > 1 and weakest[0][0] < 1:
        names = listing([f"{name} {percent(value, 0)}" for value, name in weakest])
        rows.append(Row("Weakest classes", percent(weakest[0][0]), "", f"Right class: {names}."))
    return rows + ([] if evaluation.second is None else _rows_of_domain(evaluation.second))


def _unequal(evaluation: Evaluation) -> bool:
    """Whether the classes have clearly different numbers of training photos."""
    train = [row.train for row in evaluation.per_class if row.train]
    return bool(train) and max(train) >= UNEQUAL * min(train)


def _rows_of_domain(evaluation: Evaluation) -> list[Row]:
    """The figures of another domain that are shares of its photos."""
    rows = [_row(evaluation, name) for name in ("top1", "balanced", "false_reject")]
    return [replace(row, label=f"{row.label}, {evaluation.domain}") for row in rows]


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
        "unknown": ("called unknown", verdict == "unknown"),
    }
    groups = {"Photos in the catalog": material.known, "Photos not in the catalog": ~material.known}
    return [_outcome(name, group, answers) for name, group in groups.items() if group.any()]


def _outcome(name: str, group: np.ndarray, answers: dict[str, tuple[str, np.ndarray]]) -> Outcome:
    total, strange = int(group.sum()), name.startswith("Photos not")
    parts = []
    for kind, (label, mask) in answers.items():
        number = int((group & mask).sum())
        if number:
            parts.append(Part(kind, "given a class" if strange and kind == "wrong" else label, number, number / total))
    return Outcome(name, total, tuple(parts))
