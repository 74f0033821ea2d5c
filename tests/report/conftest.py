"""A made-up shop, realistic enough to look at: Gaussian classes, some of them close, and things it does not sell."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mixtura.metrics.calibration import ece
from mixtura.metrics.classification import balanced_accuracy, recall
from mixtura.metrics.detection import auroc, fpr_at_tpr
from mixtura.metrics.intervals import wilson
from mixtura.records.decision import Candidate, Decision, EmbeddingMap, Evaluation, Interval, Mistake, Neighbor

NAMES = ("Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot", "T-shirt/top")
ALPHA = 0.05


def names_for(count):
    if count == len(NAMES):
        return NAMES
    if count == 2:
        return (
            "<script>alert('no')</script>",
            "Ground coffee, decaffeinated, Fairtrade, 500 g vacuum pack, new recipe 2026",
        )
    return tuple(f"{NAMES[i % 10]} {i // 10 + 1:02d}" for i in range(count))


def softmax(score):
    e = np.exp(score - score.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def measure(true, predicted, probability, typicality, score, verdict, names):
    known = true >= 0
    right, total = recall(true[known], predicted[known], len(names))
    correct = true == predicted
    rejected = int((verdict[known] == "unknown").sum())
    n = int(known.sum())
    metrics = {
        "top1": float(correct[known].mean()),
        "balanced": balanced_accuracy(true[known], predicted[known], len(names)),
        "ece": ece(probability[known], correct[known]),
        "nll": 0.274,
        "brier": 0.131,
        "stated_false_reject": ALPHA,
        "false_reject": rejected / n,
    }
    intervals = {
        "top1": Interval(metrics["top1"], *wilson(int(correct[known].sum()), n), n),
        "false_reject": Interval(rejected / n, *wilson(rejected, n), n),
    }
    if not known.all():
        metrics["auroc_unknown"] = auroc(score, known)
        metrics["fpr95"] = fpr_at_tpr(score, known)
    per_class = {
        name: Interval(right[i] / max(total[i], 1), *wilson(int(right[i]), int(total[i])), int(total[i]))
        for i, name in enumerate(names)
    }
    return metrics, intervals, per_class


def sample(rng, center, per_class, foreign):
    classes, dimension = center.shape
    true = np.repeat(np.arange(classes), per_class)
    x = center[true] + rng.normal(size=(len(true), dimension))
    out = rng.normal(size=(foreign, dimension)) * 1.6
    out[:, -2:] += 4.0
    return np.concatenate([x, out]), np.concatenate([true, np.full(foreign, -1)])


def make_evaluation(classes=10, per_class=100, foreign=300, seed=0, dimension=8):
    rng = np.random.default_rng(seed)
    names = names_for(classes)
    center = rng.normal(size=(classes, dimension)) * 1.7
    x, true = sample(rng, center, per_class, foreign)
    distance = ((x[:, None] - center) ** 2).sum(-1)
    reference = np.sort(rng.chisquare(dimension, 2000))
    posterior = softmax(-distance * 0.6)  # a little too sure
    predicted, probability = posterior.argmax(1), posterior.max(1)
    nearest = distance.min(1)
    typicality = 1 - np.searchsorted(reference, nearest) / len(reference)
    verdict = np.where(typicality < ALPHA, "unknown", np.where(probability < 0.5, "unsure", "match"))
    metrics, intervals, per_name = measure(true, predicted, probability, typicality, -nearest, verdict, names)
    ids = tuple(f"id{i}" for i in range(len(true)))
    sources = tuple(f"test/{names[t] if t >= 0 else 'other'}/img_{i:05d}.jpg" for i, t in enumerate(true))
    wrong = [i for i in np.argsort(-probability, kind="stable") if true[i] >= 0 and predicted[i] != true[i]][:16]
    return Evaluation(
        classes=names,
        ids=ids,
        sources=sources,
        true=true,
        predicted=predicted,
        probability=probability,
        typicality=typicality,
        score=-nearest,
        verdict=verdict,
        metrics=metrics,
        intervals=intervals,
        recall=per_name,
        alpha=ALPHA,
        mistakes=tuple(make_mistake(i, names, true, predicted, probability, typicality, sources) for i in wrong),
        map=make_map(x, true, center),
        facts=FACTS,
    )


def make_mistake(i, names, true, predicted, probability, typicality, sources):
    said, own = names[predicted[i]], names[true[i]]
    neighbors = tuple(
        Neighbor(f"near{i}-{j}", said if j < 2 else own, f"train/{said}/{j}.jpg", 0.93 - 0.02 * j) for j in range(3)
    )
    sure, usual = f"{100 * probability[i]:.1f}%", f"{100 * typicality[i]:.0f}%"
    sentence = f"Looks like {said} ({sure}); {usual} of genuine ones look at least this unusual."
    decision = Decision(
        f"id{i}",
        said,
        float(probability[i]),
        float(typicality[i]),
        "match",
        None,
        sentence,
        0,
        (Candidate(said, float(probability[i])),),
        neighbors,
    )
    return Mistake(decision, own, sources[i])


def make_map(x, true, center):
    basis = np.linalg.svd(center - center.mean(0), full_matrices=False)[2][:2].T
    return EmbeddingMap(
        x @ basis, true, center @ basis, np.tile(np.eye(2), (len(center), 1, 1)), np.arange(len(center))
    )


def thumbnail(name):
    """A JPEG of a colored shape, another for each name; none for some."""
    seed = sum(map(ord, name))
    if seed % 9 == 0:
        return None
    image = Image.new("RGB", (96, 96), "white")
    color = tuple(60 + (seed * k) % 150 for k in (3, 5, 7))
    ImageDraw.Draw(image).ellipse((20 + seed % 10, 12, 76, 84 - seed % 20), fill=color)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


FACTS = {
    "seconds": 41.237,
    "train photos": 4000,
    "encoder": {
        "name": "lite0",
        "size": 96,
        "dimension": 1280,
        "dtype": "float32",
        "weights_sha256": "9f0c5d1ab0f4c1c2a6f87e2b4b8a3f5d7c9e1a2b3c4d5e6f708192a3b4c5d6e7",
        "preprocessing": "resize to 96 x 96, bicubic; x / 127.5 - 1",
    },
    "recipe": {
        "seed": 0,
        "head": {"family": "tied", "components": 1, "shrinkage": 0.0412},
        "decision": {"false_reject_rate": 0.05, "min_probability": 0.5},
        "projection": ["pca 99", "l2"],
        "output": None,
    },
    "versions": {"mixtura": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "timm": "1.0.31", "numpy": "2.4.6"},
}


@pytest.fixture(scope="session")
def evaluation_of():
    made = {}

    def of(**options):
        key = tuple(sorted(options.items()))
        if key not in made:
            made[key] = make_evaluation(**options)
        return made[key]

    return of


@pytest.fixture(scope="session")
def photo():
    return thumbnail
