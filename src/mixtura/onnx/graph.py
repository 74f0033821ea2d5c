"""A model's encoder and head as modules, and their ONNX bytes, for programs that do not use PyTorch."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mixtura.core.far_rows import posterior_of
from mixtura.core.mixture import Mixture
from mixtura.core.scale import MAX_FEATURE, within
from mixtura.encoders.onnx_graph import to_onnx
from mixtura.features.nonlinear import Power, signed_power
from mixtura.heads.base import REACH, Groups
from mixtura.model.model import Model
from mixtura.model.subclasses import MIN_ITEMS, Subclasses
from mixtura.model.subclasses import within as within_class
from mixtura.scores.base import Score
from mixtura.scores.resemblance import DIRECTION_FACTOR, NewcomerTest
from mixtura.scores.typicality import POOLED_ITEMS, Typicality, limits

OUTPUT_NAMES = ("posterior", "log_prob", "background", "score", "typicality", "pooled", "far", "subclass")
"""Outputs of a head's graph, row by row."""

SUBCLASS_NAMES = ("subclass_probability", "subclass_typicality", "subclass_own")
"""Further outputs where subclasses have names; ``subclass`` is then the place of one among them."""

EXAMPLE_ROWS = 3  # rows of the example used for tracing; the graph takes any number


class Scores(nn.Module):
    """A mixture as a module: rows N x D to component log-probabilities N x K, in nats."""

    def __init__(self, mixture: Mixture, dtype: torch.dtype) -> None:
        super().__init__()
        self.score = type(mixture.covariance).score
        operands = mixture.operands(dtype)  # in float64 where float32 would lose digits
        self.names = [f"operand{place}" for place in range(len(operands))]
        for name, operand in zip(self.names, operands, strict=True):
            self.register_buffer(name, operand.contiguous())

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """The component log-probabilities of each row, in its precision."""
        center, *operands = (self.get_buffer(name) for name in self.names)
        return self.score(tuple(operands), x.to(center.dtype) - center).to(x.dtype)


class Rank(nn.Module):
    """Typicality as a module; comparisons with the validation items give the same counts as a sorted search."""

    def __init__(self, typicality: Typicality, n_classes: int) -> None:
        super().__init__()
        self.parts, self.beyond = typicality.parts, typicality.beyond
        self.own_scale: list[float] = typicality.own_scale.tolist()
        scores, order = torch.cat([typicality.scores, typicality.stand_in]).sort()
        self.register_buffer("limits", typicality.limits)
        self.register_buffer("own", limits(scores))
        self.register_buffer("of", torch.cat([typicality.predicted, typicality.stand_for])[order])
        blended, blended_weight = typicality.blended
        self.weighted = len(typicality.weight) > 0
        self.register_buffer("blended", blended)
        self.register_buffer("weight", typicality.weight)
        self.register_buffer("blended_weight", blended_weight)
        self.register_buffer("class_weight", typicality.class_weight(torch.arange(n_classes)))

    def forward(
        self,
        log_prob: Float[Tensor, " N"],
        background: Float[Tensor, " N"],
        predicted: Int[Tensor, " N"],
        raw: Float[Tensor, " N"] | None = None,
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, " N"], Bool[Tensor, " N"]]:
        """Score, typicality, rank among all validation items, and whether the row is far from everything."""
        near, lifted = self.parts(log_prob, background)
        if raw is None:
            lesser = torch.where(lifted < near, lifted, near)
            score = torch.where(near.isnan() | lifted.isnan(), -torch.inf, lesser)
        else:
            score = (raw.double() - self.own_scale[0]) / self.own_scale[1]
            score = torch.where(score.isnan(), -torch.inf, score)
        below = self.get_buffer("own") <= score[:, None]
        own = self.get_buffer("of") == predicted[:, None]
        pooled = self._share("limits", "weight", score, 1.0)
        blended = ((below & own).sum(1).double() + POOLED_ITEMS * pooled) / (own.sum(1).double() + POOLED_ITEMS)
        beyond = self.beyond(log_prob)
        rank = self._share("blended", "blended_weight", blended, self.get_buffer("class_weight")[predicted])
        typicality = torch.where(beyond, 0.0, rank)
        return score, typicality, pooled, (lifted < near) | (score == -torch.inf) | beyond

    def _share(
        self, held: str, weight: str, value: Float[Tensor, " N"], own: Float[Tensor, " N"] | float
    ) -> Float[Tensor, " N"]:
        """The rank of each value among reference values, which have weights where a class prior was asked for."""
        below = self.get_buffer(held) <= value[:, None]
        if not self.weighted:
            return (1 + below.sum(1).double()) / (1 + below.shape[1])
        weights = self.get_buffer(weight)
        return (own + below.double() @ weights) / (own + weights.sum())


