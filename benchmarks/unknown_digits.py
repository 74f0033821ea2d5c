"""Known against unknown on the 8 x 8 digits: 7 classes in the catalog, 3 unknown, 20 draws, raw pixels.

Half of the known digits to learn from, a quarter left alone, a quarter to test; all of the unknown ones to test. The
score is the default one and the family is found by ``auto``. Beside it: the five nearest neighbors' mean distance, and
the largest probability of a logistic regression.

    python benchmarks/unknown_digits.py
"""

import numpy as np
from common import arguments, in_memory, model_of, write
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mixtura.recipe import resolve
from mixtura.tasks.evaluate import evaluate

DRAWS = 20


def draw(seed: int) -> dict[str, float]:
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    unknown = rng.choice(10, 3, replace=False)
    inside = ~np.isin(y, unknown)
    rows = rng.permutation(np.flatnonzero(inside))
    train, test = rows[: len(rows) // 2], np.concatenate([rows[3 * len(rows) // 4 :], np.flatnonzero(~inside)])
    order = np.concatenate([train, test])
    split = ["train"] * len(train) + ["test"] * len(test)
    features = in_memory(x[order], [str(label) for label in y[order]], split)
    recipe = resolve({})
    found = evaluate(model_of(features, recipe), features.select_split("test"))
    known = np.isin(test, rows)
    near = NearestNeighbors(n_neighbors=5).fit(x[train]).kneighbors(x[test])[0].mean(1)
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[train], y[train])
    return {
        "mixtura, default score": 100 * found.metrics["auroc_unknown"],
        "5 nearest neighbors": 100 * roc_auc_score(known, -near),
        "logistic regression, largest probability": 100 * roc_auc_score(known, logistic.predict_proba(x[test]).max(1)),
        "accuracy": 100 * found.metrics["top1"],
        "false reject measured": 100 * found.metrics["false_reject"],
        "ece": 100 * found.metrics["ece"],
        "fpr95": 100 * found.metrics["fpr95"],
    }


def main() -> None:
    arguments(__doc__.splitlines()[0]).parse_args()
    draws = [draw(seed) for seed in range(DRAWS)]
    figures = {
        name: {"mean": float(np.mean([d[name] for d in draws])), "sd": float(np.std([d[name] for d in draws], ddof=1))}
        for name in draws[0]
    }
    for name, figure in figures.items():
        print(f"{name:45s} {figure['mean']:.2f} ± {figure['sd']:.2f}")
    write("unknown_digits", {"draws": DRAWS, "figures": figures})


if __name__ == "__main__":
    main()
