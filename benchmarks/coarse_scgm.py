"""Does SCGM-G find what class labels do not say? The same network, trained on classes alone, at equal epochs.

    python benchmarks/coarse_scgm.py [--data DATA] [--only digits grocery] [--seeds 0 1 2] [--methods scgm-g]
    python benchmarks/coarse_scgm.py --only digits --methods supcon --seeds 0 --epochs 1     a trial, which is not kept

Digits are learned by their parity (2 classes, 10 digits), Omniglot by alphabet (8 and 242 characters, split by who drew
them; needs --data), Fashion-MNIST by three groups (10 kinds, 10,000 photos to learn from), Grocery Store by its coarse
classes (43 and 81 products; the last block of lite0 at 128 px; needs --data). No step and no choice sees the digits,
characters, kinds and products: they only measure the vectors of the test part.

``coarse`` is the cross-entropy of the class; ``coarse, embedder`` the same through an embedder of 128 numbers, and
``coarse+`` the class term of scgm-g alone, through the same embedder; ``scgm-g`` and ``scgm-a`` have ``R`` subclasses.
``supcon``, ``ancor`` and ``maskcon`` compare two views of a photo. ``fine`` and ``fine, embedder`` learn the kinds
themselves: they are upper bounds, and their ``class`` is that of kinds. ``frozen`` trains nothing: it is the encoder
that mixtura takes unless told otherwise, at 128 px. ``as released`` is scgm-g with an assignment on random views by a
network in training mode; the two changes also stand alone. Episodes (1-shot, 15 queries, 400 of them, nearest by
cosine) take all kinds of one class (``intra``), of all (``allway``) or any five (``nway``); ``knn`` is the nearest
training photo. ``nmi``, ``purity`` and ``used`` are of the subclasses that are found for the photos outside the test
part, each one of the photo's class; ``kmeans nmi`` and ``kmeans purity`` of as many clusters of their unit vectors,
within each class.
Figures are percent. Writes benchmarks/results/coarse_scgm.json.
"""

import csv
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from common import RESULTS, arguments, write
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from mixtura.coarse_sections import FINDS_SUBCLASSES
from mixtura.core.two_levels import share_subclasses
from mixtura.datasets.episodes import Design
from mixtura.datasets.idx import load_fashion_mnist
from mixtura.features.records import Features
from mixtura.fitting import network_material, network_subclasses
from mixtura.metrics.clustering import mutual_information, purity
from mixtura.model import bundle
from mixtura.pipeline import training_set
from mixtura.recipe import Recipe, resolve
from mixtura.tasks import fewshot, fit, train
from mixtura.tasks.trained_subclasses import SUBCLASS_FILE

NAME = "coarse_scgm"
DESIGN = Design(way=5, shot=1, query=15, episodes=400, seed=0)
QUERY = {"omniglot": 5, "grocery": 5}  # six drawers are in the test part; ten photos are the fewest of a product
FILES = {"omniglot": "omniglot/omniglot_small_8alphabets.npz", "grocery": "grocery81_128px.npz"}
GROUPS = (("0", "2", "3", "4", "6"), ("5", "7", "9"), ("1", "8"))  # tops; shoes; trousers and bags
FASHION_LEARN, FASHION_TEST = 10_000, 2_000
SGD = {"optimizer": "sgd", "learning_rate": 0.03, "weight_decay": 1e-4, "batch_size": 64}
CROPS = {"views": [{"name": "random_resized_crop", "probability": 1.0, "options": {"scale": [0.6, 1.0]}}]}
SETS = {
    "digits": {
        "encoder": {"size": 16, "filters": 16},
        "train": {"epochs": 60, "schedule": {"name": "restarts", "cycles": 3, "warmup": 0}, "augment": CROPS},
        "coarse": {"subclasses": 20, "every": 5},
    },
    "omniglot": {
        "encoder": {"size": 28, "filters": 8},
        "split": {"fractions": [0.65, 0.05, 0.3]},
        "train": {"epochs": 30, "schedule": {"name": "restarts", "cycles": 3, "warmup": 0}, "augment": CROPS},
        "coarse": {"subclasses": 400, "every": 2},
    },
    "fashion": {
        "encoder": {"size": 28, "filters": 8},
        "train": {"epochs": 12, "schedule": {"name": "cosine", "warmup": 0}, "augment": CROPS},
        "coarse": {"subclasses": 20, "every": 1},
    },
    "grocery": {
        "encoder": {"name": "lite0", "size": 128},
        "train": {"trainable": "last", "epochs": 10, "optimizer": "adamw", "learning_rate": 5e-4, "weight_decay": 0.01},
        "coarse": {"subclasses": 98, "every": 1},  # 1.5 times the 65 kinds that frozen features have
    },
}
LINEAR = {"embedder": "linear"}
METHODS: dict[str, tuple[str, dict[str, object]]] = {
    "coarse": ("conditional", {}),
    "coarse+": ("scgm-g", {"weight": 0}),
    "coarse, embedder": ("conditional", LINEAR),
    "scgm-g": ("scgm-g", {}),
    "scgm-a": ("scgm-a", {}),
    "supcon": ("supcon", {}),
    "ancor": ("ancor", {}),
    "maskcon": ("maskcon", {}),
    "fine": ("conditional", {}),
    "fine, embedder": ("conditional", LINEAR),
    "frozen": ("", {}),
}
"""Method -> objective, and keys of the section coarse; with subclasses, those of the set beside them."""

