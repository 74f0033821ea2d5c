"""Do the features of an autoencoder group photos better than their pixels do?

Fashion-MNIST, 4,000 pictures of its training part. The autoencoder is trained by reconstruction, without labels;
then the features of the pictures that it was not trained on, and the pixels of the same pictures, are clustered by the
same code: unit length, at most 16 principal components, ten clusters. Labels only measure.

    python benchmarks/cluster_autoencoder.py --work STORES
"""

import shutil
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from common import arguments, write

from mixtura.datasets.idx import FASHION_MNIST, find_folder, read_idx
from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.recipe import resolve
from mixtura.tasks import extract, train
from mixtura.tasks.cluster import run

CLUSTERS, METHODS = 10, ("mixture", "kmeans")
ENCODER = {"encoder.name": "autoencoder", "encoder.size": 32, "encoder.filters": 64, "encoder.taps": "none"}
TRAINING = {
    "train.objective": "reconstruction",
    "train.batch_size": 64,
    "train.learning_rate": 3e-3,
    "train.augment.views": [],
    "extract.workers": 0,
}


def pack(path: Path, count: int) -> Path:
    """Pictures of the training part, a quarter of them for validation and a quarter for the test."""
    folder = find_folder(FASHION_MNIST, None)
    images, labels = (read_idx(folder, file) for file in FASHION_MNIST.files["train"])
    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    split = np.array(["train", "val", "train", "test"])[np.arange(count) % 4]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, image=images[chosen], y=labels[chosen], classes=np.array(FASHION_MNIST.classes), split=split)
    return path


def agreement(features: Features, seed: int) -> dict[str, dict[str, float]]:
    """Adjusted Rand index and normalized mutual information with the labels, by method."""
    found = {method: run(features, method, CLUSTERS, seed) for method in METHODS}
    return {method: {"ARI": made.rand or 0.0, "NMI": made.information or 0.0} for method, made in found.items()}


def test_part(store: Path) -> Features:
    return FeatureStore.open(store).read().select_split("test")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    data = {"data.kind": "npz", "data.root": str(pack(given.work / "cluster.npz", given.count))}
    stores = {"pixels": given.work / "cluster-pixels"}
    shutil.rmtree(stores["pixels"], ignore_errors=True)
    extract.run(resolve(data | {"encoder.name": "pixels", "encoder.size": 28, "extract.store": stores["pixels"]}))
    runs: dict[str, list[dict[str, dict[str, float]]]] = {}
    for seed in range(given.seeds):
        folder = given.work / f"cluster-autoencoder-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        keys = {"output": folder, "seed": seed, "train.epochs": given.epochs}
        train.run(resolve(data | ENCODER | TRAINING | keys))
        for name, store in (stores | {"autoencoder": folder / "features"}).items():
            runs.setdefault(name, []).append(agreement(test_part(store), seed))
            print(f"seed {seed}  {name:12} {runs[name][-1]}", flush=True)
    mean = {
        f"{name}, {method}": {
            figure: {"mean": statistics.fmean(values), "deviation": statistics.pstdev(values)}
            for figure in ("ARI", "NMI")
            for values in [[one[method][figure] for one in own]]
        }
        for name, own in runs.items()
        for method in METHODS
    }
    settings = {"count": given.count, "epochs": given.epochs, "seeds": given.seeds, "clusters": CLUSTERS}
    record = {"settings": settings, "minutes": (time.perf_counter() - began) / 60, "figures": mean, "runs": runs}
    write("cluster_autoencoder", record)


if __name__ == "__main__":
    main()
