"""Turn a model's column-wise answers into one decision per item, with its nearest known items."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mixtura.datasets.quality import Flaw
from mixtura.features.neighbors import Exact
from mixtura.features.records import Features
from mixtura.model.model import Answers, Model
from mixtura.model.wording import advice, sentence
from mixtura.records.decision import CLASS, SUBCLASS, Candidate, Decision, Neighbor
from mixtura.scores import false_discovery

MAX_CANDIDATES = 5


@dataclass(frozen=True)
class Known:
    """Items to show as neighbors; their features are prepared for search once."""

    items: Features

    @cached_property
    def _index(self) -> Exact:
        return Exact.build(torch.from_numpy(self.items.embedding))

    def nearest(self, embedding: Float[np.ndarray, "N D"], count: int) -> list[tuple[Neighbor, ...]]:
        """The ``count`` items most similar to each row, by cosine."""
        if count == 0 or len(self.items) == 0 or len(embedding) == 0:
            return [()] * len(embedding)
        items = self.items
        similarity, index = (part.tolist() for part in self._index.search(torch.from_numpy(embedding), count))
        return [
            tuple(Neighbor(items.id[i], items.label[i] or "", items.source[i], s) for s, i in zip(*pair, strict=True))
            for pair in zip(similarity, index, strict=True)
        ]


def decide(
    model: Model,
    ids: list[str],
    embedding: Float[np.ndarray, "N D"],
    known: Known | None = None,
    neighbors: int = 3,
    answers: Answers | None = None,
    false_discovery_rate: float | None = None,
) -> list[Decision]:
    """One decision per row.

    Args:
        model: that decides.
        ids: names of the rows.
        embedding: features of the model's encoder.
        known: items to show as neighbors; ``None`` for none.
        neighbors: how many to show.
        answers: the model's answers, if already computed.
        false_discovery_rate: largest expected share of genuine rows among those called unknown, in place of the
            model's false-reject rate, see :func:`mixtura.scores.false_discovery.limit`.
    """
    answers = answers or model.answers(embedding)
    if false_discovery_rate is not None:
        model = _limited(model, false_discovery.limit(answers.typicality, false_discovery_rate))
        answers = model.answers(embedding)
    near = [()] * len(ids) if known is None else known.nearest(embedding, neighbors)
    found = [_decision(model, id, answers, row, near[row]) for row, id in enumerate(ids)]
    return [replace(decision, false_discovery_rate=false_discovery_rate) for decision in found]


def _limited(model: Model, limit: float) -> Model:
    """The model with another typicality below which a row is unknown."""
    return replace(model, decision=model.decision.model_copy(update={"false_reject_rate": limit}))


def _decision(model: Model, id: str, answers: Answers, row: int, near: tuple[Neighbor, ...]) -> Decision:
    posterior = answers.posterior[row]
    others = np.arange(len(posterior)) != answers.predicted[row]  # at equal probabilities, the predicted class leads
    order = np.lexsort((others, -posterior))[:MAX_CANDIDATES].tolist()
    candidates = [Candidate(model.classes[c], float(posterior[c])) for c in order]
    pair = candidates[0], candidates[min(1, len(candidates) - 1)]
    verdict, reason = str(answers.verdict[row]), str(answers.reason[row])
    typicality = float(answers.typicality[row])
    said = sentence(
        verdict,
        reason,
        (pair[0].label, pair[1].label),
        (pair[0].probability, pair[1].probability),
        typicality,
        model.decision.false_reject_rate,
    )
    return Decision(
        id,
        candidates[0].label,
        candidates[0].probability,
        typicality,
        verdict,
        reason or None,
        said,
        candidates=tuple(candidates),
        neighbors=near,
        threshold=model.decision.false_reject_rate,
        advice=advice(verdict, reason, (pair[0].label, pair[1].label)),
        **_subclass(model, answers, row),
    )


def _subclass(model: Model, answers: Answers, row: int) -> dict[str, Any]:
    """The subclass of a row: its number, or its name and its own numbers."""
    if model.subclasses is None:
        return {"subclass": int(answers.subclass[row])}
    probability, own = float(answers.subclass_probability[row]), bool(answers.subclass_own[row])
    sure = probability >= model.decision.min_subclass_probability
    return {
        "subclass": model.subclasses.names[answers.subclass[row]] if sure else None,
        "subclass_probability": probability,
        "subclass_typicality": float(answers.subclass_typicality[row]),
        "subclass_typicality_of": SUBCLASS if own else CLASS,
    }


def with_flaw(decision: Decision, flaw: Flaw | None) -> Decision:
    """The decision, with an image flaw as the reason unless it is a match."""
    if flaw is None or decision.verdict == "match":
        return decision
    return replace(decision, reason="bad_photo", sentence=f"{flaw.sentence} {decision.sentence}", advice=flaw.advice)
