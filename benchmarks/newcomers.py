"""Does a newcomer swallow its whole kind? Own photos found and others of its kind taken, by number of shots.

Two cases, drawn anew five times: classes of Grocery Store enrolled in a catalog of 61 others, and classes of CIFAR-100
enrolled in the same catalog, where they are of another kind than all that was fitted. Ten classes are enrolled, ten
others of the same data set are strangers. Beside the catalog's rule stand none (as it was before) and the rules
``log(|x - m|^2 / (1 + 1/k)) - a log |x - m0|^2`` for a = 0, 1/2 and 1, with limits from the same players. All figures
are of the official test parts, in percent, with the standard error over the draws.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common import write

from mixtura import identity
from mixtura.catalog import Catalog
from mixtura.catalog.players import Players, scored
from mixtura.catalog.rebuild import CatalogState, ComponentGroup, model_of
from mixtura.core.moments import LabeledItems
from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.model.model import Model
from mixtura.recipe import resolve
from mixtura.scores.resemblance import NewcomerTest, ShotSets
from mixtura.tasks import fit

SHOTS = (1, 3, 10, 20)
POWERS = {"a = 0": 0.0, "a = 1/2": 0.5, "a = 1": 1.0}
STATED = 0.05
Judge = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """Photos of one data set: the classes to enroll, and the strangers."""

    features: Features
    enrolled: np.ndarray
    strangers: np.ndarray

    def rows(self, classes: np.ndarray, test: bool) -> Features:
        split = np.array([split == "test" for split in self.features.split])
        return self.features.select((split == test) & np.isin(np.array(self.features.label), classes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grocery", type=Path, help="feature store of Grocery Store by its fine labels, with splits")
    parser.add_argument("cifar", type=Path, help="feature store of CIFAR-100 of the same encoder, with splits")
    parser.add_argument("--fitted", type=int, default=61)
    parser.add_argument("--draws", type=int, default=5)
    given = parser.parse_args()
    near, far = (FeatureStore.open(path).read() for path in (given.grocery, given.cifar))
    if different := identity.differences(near.identity, far.identity):
        parser.error(f"the two stores have different encoders: {different}")
    draws = [_draw(given.grocery, near, far, given.fitted, seed) for seed in range(given.draws)]
    table = {key: _summary([draw[key] for draw in draws]) for key in draws[0]}
    for key, (mean, error) in table.items():
        print(f"{key:60s} {mean:6.2f} ± {error:.2f}")
    write("newcomers", {"draws": draws, "table": {key: list(value) for key, value in table.items()}})


def _summary(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def _draw(store: Path, near: Features, far: Features, fitted: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    names, others = (rng.permutation(np.array(features.classes)) for features in (near, far))
    rest = names[fitted:]
    kinds = {
        "grocery": Kind(near, rest[:10], rest[10:]),
        "mixed": Kind(far, others[:10], others[10:20]),
    }
    earlier = Kind(near, names[:fitted], rest[:0])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        fit.run(resolve({"data.kind": "features", "data.root": store, "data.unknown": tuple(rest), "output": place}))
        catalog = Catalog.open(place)
        row: dict[str, float] = {}
        for kind, part in kinds.items():
            for k in SHOTS:
                found = _enrolled(catalog, part, earlier.rows(earlier.enrolled, True), k, np.random.default_rng(seed))
                row |= {f"{kind}, {k:2d} shots, {name}": 100 * value for name, value in found.items()}
        catalog.close()
    return row


def _enrolled(catalog: Catalog, kind: Kind, earlier: Features, k: int, rng: np.random.Generator) -> dict[str, float]:
    """The figures of the catalog's model with every class enrolled from k photos at once."""
    before, base = catalog.model, catalog._base
    shots = []
    for name in kind.enrolled:
        rows = kind.rows(np.array([name]), False)
        shots.append(base.model.project(rows.embedding[rng.permutation(len(rows))[:k]].astype(np.float32)).double())
    names = (*before.classes, *kind.enrolled)
    old = [ComponentGroup(place, place) for place in range(len(before.classes))]
    new = [ComponentGroup(len(old) + place, None, rows) for place, rows in enumerate(shots)]
    x = shots[0][:0]
    none = LabeledItems(x, torch.zeros(0, dtype=torch.int64), x.new_zeros(0))
    model = model_of(base, CatalogState(names, (*old, *new), none, none), catalog._gauge, None)
    gauge = catalog._gauge(base.sums)
    assert gauge is not None and model.newcomers is not None
    tests: dict[str, Judge | None] = {"before": None, "now": model.newcomers}
    tests |= {name: _rule(gauge.players, model.newcomers, power) for name, power in POWERS.items()}
    return _fitted_figures(before, model, earlier) | _figures(model, kind, tests)