FROZEN = {"name": "lite0", "size": 128, "taps": "none"}
RELEASED = {"scgm-g, as released": (True, True), "scgm-g, training mode": (True, False), "scgm-g, views": (False, True)}


def pack(name: str, args) -> Path:
    """A pack whose labels are the kinds and whose superlabels are what is learned."""
    path = args.work / f"coarse-{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    if name in FILES:
        return args.data / FILES[name]
    if name == "digits":
        digits, rng = load_digits(), np.random.default_rng(0)
        split = np.full(len(digits.target), "train", dtype="<U5")
        order = rng.permutation(len(split))
        split[order[:540]], split[order[540:640]] = "test", "val"
        parts = (digits.images * 255 / 16).astype(np.uint8), digits.target, split
        group, groups = parts[1] % 2, ("even", "odd")
    else:
        items = load_fashion_mnist().items
        rows = np.random.default_rng(0).permutation(len(items))
        learn = [row for row in rows if items[row].split == "train"][:FASHION_LEARN]
        chosen = learn + [row for row in rows if items[row].split == "test"][:FASHION_TEST]
        labels = sorted({str(item.label) for item in items})
        y = np.array([labels.index(str(items[row].label)) for row in chosen])
        split = np.array([items[row].split for row in chosen])
        split[np.arange(0, FASHION_LEARN, 10)] = "val"
        parts = np.stack([items[row].payload for row in chosen]), y, split
        group = np.array([next(g for g, own in enumerate(GROUPS) if str(kind) in own) for kind in y])
        groups = ("tops", "shoes", "others")
    image, y, split = parts
    names = np.array([f"kind {kind}" for kind in range(y.max() + 1)])
    np.savez(path, image=image, y=y, classes=names, coarse=group, coarse_classes=np.array(groups), split=split)
    return path


def recipe_of(name: str, method: str, root: Path, output: Path, seed: int, epochs: int | None = None) -> Recipe:
    """The recipe of a method; all but its own section is the same for every method."""
    given, (objective, own) = SETS[name], METHODS.get(method, ("scgm-g", {}))
    level = "label" if method.startswith("fine") else "superlabel"
    keys = {"data": {"kind": "npz", "root": str(root), "level": level}, "seed": seed, "output": str(output)}
    keys |= {"split": given["split"]} if "split" in given else {}
    if not objective:
        return resolve(keys | {"encoder": FROZEN})
    length = {} if epochs is None else {"epochs": epochs}
    coarse = (given["coarse"] if objective in FINDS_SUBCLASSES else {}) | own
    keys |= {"encoder": {"name": "cnn", "taps": "none"} | given["encoder"]} | ({"coarse": coarse} if coarse else {})
    return resolve(keys | {"train": SGD | given["train"] | {"objective": objective} | length})


@contextmanager
def released(training_mode: bool, views: bool) -> Iterator[None]:
    """An assignment as the release has it: batch norm in training mode, photos in random views."""
    kept = network_subclasses.evaluating, network_material.Material._loader
    if training_mode:
        network_subclasses.evaluating = lambda module: nullcontext()
    if views:
        network_material.Material._loader = lambda self, rows, _: kept[1](self, rows, True)
    try:
        yield
    finally:
        network_subclasses.evaluating, network_material.Material._loader = kept


def measured(name: str, output: Path) -> dict[str, float]:
    """Figures of a trained model by the kinds, which it has not seen."""
    model, recipe = bundle.from_pretrained(output), bundle.recipe_of(output)
    data = recipe.data.model_copy(update={"level": "label"})
    kinds = training_set.stored(recipe.model_copy(update={"data": data}), model.identity)
    learned, test = kinds.select_split("train"), kinds.select_split("test")
    material = fewshot.of_features(test, "0", 0)
    design = Design(DESIGN.way, DESIGN.shot, QUERY.get(name, DESIGN.query), DESIGN.episodes, DESIGN.seed)
    found = {}
    for protocol in ("intra", "allway", "nway"):
        made = fewshot.run(material, fewshot.drawn(material, protocol, design), ["cosine"])
        found[protocol] = 100 * made.results[0].mean
    unit = [part.embedding / np.linalg.norm(part.embedding, axis=1, keepdims=True) for part in (learned, test)]
    nearest = (unit[1] @ unit[0].T).argmax(1)
    found["knn"] = 100 * float(np.mean([learned.label[n] == own for n, own in zip(nearest, test.label, strict=True)]))
    found["class"] = 100 * json.loads((output / "metrics.json").read_text())["metrics"]["top1"]
    outside = kinds.select(np.array([split != "test" for split in kinds.split]))
    found |= of_kmeans(outside, int(SETS[name]["coarse"]["subclasses"]))
    return found | of_subclasses(output / "training" / SUBCLASS_FILE, dict(zip(kinds.id, kinds.label, strict=True)))


