"""Import torchvision beside a CPU-only torch.

The wheels of torchvision on PyPI link to CUDA. Beside a torch without CUDA their compiled part does not load, and then
the import fails with ``operator torchvision::nms does not exist``: https://github.com/pytorch/vision/issues/9085.
timm and transformers import torchvision, so they fail too. Only detection needs the two missing operators; declaring
their schemas is enough for everything else. Nothing happens where torchvision imports by itself.
"""

import importlib
import sys
import warnings
from types import ModuleType

import torch

from mixtura.errors import MissingExtra

_declared: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """The torchvision module, repaired if its compiled part does not load here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Failed to load image Python extension")
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            _forget("torchvision")
            _declare("nms", "qnms")
            return importlib.import_module("torchvision")


def import_timm() -> ModuleType:
    """The timm module, with the torchvision it needs."""
    import_torchvision()
    return importlib.import_module("timm")


def import_transformers() -> ModuleType:
    """The transformers module, with the torchvision it needs.

    Raises:
        MissingExtra: it is not installed.
    """
    import_torchvision()
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtra(
            f"Networks of Hugging Face need transformers ({error}). Run: pip install 'mixtura[hf]'"
        ) from error


def _forget(package: str) -> None:
    """Drop a half-imported package, so that the next import starts afresh."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


def _declare(*operators: str) -> None:
    """Declare the schemas; the library must stay alive as long as they are needed."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in operators:
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
