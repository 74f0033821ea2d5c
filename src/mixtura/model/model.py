"""The model: all steps from a feature vector to a decision, as one value."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core import far_rows
from mixtura.core.far_rows import posterior_of
from mixtura.core.mixture import Mixture
from mixtura.core.scale import MAX_FEATURE, within
from mixtura.errors import NonFinite, WrongDimension
from mixtura.features.projection import Chain
from mixtura.heads.base import Head
from mixtura.model.held_out import HeldOut
from mixtura.model.subclasses import Subclasses
from mixtura.scores import verdict as rule
from mixtura.scores.base import Score
from mixtura.scores.resemblance import NewcomerTest
from mixtura.scores.typicality import Typicality
from mixtura.sections import DecisionSection, EncoderSection


@dataclass(frozen=True)
class Answers:
    """The model's answers for N rows, one field per column; all on the CPU.

    ``score`` is higher for more familiar rows, in spreads of genuine items; ``reason`` is empty for a match.
    ``subclass`` is the nearest component of the predicted class, counted within the class from 0, or, where subclasses
    have names, the place of the most probable one among these. Then ``subclass_probability`` is given the class, and
    ``subclass_typicality`` is within the subclass where ``subclass_own``, else that of the class; all empty otherwise.
    """

    posterior: Float[np.ndarray, "N C"]
    predicted: Int[np.ndarray, " N"]
    probability: Float[np.ndarray, " N"]
    typicality: Float[np.ndarray, " N"]
    score: Float[np.ndarray, " N"]
    verdict: np.ndarray
    reason: np.ndarray
    subclass: Int[np.ndarray, " N"]
    subclass_probability: Float[np.ndarray, " L"]
    subclass_typicality: Float[np.ndarray, " L"]
    subclass_own: Bool[np.ndarray, " L"]


@dataclass(frozen=True)
class Evidence:
    """What verdicts rest on, for N projected rows: log-densities of components, all of them and background, in nats.

    The softmax of ``scores`` is the posterior at temperature 1; ``raw`` is the score in place of the density, if any.
    """

    joint: Float[Tensor, "N K"]
    scores: Float[Tensor, "N C"]
    log_prob: Float[Tensor, " N"]
    background: Float[Tensor, " N"]
    raw: Float[Tensor, " N"] | None


@dataclass(frozen=True)
class ClassPrior:
    """A class prior in place of that of the fit: shares that sum to 1.

    ``log_weight`` are the weights of the mixture as it was fitted, and ``shift`` what joins the class scores, in nats.
    """

    share: Float[Tensor, " C"]
    log_weight: Float[Tensor, " K"]
    shift: Float[Tensor, " C"]


@dataclass(frozen=True)
class Model:
    """Classes, projection, mixture, temperature and typicality, with the identity of the encoder they belong to.

    With a ``head``, the head gives the class scores; typicality always comes from the mixture, which is then fitted
    beside it because such a head has no Gaussian density of its own. ``lift`` is the log-density in nats that classes
    with few items get back for their uncertain means; ``None`` if no class needs it. ``fitted`` is the mixture without
    such classes, if there are any. The background is computed from it, so that a newcomer does not hide itself.
    ``newcomers`` tests rows of such classes against their own shots as well: the smaller p-value is their typicality.
    ``score`` takes the place of the density in the typicality; ``None`` for the density. ``subclasses`` says which
    named subclass owns each component; ``None`` where subclasses have no names. ``prior`` is a class prior in place of
    that of the fit, and ``held`` the out-of-fold items of the fit; ``None`` if an earlier version has fitted the model.
    """

    classes: tuple[str, ...]
    encoder: EncoderSection
    identity: dict[str, str]
    dimension: int
    projection: Chain
    mixture: Mixture
    temperature: float
    typicality: Typicality
    decision: DecisionSection
    facts: dict[str, Any] = field(default_factory=dict)
    head: Head | None = None
    lift: Float[Tensor, " C"] | None = None
    fitted: Mixture | None = None
    newcomers: NewcomerTest | None = None
    score: Score | None = None
    subclasses: Subclasses | None = None
    prior: ClassPrior | None = None
    held: HeldOut | None = None

    def __repr__(self) -> str:
        head = "" if self.head is None else f", head {self.head.name}"
        return f"Model({len(self.classes)} classes, encoder {self.encoder.name}, {self.mixture!r}{head})"

    @property
    def background(self) -> Mixture:
        """A single Gaussian over the whole catalog, used as the background density."""
        return (self.fitted or self.unadjusted).background()

    @cached_property
    def unadjusted(self) -> Mixture:
        """The mixture under the prior of the fit; the background is computed from it, whatever prior is asked for."""
        return self.mixture if self.prior is None else replace(self.mixture, log_weight=self.prior.log_weight)

    @property
    def head_shift(self) -> Float[Tensor, " C"]:
        """What the class prior adds to the scores of a head, in nats."""
        return torch.zeros(len(self.classes)) if self.prior is None else self.prior.shift.float()

    def project(self, embedding: Float[np.ndarray, "N D"]) -> Float[Tensor, "N R"]:
        """Project features into the space of the mixture.

        Raises:
            WrongDimension: features of another width than the model's.
            NonFinite: NaN or infinity.
        """
        if embedding.shape[1] != self.dimension:
            raise WrongDimension(
                f"The features have {embedding.shape[1]} dimensions and the model takes {self.dimension}. "
                f"Use features of encoder {self.encoder.name!r}."
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
            embedding = np.ascontiguousarray(embedding, dtype=np.float32)
        largest = float(np.maximum(embedding.max(initial=0), -embedding.min(initial=0)))  # NaN if one of them is
        if not np.isfinite(largest):
            bad = int((~np.isfinite(embedding).all(1)).sum())
            raise NonFinite(
                f"{bad} of {len(embedding)} rows of features hold NaN or infinity. "
                f"Check the weights of encoder {self.encoder.name!r}, or remove these items."
            )
        x = torch.from_numpy(embedding)
        return self.projection(within(x, MAX_FEATURE) if largest > MAX_FEATURE else x)

    @torch.inference_mode()
    def predicted(self, embedding: Float[np.ndarray, "N D"]) -> Int[np.ndarray, " N"]:
        """The class of each row only, at a fraction of the cost of :meth:`answers`."""
        x = self.project(embedding)
        scores = self.class_log_prob(self._joint(x)) if self.head is None else self._head_scores(self.head, x)
        return scores.argmax(1).numpy()

    @torch.inference_mode()
    def answers(self, embedding: Float[np.ndarray, "N D"]) -> Answers:
        """Class, probability, typicality and verdict of each row."""
        x = self.project(embedding)
        seen = self.evidence(x)
        posterior = posterior_of(seen.scores.double() / self.temperature)
        probability, predicted = posterior.max(1)
        score = self.typicality.score(seen.log_prob, seen.background, seen.raw)
        typicality = self.typicality(score, predicted).masked_fill(self.typicality.beyond(seen.log_prob), 0)
        far, pooled = self.typicality.far(seen.log_prob, seen.background), self.typicality.pooled(score)
        if self.newcomers is not None:
            own = self.newcomers(x, predicted)
            stricter = own < typicality  # then the row is unusual for the newcomer, whatever it is for the catalog
            typicality = torch.minimum(typicality, own)
            far, pooled = far & ~stricter, torch.where(stricter, 1.0, pooled)
        verdict, reason = rule.judge(
            posterior.numpy(),
            typicality.numpy(),
            pooled.numpy(),
            far.numpy(),
            self.decision.false_reject_rate,
            self.decision.min_probability,
        )
        return Answers(
            posterior.numpy(),
            predicted.numpy(),
            probability.numpy(),
            typicality.numpy(),
            score.numpy(),
            verdict,
            reason,
            *(column.numpy() for column in self._kinds(seen.joint, predicted, score, typicality)),
        )

    def evidence(self, x: Float[Tensor, "N R"]) -> Evidence:
        """What verdicts rest on, of projected rows; in float64 if some are too far away for float32."""
        joint = self._joint(x)
        class_log_prob = self.class_log_prob(joint)
        scores = class_log_prob if self.head is None else self._head_scores(self.head, x)
        log_prob, background = class_log_prob.logsumexp(1), far_rows.class_scores(self.background, x)[:, 0]
        return Evidence(joint, scores, log_prob, background, self.raw_score(x, log_prob, background))

    def _joint(self, x: Float[Tensor, "N R"]) -> Float[Tensor, "N K"]:
        return far_rows.scores_of(self.mixture.component_log_prob, x, self.mixture.mean, compared=True)

    def _head_scores(self, head: Head, x: Float[Tensor, "N R"]) -> Float[Tensor, "N C"]:
        scores = far_rows.scores_of(head.class_scores, x, self.mixture.mean, compared=True)
        return scores if self.prior is None else scores + self.prior.shift.to(scores)

    def raw_score(
        self, x: Float[Tensor, "N R"], log_prob: Float[Tensor, " N"], background: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"] | None:
        """Values of the score that takes the place of the density in the typicality; ``None`` if none does."""
        return None if self.score is None else self.score(x, log_prob, background)

    def class_log_prob(self, joint: Float[Tensor, "N K"]) -> Float[Tensor, "N C"]:
        """Class log-probabilities, with lifts, from component log-probabilities; both in nats."""
        class_log_prob = self.mixture.over_classes(joint)
        return class_log_prob if self.lift is None else class_log_prob + self.lift

    def _kinds(
        self,
        joint: Float[Tensor, "N K"],
        predicted: Int[Tensor, " N"],
        score: Float[Tensor, " N"],
        typicality: Float[Tensor, " N"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The last four columns of :class:`Answers`."""
        if self.subclasses is None:
            none = typicality[:0]
            return self._subclass(joint, predicted), none, none, none.bool()
        found = self.subclasses.answers(joint, predicted, score, typicality, self.typicality)
        return found.subclass, found.probability, found.typicality, found.own

    def _subclass(self, joint: Float[Tensor, "N K"], predicted: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """The component of the predicted class that explains each row best, counted within the class from 0."""
        component_class = self.mixture.component_class
        assert component_class is not None
        best = joint.masked_fill(component_class != predicted[:, None], -torch.inf).argmax(1)
        first = torch.searchsorted(component_class, predicted.contiguous())
        return best - first