class Familiarity(nn.Module):
    """A score of ``SCORES`` as a module, with its tensors as buffers."""

    def __init__(self, score: Score) -> None:
        super().__init__()
        self.kind, state = type(score), score.state()
        self.names = list(state)
        for name, tensor in state.items():
            self.register_buffer(name, tensor)

    def forward(
        self, x: Float[Tensor, "N D"], log_prob: Float[Tensor, " N"], background: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """The score of each row."""
        score = self.kind.from_state({name: self.get_buffer(name) for name in self.names})
        return score(x, log_prob, background)


class OwnShots(nn.Module):
    """The test of newcomers as a module: the p-value of each row for its predicted class, 1 if this is no newcomer."""

    def __init__(self, test: NewcomerTest, n_classes: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.sets, self.scores = test.sets, Scores(test.sets.mixture, dtype)
        _ = test.sets.peak  # kept from now on; what a trace computes stands for a number and must not be kept
        order = torch.argsort(test.product, stable=True)
        number = torch.arange(len(order)) - torch.searchsorted(test.product[order], test.product[order])
        place = torch.full((n_classes, int(number.max()) + 1), -1)
        place[test.product[order], number] = order
        sizes = [len(own.near) for own in test.own]
        self.register_buffer("place", place)  # the sets of each class; -1 fills up
        self.register_buffer("game", test.game)
        self.register_buffer("size", torch.tensor(sizes, dtype=torch.float64))
        for name in ("near", "alike", "lesser"):
            parts = [getattr(own, name) for own in test.own]
            self.register_buffer(name, nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=torch.inf))

    def forward(self, x: Float[Tensor, "N D"], predicted: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The best p-value over the sets of the predicted class."""
        near, alike = self.sets.resemblance(self.scores(x))
        place = self.get_buffer("place")[predicted]
        found = [self._rank(near, alike, column) for column in place.unbind(1)]
        return torch.where(place[:, 0] < 0, 1.0, torch.stack(found, 1).amax(1))

    def _rank(
        self, near: Float[Tensor, "N P"], alike: Float[Tensor, "N P"], place: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """The p-value of each row for one set of shots; 0 where there is none."""
        column = place.clamp_min(0)[:, None]
        game = self.get_buffer("game")[column[:, 0]]
        size = self.get_buffer("size")[game]
        ranks = [
            self._share(name, game, size, values.gather(1, column))
            for name, values in (("near", near), ("alike", alike))
        ]
        lesser = torch.minimum(ranks[0], DIRECTION_FACTOR * ranks[1])
        return torch.where(place < 0, 0.0, self._share("lesser", game, size, lesser[:, None]))

    def _share(
        self, name: str, game: Int[Tensor, " N"], size: Float[Tensor, " N"], value: Float[Tensor, "N 1"]
    ) -> Float[Tensor, " N"]:
        return (1 + (self.get_buffer(name)[game] <= value).sum(1).double()) / (1 + size)


class Kinds(nn.Module):
    """The named subclasses as a module: which one each row is, how probable, how typical, and of whose items."""

    def __init__(self, known: Subclasses, typicality: Typicality) -> None:
        super().__init__()
        finer, places = typicality.of_subclasses, torch.arange(len(known.names))
        self.groups, self.rank = (
            Groups(known.component_subclass.tolist(), len(known.names)),
            Rank(finer, len(known.names)),
        )
        self.temperature = known.temperature
        self.register_buffer("class_parent", known.class_parent)
        self.register_buffer("own", finer.count(places) >= MIN_ITEMS)

    def forward(
        self,
        joint: Float[Tensor, "N K"],
        predicted: Int[Tensor, " N"],
        typicality: Float[Tensor, " N"],
        seen: tuple[Float[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, " N"] | None],
    ) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, " N"], Bool[Tensor, " N"]]:
        """The columns of ``Subclasses.answers``; ``seen`` are log-density, background and score."""
        posterior = within_class(self.groups(joint), self.get_buffer("class_parent"), predicted, self.temperature)
        subclass = posterior.argmax(1)
        log_prob, background, raw = seen
        inside = torch.where(typicality == 0, 0.0, self.rank(log_prob, background, subclass, raw)[1])
        own = self.get_buffer("own")[subclass]
        return subclass, posterior.amax(1), torch.where(own, inside, typicality), own


class HeadGraph(nn.Module):
    """Features to all outputs of ``Model.answers``, named by :func:`output_names`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        component_class = model.mixture.component_class
        assert component_class is not None
        self.steps = model.projection.steps
        dtype = model.projection(torch.zeros(1, model.dimension)).dtype
        self.mixture, self.background = Scores(model.mixture, dtype), Scores(model.background, dtype)
        self.head = model.head
        self.groups = Groups(component_class.tolist(), len(model.classes))
        self.rank = Rank(model.typicality, len(model.classes))
        self.own = None if model.newcomers is None else OwnShots(model.newcomers, len(model.classes), dtype)
        self.score = None if model.score is None else Familiarity(model.score)
        self.temperature = model.temperature
        self.register_buffer("middle", model.mixture.mean.double().mean(0))
        variance = model.background.covariance.dense(1, model.mixture.dimension)[0].diagonal().mean()
        self.reach = REACH[torch.float32] * float(variance.sqrt())
        self.register_buffer("lift", torch.zeros(len(model.classes)) if model.lift is None else model.lift)
        self.register_buffer("shift", model.head_shift)
        self.register_buffer("component_class", component_class)
        self.register_buffer("first", torch.searchsorted(component_class, torch.arange(len(model.classes))))
        self.kinds = None if model.subclasses is None else Kinds(model.subclasses, model.typicality)

    def forward(self, features: Float[Tensor, "N D"]) -> tuple[Tensor, ...]:
        """The outputs, in the order of :func:`output_names`."""
        x = within(features, MAX_FEATURE)
        for step in self.steps:
            x = signed_power(x, step.power) if isinstance(step, Power) else step(x)
        x = self._in_sight(x)
        joint = self.mixture(x)
        class_log_prob = self.groups(joint) + self.get_buffer("lift")
        scores = class_log_prob if self.head is None else self.head.class_scores(x) + self.get_buffer("shift")
        posterior = posterior_of(scores.double() / self.temperature)
        predicted = posterior.argmax(1)
        log_prob, background = class_log_prob.logsumexp(1), self.background(x)[:, 0]
        raw = None if self.score is None else self.score(x, log_prob, background)
        score, typicality, pooled, far = self.rank(log_prob, background, predicted, raw)
        if self.own is not None:
            own = self.own(x, predicted)
            stricter = own < typicality
            typicality = torch.where(stricter, own, typicality)
            far, pooled = far & ~stricter, torch.where(stricter, 1.0, pooled)
        columns = posterior, log_prob, background, score, typicality, pooled, far
        if self.kinds is not None:
            return *columns, *self.kinds(joint, predicted, typicality, (log_prob, background, raw))
        own = joint.masked_fill(self.get_buffer("component_class") != predicted[:, None], -torch.inf).argmax(1)
        return *columns, own - self.get_buffer("first")[predicted]

    def _in_sight(self, x: Float[Tensor, "N R"]) -> Float[Tensor, "N R"]:
        """The rows; those too far away to compare their classes are moved nearer, where the same class leads."""
        middle = self.get_buffer("middle").to(x.dtype)
        far = (x - middle).abs().amax(1, keepdim=True) > self.reach
        return torch.where(far, within(x - middle, self.reach) + middle, x)


def head_bytes(model: Model) -> bytes:
    """The ONNX bytes of a model's head, from ``features`` (N D float32) to :func:`output_names`.

    Raises:
        UsageError: it would be above 2 GB.
    """
    return to_onnx(HeadGraph(model), torch.zeros(EXAMPLE_ROWS, model.dimension), "features", output_names(model))


def output_names(model: Model) -> tuple[str, ...]:
    """The outputs of a model's graph: those of named subclasses come last, where it has any."""
    return OUTPUT_NAMES if model.subclasses is None else (*OUTPUT_NAMES, *SUBCLASS_NAMES)
