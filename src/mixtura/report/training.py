"""The page of a training: what it has come to, its curves, what the network saw, every trial, and the settings."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from mixtura.formats import count, percent
from mixtura.records.training import Gain, TrainingEpoch
from mixtura.records.training_course import SearchTrial, TrainingCourse, TriedPart
from mixtura.report import svg
from mixtura.report.facts import grouped
from mixtura.report.mistakes import address
from mixtura.report.page import assemble
from mixtura.report.parts import Section, render
from mixtura.report.sweep_plots import PANEL_WIDTH, LineStyle, styles

MANY_EPOCHS = 12  # a longer table is collapsed
MARKED_EPOCHS = 30  # more marks would cover the line
RAW = "raw"
GAINS = {
    "accuracy": "Right class (top-1)",
    "nll": "Loss of the class (NLL, nats)",
    "auroc_unknown": "In the catalog or not (AUROC)",
    "auroc_left_out": "Classes left out in turn noticed as strangers (AUROC)",
}
"""What each figure before and after training is called."""

LOSSES = {
    "": "Loss, nats",
    "mse": "Loss, mean squared error",
    "bce": "Loss, cross-entropy, nats",
    "l1": "Loss, mean absolute error",
}
"""Title of the loss by how pixels are compared; empty for the loss of the class."""

PARTS = {"head": "the head alone", "last": "the last block", "norm": "scales and offsets", "all": "the whole network"}


@dataclass(frozen=True)
class Curve:
    """A line of a panel: what it is called, and its value after each epoch."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Panel:
    """A drawing of curves over the epochs: its title, how a value is written at its axis and in a table, the curves."""

    title: str
    write: Callable[[float], str]
    exact: Callable[[float], str]
    curves: tuple[Curve, ...]


def training_page(course: TrainingCourse, title: str) -> str:
    """Return the page as HTML: one file that needs no network and runs no script."""
    made = {
        "summary": _summary(course),
        "curves": _curves(course),
        "redrawn": _redrawn(course),
        "views": _views(course),
        "trials": _trials(course),
        "facts": _settings(course),
    }
    return assemble(title, {name: one for name, one in made.items() if one is not None}, "sweep.css", "training.css")


def gain_texts(gain: Gain) -> tuple[str, str, str]:
    """Return a figure before, after, and the difference, as text; empty where there is none before."""

    def written(value: float, sign: str = "") -> str:
        if gain.name == "nll":
            return f"{value:{sign}.3f}"
        return f"{100 * value:{sign}.1f} points" if sign else percent(value)

    if gain.before is None:
        return "", written(gain.after), ""
    return written(gain.before), written(gain.after), written(gain.after - gain.before, "+")


def _summary(course: TrainingCourse) -> Section:
    result = course.result
    done = sum(max((epoch.number for epoch in part.epochs), default=0) for part in course.parts)
    if result is None:
        now = f" of trial {course.trial}" if course.trial is not None else ""
        lead = f"Training is running or was stopped: {count(done, 'epoch')}{now} so far. Load the page again later."
    else:
        lead = result.outcome
    gains = [] if result is None else [(GAINS[one.name], *gain_texts(one)) for one in result.gains]
    parts = [(PARTS.get(one.part, one.part), one) for one in course.parts]
    return Section("In short", lead, render("training_summary.html", gains=gains, parts=parts, end=_end))


def _end(part: TriedPart) -> str:
    """Return what a part has come to."""
    if part.loss is None:
        return part.ended or "running"
    if part.start_loss is None or part.share is None:
        return f"validation loss {part.loss:.4f}"
    way = f"{percent(part.share, 0)} of the way from the start"
    return f"validation loss {part.start_loss:.3f} to {part.loss:.3f}, {way}"


