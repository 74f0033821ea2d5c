"""Does training on episodes of six alphabets help on characters of two others, against a frozen pretrained encoder?

    python benchmarks/protonet_omniglot.py --data DATA [--seeds 3] [--epochs N]

Each seed trains ``recipes/protonet-omniglot.yaml`` from scratch. Then 1,000 episodes (20-way, 1 shot, 15 queries) of
the two alphabets that are in no step of training, and the official 20 runs of Omniglot, whose characters are of a third
set of alphabets, are classified by nearest prototypes of its features as they are, which is what it was trained for,
and by classifiers of ``mixtura fewshot``. The frozen encoder is lite0 at two sizes, by the same classifiers and on the
same episodes. Figures are percent. Writes benchmarks/results/protonet_omniglot.json.
"""

import shutil
import time
from pathlib import Path
from statistics import mean, stdev

from common import arguments, write

from mixtura.datasets.episodes import Design
from mixtura.features.store import FeatureStore
from mixtura.recipe import load_recipe, resolve
from mixtura.sections import DataSection, EncoderSection
from mixtura.tasks import extract, fewshot, train
from mixtura.tasks.few_shot_classifiers import Material

RECIPE = Path(__file__).parents[1] / "recipes" / "protonet-omniglot.yaml"
DESIGN = Design(way=20, shot=1, query=15, episodes=1000, seed=0)
FROZEN_SIZES = (64, 96)
PLAIN = ("raw-prototype", "prototype", "logistic")
PUBLISHED = {
    "not comparable": "trained on 30 alphabets (964 characters)",
    "source": "Lake, Salakhutdinov and Tenenbaum, The Omniglot challenge: a 3-year progress report, 2019",
}


def accuracies(material: Material, protocol: str, names) -> dict[str, dict[str, float]]:
    """Mean accuracy of each classifier, and half its 95% interval over episodes, in percent."""
    found = fewshot.run(material, fewshot.drawn(material, protocol, DESIGN), names)
    return {one.classifier: {"accuracy": 100 * one.mean, "half": 50 * (one.high - one.low)} for one in found.results}


def runs_error(material: Material, names) -> dict[str, float]:
    """The error rate of each classifier on the official runs, in percent."""
    return {name: 100 - one["accuracy"] for name, one in accuracies(material, "omniglot-runs", names).items()}


def frozen(args, size: int) -> dict[str, object]:
    """The figures of lite0 as it is."""
    stores = {}
    for name, keys in {"pack": pack_keys(args), "runs": runs_keys(args)}.items():
        recipe = resolve(keys | {"encoder.size": size, "extract.store": str(args.work / f"omniglot-{name}-{size}")})
        extract.run(recipe)
        stores[name] = FeatureStore.open(recipe.extract.store).read()
    left_out = [name for name in stores["pack"].classes if name.startswith(tuple(novel_alphabets()))]
    material = Material(fewshot._of(stores["pack"], left_out), None, recipe, EncoderSection())
    runs = fewshot.of_features(stores["runs"], "0", 0)
    return {"two alphabets": accuracies(material, "nway", PLAIN), "runs error": runs_error(runs, PLAIN)}


def novel_alphabets() -> list[str]:
    """How the names of the classes begin that the recipe leaves out."""
    return [pattern.removesuffix("*") for pattern in load_recipe(RECIPE).data.unknown]


def pack_keys(args) -> dict[str, object]:
    return {"data.kind": "npz", "data.root": str(args.data / "omniglot" / "omniglot_small_8alphabets.npz")}


def runs_keys(args) -> dict[str, object]:
    return {"data.kind": "omniglot-runs", "data.root": str(args.data / "omniglot" / "all_runs.zip")}


def trained(args, seed: int) -> dict[str, object]:
    """The figures of a network that is trained with a seed."""
    output = args.work / f"protonet-omniglot-{seed}"
    shutil.rmtree(output, ignore_errors=True)
    keys = {"data.root": pack_keys(args)["data.root"], "output": str(output), "seed": seed}
    keys |= {} if args.epochs is None else {"train.epochs": args.epochs}
    began, used = time.perf_counter(), time.process_time()
    made = train.run(resolve(keys, RECIPE))
    times = {"minutes": (time.perf_counter() - began) / 60, "processor minutes": (time.process_time() - used) / 60}
    runs = DataSection(kind="omniglot-runs", root=Path(runs_keys(args)["data.root"]))
    names = [*PLAIN, "gaussian"]
    epochs = made.course.parts[0].epochs
    return times | {
        "epochs": len(epochs),
        "outcome": made.training.outcome,
        "two alphabets": accuracies(fewshot.of_model(output), "nway", names),
        "runs error": runs_error(fewshot.of_model(output, runs), names),
    }


def spread(values: list[float]) -> dict[str, float | None]:
    return {"mean": mean(values), "sd over seeds": stdev(values) if len(values) > 1 else None}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], data=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="other than those of the recipe")
    args = parser.parse_args()
    rivals = {f"lite0 at {size} px": frozen(args, size) for size in FROZEN_SIZES}
    best = max(one["accuracy"] for rival in rivals.values() for one in rival["two alphabets"].values())
    runs = []
    for seed in range(args.seeds):
        runs.append(trained(args, seed))
        print(seed, runs[-1], flush=True)
        own = [run["two alphabets"]["raw-prototype"]["accuracy"] for run in runs]
        record = {
            "recipe": RECIPE.name,
            "protocol": "20-way, 1 shot, 15 queries, 1,000 episodes of two alphabets",
            "accuracy, nearest prototypes": spread(own),
            "points above the best of the frozen encoder": spread([one - best for one in own]),
            "error rate of the official 20 runs": spread([run["runs error"]["raw-prototype"] for run in runs]),
            "published": PUBLISHED,
            "frozen": rivals,
            "runs": runs,
        }
        write("protonet_omniglot", record)


if __name__ == "__main__":
    main()
