"""Change how frequent the classes of a model are, without fitting again: show what it does, keep it, take it back."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixtura import files
from mixtura.catalog import Catalog
from mixtura.catalog.database import now
from mixtura.catalog.limits import prior_summary
from mixtura.core.far_rows import posterior_of
from mixtura.errors import UsageError
from mixtura.formats import short_percent
from mixtura.metrics.classification import balanced_accuracy
from mixtura.model import bundle
from mixtura.model.held_out import HeldOut
from mixtura.model.model import Model
from mixtura.model.prior import AskedPrior, data_share, held_of, recalibrated, under
from mixtura.model.prior_file import read_prior
from mixtura.records.catalog import Edit, EditResult

N_FOLDS = 10
EARLIER_FACT = "earlier_priors"
"""Fact of a model without a catalog: the priors before the present one, word and shares, the latest last."""


@dataclass(frozen=True)
class PriorFigures:
    """Rates on the out-of-fold items of the fit, as shares in [0, 1]; ``nll`` in nats.

    ``right`` counts the classes as frequent as in the fit, ``balanced`` all alike; the others as frequent as asked.
    """

    right: float
    balanced: float
    right_as_asked: float
    false_reject: float
    nll: float


@dataclass(frozen=True)
class PriorChange:
    """A class prior and its effect; ``made`` is the model of the fit's classes under it, ``bundle`` that model's hash.

    ``share`` are the asked shares by class, and ``fitted`` those of the training items. ``stated`` is the target
    false-reject rate. Each item is judged with limits and a temperature that other items have set.
    """

    prior: str
    earlier: str
    share: dict[str, float]
    fitted: dict[str, float]
    count: int
    stated: float
    before: PriorFigures
    after: PriorFigures
    old_temperature: float
    temperature: float
    notes: tuple[str, ...]
    made: Model
    bundle: str

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready values."""
        return {key: value for key, value in vars(self).items() if key not in ("made", "before", "after")} | {
            "before": asdict(self.before),
            "after": asdict(self.after),
        }


def change_prior(folder: Path, asked: str) -> PriorChange:
    """Return what another class prior would do to the model in a folder, without changing it.

    Args:
        folder: of a model.
        asked: ``data``, ``uniform``, or a CSV or JSON file of class and share.

    Raises:
        NoInput, DataError: the file cannot be used.
        UsageError: the model keeps no out-of-fold items.
    """
    current, as_fitted, digest, limits_kept = _model_in(folder)
    prior = read_prior(as_fitted, asked)
    held, made = held_of(as_fitted), recalibrated(as_fitted, prior)
    share = data_share(as_fitted) if prior.share is None else prior.share
    weights = held.ratio(share, held.weight)
    fold = torch.from_numpy(np.random.default_rng(0).permutation(len(held.label)) % N_FOLDS)
    parts = [(recalibrated(replace(as_fitted, held=held.select(fold != i)), prior), fold == i) for i in range(N_FOLDS)]
    same = AskedPrior.of(current).values == prior.values
    return PriorChange(
        prior=prior.word,
        earlier=AskedPrior.of(current).word,
        share=dict(zip(as_fitted.classes, share.tolist(), strict=True)),
        fitted=dict(zip(as_fitted.classes, data_share(as_fitted).tolist(), strict=True)),
        count=len(held.label),
        stated=made.decision.false_reject_rate,
        before=_figures([(current, torch.ones_like(held.half))], held, weights),
        after=_figures(parts, held, weights),
        old_temperature=current.temperature,
        temperature=made.temperature,
        notes=_notes(made, held, limits_kept, same),
        made=made,
        bundle=digest,
    )


def write(folder: Path, change: PriorChange) -> EditResult:
    """Keep a class prior: as an edit of the catalog, or in the model where the head has a fixed set of classes.

    Raises:
        UsageError: the model was fitted again since the change was made.
        CannotWrite, OutOfSpace: the folder cannot be written; the earlier model is intact.
    """
    if change.made.head is None:
        return Catalog.open(folder).set_prior(change.made, change.bundle)
    with files.only_writer(folder):
        if bundle.fingerprint(folder) != change.bundle:
            raise UsageError("The model was fitted again since the limits were made. Make them again.")
        model = bundle.from_pretrained(folder)
        before = AskedPrior.of(model)
        earlier = [*model.facts.get(EARLIER_FACT, []), [before.name and before.word, before.values]]
        _publish(folder, change.made, earlier)
    return _effect(len(earlier), "prior", prior_summary(AskedPrior.of(change.made)))