def _fitted_figures(before: Model, after: Model, earlier: Features) -> dict[str, float]:
    x, label = earlier.embedding.astype(np.float32), np.array(earlier.label)
    untested, now, first = (model.answers(x) for model in (replace(after, newcomers=None), after, before))
    own = np.array(["fitted"] * len(before.classes) + ["new"] * (len(after.classes) - len(before.classes)))
    same = own[now.predicted] == "fitted"
    assert (untested.typicality[same] == now.typicality[same]).all(), "a fitted class's item was judged by the test"
    return {
        "fitted: top-1 before enrolling": float((np.array(before.classes)[first.predicted] == label).mean()),
        "fitted: top-1": float((np.array(after.classes)[now.predicted] == label).mean()),
        "fitted: unknown, before": float((untested.verdict == "unknown").mean()),
        "fitted: unknown, now": float((now.verdict == "unknown").mean()),
    }


def _figures(model: Model, kind: Kind, tests: dict[str, Judge | None]) -> dict[str, float]:
    own, others = kind.rows(kind.enrolled, True), kind.rows(kind.strangers, True)
    names = np.array(model.classes)
    row: dict[str, float] = {}
    for part, features in (("found", own), ("taken", others)):
        x, label = features.embedding.astype(np.float32), np.array(features.label)
        answers = replace(model, newcomers=None).answers(x)
        named = names[answers.predicted]
        right = named == label if part == "found" else np.isin(named, kind.enrolled)
        if part == "found":
            row["enrolled: top-1"] = float(right.mean())
        projected, predicted = model.project(x), torch.from_numpy(answers.predicted)
        asked = torch.tensor([model.classes.index(n) for n in _compared_with(label, kind, part)])
        for name, test in tests.items():
            p = 1.0 if test is None else test(projected, predicted).numpy()
            row[f"{part}, {name}"] = float((right & (np.minimum(answers.typicality, p) >= STATED)).mean())
            if test is not None:
                row[f"test alone, {part}, {name}"] = float((test(projected, asked) >= STATED).double().mean())
    return row


def _compared_with(label: np.ndarray, kind: Kind, part: str) -> list[str]:
    """The newcomer that each photo is compared with if the class is not asked for: its own, or one in turn."""
    return list(label) if part == "found" else [kind.enrolled[i % len(kind.enrolled)] for i in range(len(label))]


def _rule(players: Players, test: NewcomerTest, power: float) -> Judge:
    """The test by the distance to the shots alone, less ``power`` times the log-distance to the center."""
    games = [_played(players, count, power) for count in _counts(test)]

    def judge(x: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        value = _value(test.sets, test.sets.mixture.component_log_prob(x), power)
        p = torch.ones(len(x), dtype=torch.float64)
        for place, (product, game) in enumerate(zip(test.product.tolist(), test.game.tolist(), strict=True)):
            rows, held = predicted == product, games[game]
            p[rows] = (1 + (held <= value[rows, place][:, None]).sum(1).double()) / (1 + len(held))
        return p

    return judge


def _counts(test: NewcomerTest) -> list[int]:
    return sorted({int(count) for count in test.sets.count.tolist()})


def _played(players: Players, count: int, power: float) -> torch.Tensor:
    values = []
    for mixture, sums, rows in players.folds(count):
        sets, log_prob, place = scored(players.base, mixture, sums, list(rows.values()), count)
        values.append(_value(sets, log_prob, power).gather(1, place)[:, 0])
    return torch.cat(values)


def _value(sets: ShotSets, log_prob: torch.Tensor, power: float) -> torch.Tensor:
    near, far = sets.squares(log_prob).tensor_split(2, dim=1)
    return power * far.log() - (near / (1 + 1 / sets.count)).log()


if __name__ == "__main__":
    main()
