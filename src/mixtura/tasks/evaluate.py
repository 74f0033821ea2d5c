"""Evaluate a model on items it was not fitted on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int

from mixtura.datasets.items import Problem
from mixtura.errors import DataError, FingerprintMismatch, LabelError, NoInput, UsageError
from mixtura.features.records import Features, Unreadable
from mixtura.features.store import FeatureStore
from mixtura.files import is_folder_at
from mixtura.identity import differences
from mixtura.metrics.calibration import brier, ece, nll
from mixtura.metrics.classification import accuracy, balanced_accuracy, recall, top_k
from mixtura.metrics.detection import aupr, auroc, fpr_at_tpr
from mixtura.metrics.intervals import wilson
from mixtura.metrics.selective import aurc
from mixtura.model import bundle, embedding_map, subclass_map
from mixtura.model.decide import Known, decide
from mixtura.model.model import Answers, Model
from mixtura.names import Spellings, require_allowed
from mixtura.pipeline import factory, levels, stores, training_set
from mixtura.pipeline.extraction import ProgressCallback
from mixtura.recipe import Recipe
from mixtura.records.decision import Evaluation, Interval, Mistake
from mixtura.sections import BOTH, LABEL, SUPERLABEL, DataSection
from mixtura.tasks.class_rows import class_rows
from mixtura.tasks.predict import known_items

MISTAKES_KEPT = 24  # mistakes shown, at most
MIN_PROBABILITY = 1e-300  # keeps the log of a probability finite

GROUPS_FACT = "groups"
"""Fact of an evaluation: above and below how many training items a class has many or few."""

Names = Sequence[str | None]


def run(model_path: Path | str, data: DataSection | None = None) -> Evaluation:
    """Evaluate a model on its own test part, or on other labeled data; labels it does not know are strangers.

    Of data with a test part of their own, such as a folder ``test`` beside ``train``, only that part counts. Their
    classes are at the level of the model's, unless they name another; where items have one label, and it is a class of
    the model, it is read as that. The second domain of a model's own data is
    evaluated too; if it cannot be read any more, ``problems`` says so.

    Raises:
        NoInput: there is no model, or no data.
        FingerprintMismatch: features of another encoder than the model's.
        LabelError: nothing is labeled.
        UsageError: the labels are subclasses of the model, and are to be read as classes.
    """
    model_path = Path(model_path)
    model = bundle.from_pretrained(model_path)
    recipe = bundle.recipe_of(model_path)
    if data is not None:
        level = data.level if "level" in data.model_fields_set else None
        data = _as_fitted(data, recipe.data).model_copy(update={"level": level or recipe.data.level})
        other, problems = features_of(model, recipe, data, model_path, level_of=partial(_level_of, model, data, level))
        evaluation = evaluate(model, _test_part(training_set.labeled(other)), known_items(model_path, model))
        return replace(evaluation, problems=(*problems, *_unlabeled(other)))
    try:
        features = training_set.stored(recipe, model.identity)
    except NoInput:  # features deleted to save space: the photos and the split are enough
        require_allowed(recipe.data.kind, model_path)
        features = training_set.gather(recipe.model_copy(update={"encoder": model.encoder})).features
    return with_second(model, recipe, model_path, features, required=False)


def with_second(
    model: Model,
    recipe: Recipe,
    model_path: Path,
    features: Features,
    progress: ProgressCallback = None,
    *,
    required: bool = True,
) -> Evaluation:
    """All metrics of a model on the test part of its own features, and on the second domain of its data, if any.

    Args:
        model: to evaluate.
        recipe: of the model.
        model_path: its folder, beside whose model the features of the second domain are kept.
        features: those that it was fitted and tested on, with their split.
        progress: called after each batch of photos of the second domain.
        required: raise if the second domain cannot be read; otherwise the evaluation has a problem that says why.

    Raises:
        NoInput: the second domain is missing.
        DataError: it, or the test part, cannot be evaluated.
    """
    known = training_set.train_part(features, model.classes)
    own = evaluate(model, features.select_split("test"), known)
    section = factory.second_of(recipe.data)
    if section is None or recipe.data.kind == factory.FEATURES_KIND:
        return own
    try:
        other, problems = features_of(model, recipe, section, model_path, progress)
    except (NoInput, DataError) as error:
        if required:
            raise
        unread = Problem(str(recipe.data.second), "domain_unread", f"{recipe.data.second}: was not tested on. {error}")
        return replace(own, domain=recipe.data.domain, problems=(unread,))
    second = evaluate(model, training_set.labeled(other), known)
    second = replace(second, domain=recipe.data.second, problems=(*problems, *_unlabeled(other)))
    return replace(own, domain=recipe.data.domain, second=second)


def features_of(
    model: Model,
    recipe: Recipe,
    data: DataSection,
    model_path: Path,
    progress: ProgressCallback = None,
    *,
    level_of: Callable[[Names, Names], str] | None = None,
) -> tuple[Features, tuple[Problem | Unreadable, ...]]:
    """Features of other data by a model's encoder, and what was left out.

    They are stored beside the model, so that the next evaluation is quick; labels are spelled as the model's classes.
    Where both levels are learned, only the upper one is read. ``level_of`` says the level by labels and superlabels.
    """
    level = SUPERLABEL if data.level == BOTH else data.level
    if data.kind == factory.FEATURES_KIND:
        assert data.root is not None
        features = FeatureStore.open(data.root).read()
        level = level if level_of is None else level_of(features.label, features.superlabel)
        features = levels.features_at(features, level, str(data.root))
        return _named_as(model.classes, features), ()
    place = stores.place_for(model_path / "features-other", model.identity)
    stored = recipe.extract.model_copy(update={"store": place})
    other = recipe.model_copy(update={"data": data, "encoder": model.encoder, "extract": stored})
    dataset = factory.dataset_of(data)
    if level_of is not None:
        level = level_of([item.label for item in dataset.items], [item.superlabel for item in dataset.items])
    levels.dataset_at(dataset, level)  # fails before hours of extraction
    features, _, problems, _ = training_set.read(other, dataset, progress)
    return _named_as(model.classes, levels.features_at(features, level, dataset.name)), problems


def _as_fitted(data: DataSection, fitted: DataSection) -> DataSection:
    """A folder that holds folders within folders, as those the model was fitted to; a flat one stays as it is."""
    if (data.kind, fitted.kind) != ("folder", "nested") or data.root is None or not is_folder_at(data.root):
        return data
    nested = data.model_copy(update={"kind": fitted.kind})
    try:
        return nested if factory.read_data(nested).items else data
    except NoInput:  # one folder per class
        return data


def _level_of(model: Model, data: DataSection, asked: str | None, label: Names, superlabel: Names) -> str:
    """The level at which items have classes of a model.

    Raises:
        UsageError: labels are asked for, and are subclasses of the model.
    """
    classes = Spellings(model.classes)
    others = {name for name in label if name is not None and not classes.of(name)}
    below = others.intersection(() if model.subclasses is None else model.subclasses.names)
    if asked == LABEL and below:
        raise UsageError(
            f"--level label reads {min(below)!r} as a class, and it is a subclass of the model. Use --level "
            "superlabel, or leave it out."
        )
    named = any(name is not None and classes.of(name) for name in label)
    if asked is None and named and not below and not any(superlabel):
        return LABEL
    return SUPERLABEL if data.level == BOTH else data.level


def _test_part(features: Features) -> Features:
    """The test part of data that have one of their own, else all rows."""
    return features.select_split("test") if "test" in features.split else features


def _named_as(classes: Sequence[str], features: Features) -> Features:
    """Features whose labels are spelled as the classes that they look like."""
    spellings = Spellings(classes)
    named = {own: (spellings.of(own) or [own])[-1] for own in features.classes}
    return replace(features, label=[None if own is None else named[own] for own in features.label])


def _unlabeled(features: Features) -> list[Unreadable]:
    """The items that cannot be tested, since nobody says what they are."""
    return [
        Unreadable(features.id[row], features.source[row], "no_class", f"{features.source[row]}: has no label.")
        for row, label in enumerate(features.label)
        if label is None
    ]


def evaluate(model: Model, test: Features, known: Features | None = None) -> Evaluation:
    """All metrics of a model on labeled features.

    Args:
        model: to evaluate.
        test: labeled rows; labels that are not classes of the model are strangers.
        known: training rows of the model, used as neighbors of mistakes.

    Raises:
        LabelError: no row is of a class of the model.
        FingerprintMismatch: the rows come from another encoder than the model's.
    """
    how = differences(model.identity, test.identity)
    if how:
        raise FingerprintMismatch(
            f"The features are not of the encoder {model.encoder.name!r} of the model: {how}. "
            "Extract them again with the model's encoder."
        )
    true = test.label_index(model.classes)
    if not (true >= 0).any():
        raise LabelError(
            f"None of the {len(test)} test items is of a class of the model. "
            f"It knows {', '.join(map(repr, model.classes[:5]))}{', ...' if len(model.classes) > 5 else ''}."
        )
    answers = model.answers(test.embedding)
    metrics, intervals = _figures(model, answers, true)
    rows = class_rows(model.classes, true, answers, known)
    metrics |= rows.metrics
    return Evaluation(
        classes=model.classes,
        ids=tuple(test.id),
        sources=tuple(test.source),
        true=true,
        predicted=answers.predicted,
        probability=answers.probability,
        typicality=answers.typicality,
        score=answers.score,
        verdict=answers.verdict,
        metrics=metrics,
        intervals=intervals,
        recall=_recall(model.classes, true, answers.predicted),
        alpha=model.decision.false_reject_rate,
        mistakes=_mistakes(model, test, answers, true, known),
        map=embedding_map.embedding_map(model, test.embedding, true),
        subclass_map=subclass_map.subclass_map(model, test.embedding, true),
        per_class=rows.rows,
        facts=dict(model.facts)
        | {GROUPS_FACT: rows.limits}
        | {"test_items": len(test), "threads": torch.get_num_threads()},
    )


def _figures(
    model: Model, answers: Answers, true: Int[np.ndarray, " N"]
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Metrics as shares, and intervals for those that are counts."""
    inside = true >= 0
    own, predicted, posterior = true[inside], answers.predicted[inside], answers.posterior[inside]
    right = predicted == own
    rejected = answers.verdict[inside] == "unknown"
    metrics = {
        "top1": accuracy(own, predicted),
        "top5": top_k(own, posterior, min(5, len(model.classes))),
        "balanced": balanced_accuracy(own, predicted, len(model.classes)),
        "ece": ece(answers.probability[inside], right),
        "nll": nll(own, np.log(posterior.clip(MIN_PROBABILITY))),
        "brier": brier(own, posterior),
        "aurc": aurc(answers.probability[inside], right),
        "stated_false_reject": model.decision.false_reject_rate,
        "false_reject": float(rejected.mean()),
    }
    intervals = {"top1": share(right), "false_reject": share(rejected)}
    if not inside.all():
        caught = answers.verdict[~inside] == "unknown"
        metrics["auroc_unknown"] = auroc(answers.score, inside)
        metrics["aupr_unknown"] = aupr(-answers.score, ~inside)
        metrics["fpr95"] = fpr_at_tpr(answers.score, inside)
        metrics["unknown_found"] = float(caught.mean())
        intervals["unknown_found"] = share(caught)
    return {name: float(value) for name, value in metrics.items()}, intervals