def undo(folder: Path) -> EditResult:
    """Take back the latest edit of a catalog, or the latest prior of a model that has none, as its classes are fixed.

    Raises:
        UsageError: there is none.
    """
    if bundle.config_of(folder).head is None:
        return Catalog.open(folder).undo()
    with files.only_writer(folder):
        model = bundle.from_pretrained(folder)
        earlier = list(model.facts.get(EARLIER_FACT, []))
        if not earlier:
            raise UsageError("There is nothing to undo: the model is as it was fitted.")
        name, values = earlier.pop()
        share = None if values is None else torch.tensor(values, dtype=torch.float64)
        _publish(folder, recalibrated(model, AskedPrior(name, share)), earlier)
    return _effect(len(earlier) + 1, "undo", f"Undone: {prior_summary(AskedPrior.of(model))}")


def _effect(number: int, kind: str, summary: str) -> EditResult:
    """An edit of a model without a catalog."""
    return EditResult(Edit(number, now(), kind, summary, False), None, None, None, 0)


def _publish(folder: Path, model: Model, earlier: list[Any]) -> None:
    files.collect_staged(folder)
    files.publish(bundle.stage(replace(model, facts=model.facts | {EARLIER_FACT: earlier}), folder))


def _model_in(folder: Path) -> tuple[Model, Model, str, bool]:
    """The present and the fitted model of a folder, of the fitted classes, its hash, and whether photos set limits."""
    if bundle.config_of(folder).head is not None:
        model = bundle.from_pretrained(folder)
        return model, model, bundle.fingerprint(folder), False
    catalog = Catalog.open(folder)
    try:
        digest = catalog.view().bundle
        return *catalog.fitted_models(), digest, _limits_from_photos(catalog)
    finally:
        catalog.close()


def _limits_from_photos(catalog: Catalog) -> bool:
    """Whether the limits in effect come from confirmed photos."""
    standing = [edit.kind for edit in catalog.history() if not edit.undone]
    return next((kind == "calibrate" for kind in standing if kind in ("calibrate", "prior")), False)


def _figures(judged: list[tuple[Model, torch.Tensor]], held: HeldOut, weights: torch.Tensor) -> PriorFigures:
    """Figures over all items, each judged by the model that comes with it."""
    predicted = torch.zeros_like(held.label)
    rejected = torch.zeros_like(held.half)
    loss = torch.zeros_like(held.weight)
    for model, part in judged:
        own = under(model, held.select(part))
        scores = own.scores.double()
        predicted[part] = scores.argmax(1)
        raw = own.raw if len(own.raw) else None
        score = model.typicality.score(own.log_prob, own.background, raw)
        typicality = model.typicality(score, predicted[part])
        rejected[part] = (typicality < model.decision.false_reject_rate) & (raw is None or ~own.raw.isnan())
        posterior = posterior_of(scores / model.temperature).gather(1, own.label[:, None])[:, 0]
        loss[part] = -posterior.clamp_min(1e-300).log()
    hits = (predicted == held.label).double()
    asked = weights * held.weight
    label, count = held.label.numpy(), held.scores.shape[1]
    return PriorFigures(
        right=float(held.weight @ hits / held.weight.sum()),
        balanced=float(balanced_accuracy(label, predicted.numpy(), count)),
        right_as_asked=float(asked @ hits / asked.sum()),
        false_reject=float(asked @ rejected.double() / asked.sum()),
        nll=float(asked @ loss / asked.sum()),
    )


def _notes(made: Model, held: HeldOut, limits_kept: bool, same: bool) -> tuple[str, ...]:
    said = ["The model has this prior already."] if same else []
    if limits_kept:
        said.append("The limits from confirmed photos are replaced; set them again with mixtura recalibrate.")
    absent = len(made.classes) - len(held.label.unique())
    if absent:
        said.append(f"{absent} of {len(made.classes)} classes have no out-of-fold item, so they set no limit.")
    own = made.typicality.class_weight(torch.arange(len(made.classes)))
    lowest, rate = own / (own + len(made.typicality.scores)), made.decision.false_reject_rate
    never = [name for name, low in zip(made.classes, lowest.tolist(), strict=True) if low >= rate]
    if never:
        few = f"{never[0]} has" if len(never) == 1 else f"{never[0]} and {len(never) - 1} other classes have"
        said.append(
            f"{few} too few photos for how frequent you say they are: nothing that looks like one can be called "
            f"unknown at {short_percent(rate)}."
        )
    return tuple(said)
