"""What a model would make of strangers: items of classes that it was never shown."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mixtura.formats import short_percent

ESTIMATE_FACT = "strangers"
"""The key of the estimate among a model's facts."""


@dataclass(frozen=True)
class LeftOutClass:
    """A class whose items were strangers in some of the draws.

    ``noticed`` is the share of them with the verdict unknown. Of the others, most were assigned to the class
    ``mistaken_for``: the share ``mistaken_share`` of all of them.
    """

    noticed: float
    count: float
    mistaken_for: str
    mistaken_share: float


@dataclass(frozen=True)
class ScoreTrial:
    """A score in the draws: mean AUROC and mean noticed share, both in [0, 1], over ``draws`` draws.

    ``gain`` is the mean gain in the noticed share over the density on the same items, ``error`` its standard error, and
    ``auroc_gain`` the mean gain in the AUROC.
    """

    auroc: float
    noticed: float
    draws: int
    gain: float = 0.0
    error: float = 0.0
    auroc_gain: float = 0.0

    @property
    def promising(self) -> bool:
        """Whether the score beats the density in both figures, by however little."""
        return self.gain > 0 and self.auroc_gain > 0

    @property
    def behind(self) -> bool:
        """Whether the density beats the score in both figures."""
        return self.gain < 0 and self.auroc_gain < 0


@dataclass(frozen=True)
class StrangerEstimate:
    """The share of strangers that a model would notice, estimated by leaving some of its classes out.

    ``noticed``, with its interval ``low`` to ``high`` at ``level``, and ``auroc`` are in [0, 1], and ``None`` if there
    are too few classes. ``classes`` has an entry for each class; ``score`` is the name of the typicality's score and
    ``trials`` what each score made of the draws. ``notes`` are sentences on what was not left out.
    """

    noticed: float | None
    low: float = 0.0
    high: float = 1.0
    level: float = 0.9
    auroc: float | None = None
    draws: tuple[float, ...] = ()
    score: str = "density"
    trials: dict[str, ScoreTrial] = field(default_factory=dict)
    classes: dict[str, LeftOutClass] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The estimate in words, or why there is none."""
        if self.noticed is None:
            return " ".join(self.notes)
        low, high = short_percent(self.low), short_percent(self.high)
        span = f"{low.removesuffix('%')} to {high}" if low[0].isdigit() and high[0].isdigit() else f"{low} to {high}"
        return (
            "Anything new that differs from your classes as much as they differ from each other would be reported as "
            f"unknown {short_percent(self.noticed)} of the time ({short_percent(self.level)} interval {span})."
        )

    @property
    def by_noticed(self) -> list[tuple[str, LeftOutClass]]:
        """The classes by how few of their items were noticed, fewest first."""
        return sorted(self.classes.items(), key=lambda pair: (pair[1].noticed, pair[0]))

    def least_noticed(self, count: int = 3) -> list[str]:
        """The least noticed classes, each with its share and what it was mistaken for."""
        return [
            f"{name} ({short_percent(one.noticed)}{f', taken for {one.mistaken_for}' if one.mistaken_share else ''})"
            for name, one in self.by_noticed[:count]
        ]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values."""
        return asdict(self) | {"draws": list(self.draws), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "StrangerEstimate":
        """The inverse of :meth:`to_dict`."""
        trials = {name: ScoreTrial(**one) for name, one in value.get("trials", {}).items()}
        classes = {name: LeftOutClass(**one) for name, one in value.get("classes", {}).items()}
        parts: dict[str, Any] = {"trials": trials, "classes": classes}
        parts |= {name: tuple(value.get(name, ())) for name in ("draws", "notes")}
        return cls(**(value | parts))

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> "StrangerEstimate | None":
        """The estimate among a model's facts; ``None`` if the model is older than these."""
        value = facts.get(ESTIMATE_FACT)
        return cls.from_dict(value) if isinstance(value, dict) else None