def of_kmeans(rows: Features, count: int) -> dict[str, float]:
    """How well clusters within each class agree with the kinds; classes share them by their number of photos."""
    classes, owner = np.unique(rows.superlabel, return_inverse=True)
    unit = rows.embedding / np.linalg.norm(rows.embedding, axis=1, keepdims=True)
    own, shares = np.zeros(len(owner), dtype=int), share_subclasses(torch.from_numpy(np.bincount(owner)), count)
    for c, share in enumerate(shares.tolist()):
        cluster = KMeans(share, n_init=3, random_state=0).fit_predict(unit[owner == c])
        own[owner == c] = cluster + len(classes) * count * c
    true = np.unique(rows.label, return_inverse=True)[1]
    own = np.unique(own, return_inverse=True)[1]
    return {"kmeans nmi": 100 * mutual_information(true, own), "kmeans purity": 100 * purity(true, own)}


def refitted(recipe: Recipe, output: Path) -> Path:
    """A model of the trained network, where the frozen one was kept."""
    keys = {"data": recipe.data.model_dump(mode="json", exclude_unset=True), "seed": recipe.seed}
    own = {"encoder": {"name": f"own:{output / 'training' / 'encoder'}", "taps": "none"}, "output": str(output / "own")}
    fit.run(resolve(keys | own))
    return output / "own"


def of_subclasses(path: Path, kind: dict[str, str]) -> dict[str, float]:
    """How well the subclasses of the training photos agree with their kinds."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    true = np.unique([kind[row["id"]] for row in rows], return_inverse=True)[1]
    own = np.unique([f"{row['class']}/{row['subclass']}" for row in rows], return_inverse=True)[1]
    return {
        "nmi": 100 * mutual_information(true, own),
        "purity": 100 * purity(true, own),
        "used": int(own.max()) + 1,
    }


def run(name: str, method: str, args, seed: int) -> dict[str, float]:
    """The figures of one training."""
    output = args.work / f"coarse-{name}-{method.replace(' ', '-')}-{seed}"
    shutil.rmtree(output, ignore_errors=True)
    recipe, began = recipe_of(name, method, pack(name, args), output, seed, args.epochs), time.process_time()
    with released(*RELEASED.get(method, (False, False))):
        made = (fit if recipe.train is None else train).run(recipe)
    kept = isinstance(made, train.TrainReport) and not made.training.replaced
    found = measured(name, refitted(recipe, output) if kept else output) | {
        "processor minutes": (time.process_time() - began) / 60
    }
    shutil.rmtree(output)
    return found


def summary(runs: dict[str, dict[str, float]]) -> dict[str, dict[str, object]]:
    """Mean and standard deviation over seeds of each figure, by set and method."""
    found: dict[str, dict[str, object]] = {}
    for key in sorted({key.rpartition(", seed")[0] for key in runs}):
        own = [one for name, one in runs.items() if name.rpartition(", seed")[0] == key]
        found[key] = {
            figure: {"mean": mean(values), "sd": stdev(values) if len(values) > 1 else None, "seeds": len(values)}
            for figure in own[0]
            for values in [[one[figure] for one in own if figure in one]]
        }
    return found


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], data=True)
    parser.add_argument("--only", nargs="*", default=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", default=[*METHODS])
    parser.add_argument("--epochs", type=int, help="of a trial, whose figures are printed and not kept")
    args = parser.parse_args()
    path = RESULTS / f"{NAME}.json"
    runs = json.loads(path.read_text())["runs"] if path.is_file() else {}
    for name in args.only:
        if name in FILES and args.data is None:
            continue
        for seed in args.seeds:
            for method in args.methods:
                key = f"{name}, {method}, seed {seed}"
                if key in runs and args.epochs is None:
                    continue
                runs[key] = run(name, method, args, seed)
                print(key, {figure: round(value, 1) for figure, value in runs[key].items()}, flush=True)
                if args.epochs is None:
                    write(NAME, {"settings": SETS, "figures": summary(runs), "runs": runs})


if __name__ == "__main__":
    main()