def _curves(course: TrainingCourse) -> Section | None:
    shown = [part for part in course.parts if part.epochs]
    if not shown:
        return None
    pixels = _pixels(course)
    panels = [_panels(part.epochs, LOSSES[pixels]) for part in shown]
    parts = [
        (_title(part), [_drawn(one) for one in own], _numbers(part.epochs, own))
        for part, own in zip(shown, panels, strict=True)
    ]
    which = f" They are those of trial {course.trial}." if course.trial is not None else ""
    said = (
        "" if not pixels else " The loss compares each photo with its reconstruction: both in [0, 1], over all pixels."
    )
    if course.settings.get("train", {}).get("objective") == "prototypical":
        said = " Validation is by episodes of classes that are not trained on; its loss is at the best temperature."
    lead = (
        "Training loss is the mean over an epoch, on random views of the photos; validation loss is taken after the "
        f"epoch, on photos as they are, so it may be the lower one.{said}{which}"
    )
    names = list(dict.fromkeys(curve.name for own in panels for one in own for curve in one.curves))
    drawn = _line_styles()
    legend = [(drawn[name].sample(), name) for name in names if name in drawn]
    return Section("Curves", lead, render("training_curves.html", parts=parts, legend=legend, many=MANY_EPOCHS))


def _pixels(course: TrainingCourse) -> str:
    """Return how pixels are compared; empty where classes are learned."""
    given = course.settings.get("train", {})
    return given.get("pixels", "mse") if given.get("objective") == "reconstruction" else ""


def _title(part: TriedPart) -> str:
    name = PARTS.get(part.part, part.part)
    return name[:1].upper() + name[1:]


def _panels(epochs: Sequence[TrainingEpoch], title: str) -> list[Panel]:
    """Return the panels of a part: loss, accuracy, learning rate."""
    losses = [Curve("training", _points((one.number, one.loss) for one in epochs)), *_validation(epochs, "loss")]
    rates = Curve("rate", _points((one.number, one.learning_rate if one.number else None) for one in epochs))
    made = [
        Panel(title, "{:.4g}".format, "{:.4f}".format, tuple(losses)),
        Panel("Accuracy on validation photos", "{:.4g}%".format, "{:.2f}%".format, _accuracies(epochs)),
        Panel("Learning rate", "{:.3g}".format, "{:.2e}".format, (rates,)),
    ]
    kept = [replace(one, curves=tuple(curve for curve in one.curves if curve.points)) for one in made]
    return [one for one in kept if one.curves]


def _accuracies(epochs: Sequence[TrainingEpoch]) -> tuple[Curve, ...]:
    """Return the curves of the accuracy, in percent."""
    return tuple(Curve(one.name, tuple((x, 100 * y) for x, y in one.points)) for one in _validation(epochs, "accuracy"))


def _validation(epochs: Sequence[TrainingEpoch], key: str) -> tuple[Curve, ...]:
    """Return a curve for each set of weights."""
    sets = list(dict.fromkeys(name for one in epochs for name in one.validation))
    names = {name: "validation" if name == RAW else f"validation ({name})" for name in sets}
    return tuple(
        Curve(names[name], _points((one.number, one.validation.get(name, {}).get(key)) for one in epochs))
        for name in sets
    )


def _points(pairs: Any) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in pairs if y is not None and math.isfinite(y))


def _line_styles() -> dict[str, LineStyle]:
    names = ("training", "validation", "validation (average)")
    return {name: LineStyle(look, i) for i, (name, look) in enumerate(styles(names).items())}


def _drawn(panel: Panel) -> tuple[str, Markup]:
    """Return a panel's title and drawing."""
    points = [point for curve in panel.curves for point in curve.points]
    area = svg.Plot(52, 12, PANEL_WIDTH - 12, 190, _span([x for x, _ in points], 0.0), _span([y for _, y in points]))
    whole = [tick for tick in svg.ticks(*area.x_range) if tick == round(tick)]
    parts = [
        area.y_axis(svg.ticks(*area.y_range, 4), panel.write, ""),
        area.x_axis(whole, lambda tick: f"{tick:g}", "Epoch"),
        *[_line(curve, area, panel.exact) for curve in panel.curves],
    ]
    return panel.title, svg.drawing(_spoken(panel), PANEL_WIDTH, 230, *parts)


def _line(curve: Curve, area: svg.Plot, write: Callable[[float], str]) -> Markup:
    style = _line_styles().get(curve.name) or _line_styles()["training"]
    color, dash = ("plain", 0) if curve.name == "rate" else (style.look.color, style.dash)
    places = area.points(*zip(*curve.points, strict=True))
    drawn = [svg.path(places, f"trace {color} dash{dash}")] if len(places) > 1 else []
    if len(places) <= MARKED_EPOCHS:
        for (epoch, value), (x, y) in zip(curve.points, places, strict=True):
            said = svg.tag("title", f"{curve.name}, epoch {epoch:g}: {write(value)}")
            place = f"translate({svg.number(x)} {svg.number(y)}) scale(2.6)"
            drawn.append(svg.tag("path", said, d=style.look.mark, transform=place, class_=f"mark {color}"))
    return Markup("").join(drawn)


