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
    "digits": "mixtura.datasets.digits:load",
    "demo": "mixtura.datasets.demo:load",
}