def share(hits: Bool[np.ndarray, " N"]) -> Interval:
    """A share with its 95% interval."""
    return _interval(int(hits.sum()), len(hits))


def _interval(hits: int, count: int) -> Interval:
    """A share with its 95% interval from counts; NaN with the interval [0, 1] if ``count`` is 0."""
    if count == 0:
        return Interval(float("nan"), 0.0, 1.0, 0)
    return Interval(hits / count, *wilson(hits, count), count)


def _recall(
    classes: tuple[str, ...], true: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"]
) -> dict[str, Interval]:
    inside = true >= 0
    hits, counts = recall(true[inside], predicted[inside], len(classes))
    return {name: _interval(*pair) for name, *pair in zip(classes, hits.tolist(), counts.tolist(), strict=True)}


def _mistakes(
    model: Model, test: Features, answers: Answers, true: Int[np.ndarray, " N"], known: Features | None
) -> tuple[Mistake, ...]:
    """The most confident mistakes: a wrong class, or any class for a stranger."""
    wrong = np.flatnonzero((answers.predicted != true) & ~((true < 0) & (answers.verdict == "unknown")))
    # A stranger's mistake is ranked by its typicality, a genuine item's by the wrong class's probability.
    surety = np.where(true < 0, answers.typicality, answers.probability)
    worst = wrong[np.argsort(-surety[wrong], kind="stable")][:MISTAKES_KEPT]
    rows = test.select(worst)
    picked = model.answers(rows.embedding) if len(rows) else answers
    decisions = decide(model, rows.id, rows.embedding, None if known is None else Known(known), answers=picked)
    labels, sources = [label or "" for label in rows.label], rows.source
    return tuple(Mistake(*parts) for parts in zip(decisions, labels, sources, strict=True))