def _span(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """Return the range of the values with a margin, never empty."""
    low, high = min(values), max(values)
    if low == high:
        pad = abs(low) / 2 or 0.5
        return low - pad, high + pad
    return low - margin * (high - low), high + margin * (high - low)


def _spoken(panel: Panel) -> str:
    said = [
        f"{curve.name}: {panel.exact(curve.points[0][1])} after epoch {curve.points[0][0]:g}, "
        f"{panel.exact(curve.points[-1][1])} after epoch {curve.points[-1][0]:g}"
        for curve in panel.curves
    ]
    return f"{panel.title} by epoch. {'; '.join(said)}. The table below has all numbers."


def _numbers(epochs: Sequence[TrainingEpoch], drawn: Sequence[Panel]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table of a part."""
    panels = [(panel, curve) for panel in drawn for curve in panel.curves]
    short = {"Accuracy on validation photos": "Accuracy"} | dict.fromkeys(LOSSES.values(), "Loss")
    header = [
        f"{short.get(panel.title, panel.title)}{'' if curve.name == 'rate' else f', {curve.name}'}"
        for panel, curve in panels
    ]
    values = [(panel.exact, dict(curve.points)) for panel, curve in panels]
    rows = [
        [str(one.number), *(write(own[one.number]) if one.number in own else "–" for write, own in values)]
        for one in epochs
    ]
    return ["Epoch", *header], rows


def _views(course: TrainingCourse) -> Section | None:
    if not course.photos:
        return None
    viewed = any(photo.views for photo in course.photos)
    lead = (
        "Photos as they are, on the left, and the views of them in the first epochs. Check that you would still tell "
        "the class."
        if viewed
        else "The network sees the photos as they are: the recipe has no random views."
    )
    rows = [(one.label, address(one.photo), [address(view) for view in one.views]) for one in course.photos]
    return Section("What the network sees", lead, render("training_views.html", rows=rows))


def _redrawn(course: TrainingCourse) -> Section | None:
    found = course.parts[-1].redrawn if course.parts else ()
    if not found:
        return None
    lead = (
        "Validation photos as the network reads them, on the left, and what the decoder makes of their vectors. What "
        "is missing on the right is not in the vector."
    )
    rows = [(one.label, address(one.photo), address(one.reconstruction)) for one in found]
    return Section("Reconstructions", lead, render("training_redrawn.html", rows=rows))


def _trials(course: TrainingCourse) -> Section | None:
    if not course.trials:
        return None
    done = [one for one in course.trials if one.status == "done"]
    pick = max if course.metric == "validation_accuracy" else min
    best = pick(done, key=lambda one: one.value, default=None)
    lead = f"{count(len(course.trials), 'trial')}, judged on validation photos only."
    if best is not None:
        lead += f" Trial {best.number} is the best: {trial_value(best, course.metric)}."
    keys, settings = trial_settings(course.trials)
    rows = [
        (one, own, trial_value(one, course.metric), one is best)
        for one, own in zip(course.trials, settings, strict=True)
    ]
    metric = course.metric.replace("_", " ")
    return Section("Search", lead, render("training_trials.html", keys=keys, rows=rows, metric=metric))


def trial_settings(trials: Sequence[SearchTrial]) -> tuple[list[str], list[list[str]]]:
    """Return the keys that the trials vary, and their values as text, a list a trial."""
    keys = list(dict.fromkeys(key for one in trials for key in one.settings))
    return keys, [[_setting(one.settings.get(key)) for key in keys] for one in trials]


def _setting(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def trial_value(trial: SearchTrial, metric: str) -> str:
    """Return the value of a trial as text; its status if it has none."""
    if not math.isfinite(trial.value):
        return trial.status
    return percent(trial.value) if metric == "validation_accuracy" else f"{trial.value:.4f}"


def _settings(course: TrainingCourse) -> Section:
    return Section("Settings", "The recipe of this training.", render("facts.html", groups=grouped(course.settings)))
