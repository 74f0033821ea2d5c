"""Where a run is: its step, the sums of the epoch so far, the record of the epochs, and the best weights."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from mixtura.errors import CheckpointError
from mixtura.records.training import TrainingEpoch
from mixtura.training.records import Weights
from mixtura.training.setup import RAW

_BEST = "best"
_ROWS = "rows"


@dataclass
class Course:
    """The course of a run; with the state of the network, all that a checkpoint holds.

    ``sums`` are over the rows of the epoch so far: of the loss, of what is logged, and ``rows``, their number.
    """

    step: int = 0
    sums: dict[str, float] = field(default_factory=lambda: {"loss": 0.0, _ROWS: 0.0})
    epochs: list[TrainingEpoch] = field(default_factory=list)
    best: dict[str, Weights] = field(default_factory=dict)

    @property
    def losses(self) -> list[float]:
        """The validation loss of the raw weights after each epoch."""
        return [epoch.validation[RAW]["loss"] for epoch in self.epochs if epoch.number]

    @property
    def best_epoch(self) -> int:
        """The last epoch that has improved some set of weights."""
        return max((weights.epoch for weights in self.best.values()), default=0)

    def add(self, sums: Mapping[str, float], rows: float) -> None:
        """Add the sums of a step."""
        for name, value in {**sums, _ROWS: rows}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """The means of the epoch so far; empty before its first row."""
        rows = self.sums[_ROWS]
        return {name: value / rows for name, value in self.sums.items() if name != _ROWS} if rows else {}

    def begin_epoch(self) -> None:
        """Start the sums again; their names stay, which the processes have to agree on."""
        self.sums = dict.fromkeys(self.sums, 0.0)

    def tensors(self) -> dict[str, Tensor]:
        """The best weights, as tensors of a checkpoint."""
        return {f"{_BEST}.{name}.{key}": t for name, held in self.best.items() for key, t in held.tensors.items()}

    def values(self) -> dict[str, Any]:
        """Everything else, as plain values of a checkpoint."""
        return {
            "step": self.step,
            "sums": self.sums,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best": {name: {"epoch": held.epoch, "loss": held.loss} for name, held in self.best.items()},
        }

    def lines(self) -> bytes:
        """A line of JSON for each epoch; numbers that are not finite are null."""
        return "".join(json.dumps(_finite(asdict(epoch)), allow_nan=False) + "\n" for epoch in self.epochs).encode()

    @classmethod
    def restored(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Course":
        """The course of a checkpoint.

        Raises:
            CheckpointError: the values are those of another program.
        """
        best: dict[str, Weights] = {}
        try:
            for name, held in values["best"].items():
                start = f"{_BEST}.{name}."
                own = {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
                best[name] = Weights(own, int(held["epoch"]), float(held["loss"]))
            epochs = [TrainingEpoch(**epoch) for epoch in values["epochs"]]
            return cls(int(values["step"]), {k: float(v) for k, v in values["sums"].items()}, epochs, best)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"The checkpoint is of another program ({error!r}). Start again with --fresh, which moves it aside."
            ) from error


def without_best(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint that are the state of the run."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{_BEST}.")}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
