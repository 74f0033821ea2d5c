"""The model card and the metrics file."""

from dataclasses import asdict
from typing import Any

from mixtura.formats import percent, short_percent
from mixtura.model.model import Model
from mixtura.records.decision import Evaluation
from mixtura.records.strangers import ESTIMATE_FACT, StrangerEstimate
from mixtura.records.training import TRAINED_FROM_FACT
from mixtura.sections import GRADIENT

CARD_METRICS = (
    ("top1", "right class"),
    ("balanced", "balanced accuracy"),
    ("ece", "calibration error"),
    ("auroc_unknown", "in the catalog or not, AUROC"),
    ("stated_false_reject", "false-reject rate, stated"),
    ("false_reject", "false-reject rate, measured"),
)


def metrics_record(evaluation: Evaluation) -> dict[str, Any]:
    """Figures of an evaluation as JSON-ready values; shares are in [0, 1]."""
    domain = {} if evaluation.domain is None else {"domain": evaluation.domain}
    second = {} if evaluation.second is None else {"second": metrics_record(evaluation.second)}
    figures = {
        "items": len(evaluation.ids),
        "metrics": evaluation.metrics,
        "intervals": {name: asdict(value) for name, value in evaluation.intervals.items()},
        "recall": {name: asdict(value) for name, value in evaluation.recall.items() if value.count},
        ESTIMATE_FACT: evaluation.facts.get(ESTIMATE_FACT),
    }
    return domain | figures | second


CALIBRATIONS = {
    "leave-one-out": ", but from all the others",
    "cross-validation": " (cross-validation, extrapolated to a model of all items)",
    "validation items": " (validation items, moved by what all items change in the closed form)",
}
"""How thresholds were set, by the fact ``calibrated_by``, in the words of the card."""


def model_card(model: Model, evaluation: Evaluation) -> str:
    """The model card in Markdown: what the model is, how it was measured and what not to use it for."""
    facts = model.facts
    rows = [
        f"| {words}{'' if one.domain is None else f', {one.domain}'} | {percent(one.metrics[name])} |"
        for one in (evaluation, evaluation.second)
        if one is not None
        for name, words in CARD_METRICS
        if name in one.metrics
    ]
    limit = short_percent(model.decision.false_reject_rate)
    lines = [
        "---",
        "library_name: mixtura",
        "pipeline_tag: image-classification",
        "---",
        "",
        f"# A catalog of {len(model.classes)} classes",
        "",
        f"{_what(model)} on features of {_encoder(model)} "
        f"(fingerprint `{str(facts.get('fingerprint'))[:12]}`), fitted to {facts.get('training_items')} items.",
        "",
        "## Measured",
        "",
        f"On {len(evaluation.ids)} items that took no part in making the model.",
        "",
        "| what | value |",
        "|---|---|",
        *rows,
        "",
        "## When it says unknown",
        "",
        f"An item is unknown if fewer than {limit} of genuine items look as unusual as it does. The threshold comes "
        f"from {facts.get('held_out_items')} genuine items, each judged by a model that had not learned from it"
        f"{CALIBRATIONS.get(str(facts.get('calibrated_by')), '')}"
        f"{' (they also picked its epoch and its temperature)' if facts.get('solver') == GRADIENT else ''}; no example "
        "of anything else was needed. The rate holds for items like those; under other light, with another "
        "camera or another background it can be higher, so measure again with `mixtura evaluate`.",
        "",
        *_strangers(facts),
        "## Use",
        "",
        "```",
        "mixtura predict FOLDER photo.jpg",
        "```",
        "",
        "Classes: " + ", ".join(model.classes),
        "",
    ]
    return "\n".join(lines)


def _strangers(facts: dict[str, Any]) -> list[str]:
    """How often the model would report strangers as unknown, and what they would be mistaken for."""
    estimate = StrangerEstimate.of_facts(facts)
    if estimate is None:
        return []
    said = [estimate.sentence]
    if estimate.noticed is not None:
        said += ["This was estimated by leaving some of the classes out in turn.", *estimate.notes]
        said += [f"Least often reported as unknown when left out: {', '.join(estimate.least_noticed())}."]
    return [" ".join(said), ""]


def _encoder(model: Model) -> str:
    """The encoder, and what was trained of it."""
    start = model.facts.get(TRAINED_FROM_FACT)
    return f"the frozen encoder `{model.encoder.name}`" if start is None else f"the encoder `{start}`, trained further"


def _what(model: Model) -> str:
    """A sentence on which parts give the classes and the typicality."""
    mixture = f"{'A' if model.head is None else 'a'} {model.facts.get('family')} mixture of Gaussians"
    if model.head is None:
        return mixture
    return f"A head of kind `{model.head.name}` for the class, and beside it {mixture} for the typicality,"
