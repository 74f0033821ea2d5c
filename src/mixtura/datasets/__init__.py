"""Data sets by name: each entry is a function ``load(root: Path | None, **options) -> Dataset``."""

DATASETS = {
    "folder": "mixtura.datasets.folder:load",
    "csv": "mixtura.datasets.listing:load",
    "npz": "mixtura.datasets.npz:load",
    "audio": "mixtura.datasets.audio_folder:load",
    "esc50": "mixtura.datasets.esc:load_esc50",
    "esc10": "mixtura.datasets.esc:load_esc10",
    "fashion-mnist": "mixtura.datasets.idx:load_fashion_mnist",
    "mnist": "mixtura.datasets.idx:load_mnist",
    "cifar10": "mixtura.datasets.cifar:load_cifar10",
    "cifar100": "mixtura.datasets.cifar:load_cifar100",
    "imagenet": "mixtura.datasets.imagenet:load",
    "omniglot-runs": "mixtura.datasets.omniglot_runs:load",
    "digits": "mixtura.datasets.digits:load",
    "demo": "mixtura.datasets.demo:load",
}

PROTOCOLS = {
    "nway": "mixtura.datasets.episodes:nway",
    "allway": "mixtura.datasets.episodes:allway",
    "intra": "mixtura.datasets.episodes:intra",
    "omniglot-runs": "mixtura.datasets.episodes:omniglot_runs",
}
"""How few-shot episodes are drawn: each entry is a function ``(Pool, Design) -> EpisodeList``."""

NEED_PATH = frozenset({"folder", "csv", "npz", "audio", "esc50", "esc10", "omniglot-runs", "features"})
"""Kinds of data that need a path, including a feature store ("features")."""

NAMED = tuple(name for name in DATASETS if name not in NEED_PATH)
"""The public data sets, which need only a name."""

BY_SUFFIX = {".csv": "csv", ".tsv": "csv", ".npz": "npz"}
"""Kinds of data that are one file, by its ending."""

OFFICIAL = {
    "esc50": ("meta/esc50.csv",),
    "cifar10": ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", "batches.meta.txt", "cifar-10-batches-py"),
    "cifar100": ("cifar-100-binary.tar.gz", "cifar-100-binary", "fine_label_names.txt", "cifar-100-python"),
    "imagenet": ("ILSVRC2012_devkit_t12",),
    "omniglot-runs": ("all_runs.zip", "run01"),
}
"""Names of official files and folders that identify a data set, either as the path itself or inside it."""
