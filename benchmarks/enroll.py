"""What do ten products enrolled from three photos each do to a catalog of 61, and what is still told to be unknown?

Classes of a feature store with an official test part are drawn into fitted, enrolled and unknown ones. Beside the
catalog stand nearest mean and nearest neighbor (cosine) on the same shots, each with the threshold that rejects the
stated share of held-out training items; every figure is taken on the test part, once.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from common import write
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from mixtura.catalog import Catalog, Shot
from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.recipe import resolve
from mixtura.tasks import fit

STATED = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="feature store with splits, Grocery Store by its fine labels")
    parser.add_argument("--fitted", type=int, default=61)
    parser.add_argument("--enrolled", type=int, default=10)
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--name", default="grocery")
    given = parser.parse_args()
    features = FeatureStore.open(given.store).read()
    rows = [_draw(features, given, seed) for seed in range(given.draws)]
    table = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows], dtype=float)
        table[name] = {"mean": float(values.mean()), "sd": float(values.std(ddof=1)) if len(values) > 1 else None}
        print(f"{name:42s} {values.mean():8.4f} ± {values.std(ddof=1):.4f}")
    write(f"enroll_{given.name}", {"fitted": given.fitted, "shots": given.shots, "draws": rows, "table": table})


def _draw(features: Features, given: argparse.Namespace, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(features.classes))
    names = np.array(features.classes)[order]
    fitted, rest = names[: given.fitted], names[given.fitted :]
    enrolled, unknown = rest[: given.enrolled], rest[given.enrolled :]
    label, split = np.array(features.label, dtype=object), np.array(features.split, dtype=object)
    test, train = split == "test", split != "test"
    with tempfile.TemporaryDirectory() as folder:
        catalog = _catalog(given.store, rest, Path(folder))
        earlier = features.select(test & np.isin(label, fitted))
        before = _accuracy(catalog, earlier)
        shots = {
            name: rng.choice(np.flatnonzero(train & (label == name)), given.shots, replace=False) for name in enrolled
        }
        began = time.perf_counter()
        for name, index in shots.items():
            catalog.enroll(
                name, [Shot(features.embedding[i].astype(np.float32), features.sha256[i], "") for i in index]
            )
        seconds = (time.perf_counter() - began) / len(shots)
        new, strange = features.select(test & np.isin(label, enrolled)), features.select(test & np.isin(label, unknown))
        answers = {
            part: catalog.model.answers(rows.embedding.astype(np.float32))
            for part, rows in (("earlier", earlier), ("new", new), ("unknown", strange))
        }
        right = {"new": _accuracy(catalog, new), "earlier": _accuracy(catalog, earlier)}
        known = np.concatenate([answers["earlier"].score, answers["new"].score])
        verdict = {part: own.verdict == "unknown" for part, own in answers.items()}
        row = {
            "fitted: accuracy before": before,
            "fitted: accuracy after": right["earlier"],
            "fitted: lost": before - right["earlier"],
            "enrolled: accuracy": right["new"],
            "auroc known against unknown": _auroc(known, answers["unknown"].score),
            "auroc enrolled against unknown": _auroc(answers["new"].score, answers["unknown"].score),
            "auroc by typicality": _auroc(
                np.concatenate([answers["earlier"].typicality, answers["new"].typicality]),
                answers["unknown"].typicality,
            ),
            "false rejects, all known": float(np.concatenate([verdict["earlier"], verdict["new"]]).mean()),
            "false rejects, fitted": float(verdict["earlier"].mean()),
            "false rejects, enrolled": float(verdict["new"].mean()),
            "unknown found": float(verdict["unknown"].mean()),
            "best balanced unknown accuracy": _best(known, answers["unknown"].score),
            "seconds an enrollment": seconds,
        }
    pieces = (earlier, new, strange)
    base = features.select(train & np.isin(label, fitted))
    return row | _rivals(base, features, shots, pieces, row["fitted: lost"])


def _catalog(store: Path, left_out: np.ndarray, folder: Path) -> Catalog:
    """A model fitted on all but some classes, with what is left open chosen as mixtura fit does by default."""
    fit.run(resolve({"data.kind": "features", "data.root": store, "data.unknown": tuple(left_out), "output": folder}))
    return Catalog.open(folder)


def _accuracy(catalog: Catalog, rows: Features) -> float:
    predicted = catalog.model.answers(rows.embedding.astype(np.float32)).predicted
    return float((np.array(catalog.model.classes)[predicted] == np.array(rows.label)).mean())


def _auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    truth = np.r_[np.ones(len(known)), np.zeros(len(unknown))]
    return float(roc_auc_score(truth, np.r_[known, unknown]))


def _rivals(
    base: Features, features: Features, shots: dict[str, np.ndarray], pieces: tuple[Features, ...], cost: float
) -> dict:
    """Nearest mean and nearest neighbor by cosine, threshold from held-out items of the fitted classes.

    At equal cost, the cosines to enrolled classes are lifted (or lowered) until fitted ones lose as much as in the
    catalog: an upper bound, as the lift is read from the test part.
    """
    index = np.concatenate(list(shots.values()))
    labels = np.array([*base.label, *[features.label[i] for i in index]], dtype=object)
    x = _unit(np.concatenate([base.embedding, features.embedding[index]]).astype(np.float32))
    row: dict[str, float] = {}
    for name, fitted in (("nearest mean", _means), ("nearest neighbor", lambda x, y: (x, y))):
        held = []
        for learn, judge in StratifiedKFold(5, shuffle=True, random_state=0).split(base.embedding, base.label):
            own = _unit(base.embedding.astype(np.float32))
            centers, _ = fitted(own[learn], np.array(base.label, dtype=object)[learn])
            held.append((own[judge] @ centers.T).max(1))
        limit = np.quantile(np.concatenate(held), STATED)
        centers, names = fitted(x, labels)
        scores, right = [], []
        for rows in pieces:
            cosine = _unit(rows.embedding.astype(np.float32)) @ centers.T
            scores.append(cosine.max(1))
            right.append(float((names[cosine.argmax(1)] == np.array(rows.label, dtype=object)).mean()))
        own, own_names = fitted(x[: len(base)], labels[: len(base)])
        cosine = _unit(pieces[0].embedding.astype(np.float32)) @ own.T
        before = float((own_names[cosine.argmax(1)] == np.array(pieces[0].label, dtype=object)).mean())
        known = np.concatenate(scores[:2])
        at_cost = _at_cost(pieces[:2], centers, names, set(shots), cost)
        row |= {
            f"{name}: fitted, accuracy after": right[0],
            f"{name}: fitted, lost": before - right[0],
            f"{name}: enrolled, accuracy": right[1],
            f"{name}: enrolled, accuracy at equal cost": at_cost,
            f"{name}: auroc known against unknown": _auroc(known, scores[2]),
            f"{name}: false rejects, all known": float((known < limit).mean()),
            f"{name}: unknown found": float((scores[2] < limit).mean()),
            f"{name}: best balanced unknown accuracy": _best(known, scores[2]),
        }
    return row


def _at_cost(pieces: tuple[Features, ...], centers: np.ndarray, names: np.ndarray, new: set[str], cost: float) -> float:
    """Accuracy on enrolled classes under the highest lift that costs the fitted ones no more than ``cost``."""
    own = np.isin(names, list(new))
    parts = []
    for rows in pieces:
        cosine = _unit(rows.embedding.astype(np.float32)) @ centers.T
        old, fresh = cosine[:, ~own], cosine[:, own]
        truth = np.array(rows.label, dtype=object)
        right_old, right_new = names[~own][old.argmax(1)] == truth, names[own][fresh.argmax(1)] == truth
        parts.append((old.max(1) - fresh.max(1), right_old, right_new))
    lead, right, _ = parts[0]
    allowed = int(cost * len(lead))
    lift = np.sort(lead[right])[allowed] if allowed < right.sum() else np.inf
    return float((parts[1][2] & (parts[1][0] < lift)).mean())


def _best(known: np.ndarray, unknown: np.ndarray) -> float:
    """Mean of known kept and unknown found at the threshold that is best for it: an upper bound, seen on the test."""
    return float(max(0.5 * ((known >= t).mean() + (unknown < t).mean()) for t in np.r_[known, unknown]))


def _means(x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    names = np.unique(labels)
    return _unit(np.stack([x[labels == name].mean(0) for name in names])), names


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
