"""Any image network of timm as an encoder, with its own preprocessing and, if need be, weights from a local file."""

import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Num, UInt8
from PIL import Image
from torch import Tensor, nn

from mixtura.encoders.common import (
    Normalized,
    channels_last,
    checked_device,
    checked_size,
    checked_start,
    drawn,
    hash_tensors,
    library_versions,
    to_train,
)
from mixtura.encoders.taps import Positions, Tapped, later_stages, layers_of, settled
from mixtura.encoders.torchvision_repair import import_timm
from mixtura.encoders.weights import load_tensors, read_tensors
from mixtura.errors import DataError, NoInput, UnknownName, UsageError
from mixtura.formats import reason_of
from mixtura.identity import DRAWN_STEM, NO_TAPS, UNTRAINED, Block, fingerprint, with_blocks, with_options

_DATA_KEYS = ("interpolation", "mean", "std", "crop_pct", "crop_mode")
SMALL_SIZE = 32  # pixels a side
SMALL_FACTOR = 4  # the usual stem makes a position of 4 x 4 pixels


class Timm:
    """A network of timm, without its last layer.

    Photos are resized, cropped and scaled as the network's own data configuration says.

    Args:
        model: a name that ``timm.list_models()`` knows, with or without a tag.
        size: side in pixels; the network's own unless given.
        weights: a ``.safetensors`` or ``.pth`` file in timm's format; the published weights (from the hub, or from its
            cache) unless given.
        device: where the network runs.
        taps: layers whose averages and deviations follow the vector; see :mod:`mixtura.encoders.taps`.
        stem: ``small`` begins a ResNet with a 3 x 3 convolution of stride 1 and no maximum, for pictures under 64 px;
            its size is 32 px unless given. With published weights, or a file of the usual network, the stem is drawn
            and all behind it has these; ``init`` in the identity says so.
        seed: to draw the weights from instead; such a network is to be trained.

    Raises:
        UnknownName: timm has no such network, or the network no such layer to tap.
        UsageError: the network does not take photos of this size, gives no vector, or the taps do not fit.
        NoInput: the weights are missing, or cannot be fetched.
        DataError: the weights do not fit the network.
    """

    def __init__(
        self,
        model: str,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        taps: str = NO_TAPS,
        stem: str | None = None,
        seed: int | None = None,
    ) -> None:
        timm = import_timm()
        self.name, self.timm_name = f"timm:{model}", None if stem else model
        self.device = checked_device(device)
        size = SMALL_SIZE if size is None and stem else size
        side = None if size is None else checked_size(size, default=size)
        begin = checked_start(weights, seed)
        self._shrink = SMALL_FACTOR if stem else 1
        network, init = _create(_Wanted(model, side, weights, begin if seed is not None else None, stem))
        data = timm.data.resolve_model_data_config(network)
        if side is not None:
            data["input_size"] = (3, side, side)
        self._data = data
        self._prepare: Callable[[Image.Image], Any] = timm.data.create_transform(**data, use_prefetcher=True)
        height, width = data["input_size"][1:]
        self.draft = 2 * max(height, width)
        identity = {
            "name": self.name,
            "size": f"{height} x {width} px",
            "weights": hash_tensors(network.state_dict()),
            "preprocessing": f"timm {json.dumps({key: data[key] for key in _DATA_KEYS})}; JPEG draft {self.draft} px",
            "dtype": "float32",
        }
        identity = with_options(identity, {"stem": stem} if stem else {}) | ({UNTRAINED: init} if init else {})
        self.versions = library_versions("timm")
        self._network = channels_last(network.to(self.device))
        self._mean = 255 * torch.tensor(data["mean"], device=self.device).reshape(1, 3, 1, 1)
        self._std = 255 * torch.tensor(data["std"], device=self.device).reshape(1, 3, 1, 1)
        self.dimension = self._measure(height, width)
        blocks = self._tap(taps, network, torch.zeros(1, 3, height, width, device=self.device))
        self.identity = with_blocks(identity, blocks)
        self.fingerprint = fingerprint(self.identity)

    def prepare(self, image: Image.Image) -> UInt8[Tensor, "3 H W"]:
        """The photo resized and cropped as the network wants it, as bytes."""
        return torch.as_tensor(self._prepare(image if image.mode == "RGB" else image.convert("RGB")))

    @torch.inference_mode()
    def encode(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of prepared photos, float32, on the CPU."""
        x = batch.to(device=self.device, memory_format=torch.channels_last).sub(self._mean).div_(self._std)
        return self._network(x).float().cpu()

    def network(self) -> nn.Module:
        """A fresh network to train, as timm builds it, with its scaling; a copy in memory."""
        return Normalized(to_train(self._network), self._mean, self._std)

    def graph(self) -> nn.Module:
        """The network with its scaling, as a module that can be traced."""
        return Normalized(self._network, self._mean, self._std)

    def steps(self) -> list[dict[str, Any]]:
        """What ``prepare`` does, as plain values.

        Raises:
            UsageError: it does something that has no plain words: borders, or photos that are not square.
        """
        height, width = self._data["input_size"][1:]
        scaled = math.floor(height / (self._data["crop_pct"] or 0.875))
        shapes = {"squash": {"size": [scaled, scaled]}, "center": {"shortest": scaled}}
        shape = shapes.get(self._data["crop_mode"] or "center")
        if shape is None or height != width:
            raise UsageError(f"{self.name} prepares photos in a way that cannot be exported. Choose another network.")
        resize = {"step": "resize", **shape, "filter": self._data["interpolation"]}
        return [resize, {"step": "crop", "size": [height, width]}]

    def _measure(self, height: int, width: int) -> int:
        """The length of a vector, from one run on an empty photo."""
        try:
            with torch.inference_mode():
                shape = self._network(torch.zeros(1, 3, height, width, device=self.device)).shape
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UsageError(f"{self.name} cannot take {height} x {width} px: {error}. Leave the size out.") from error
        if len(shape) != 2:
            raise UsageError(f"{self.name} gives {tuple(shape[1:])} a photo, not one vector. Choose another network.")
        return shape[1]

    def _tap(self, taps: str, network: nn.Module, photo: Tensor) -> tuple[Block, ...]:
        """Put the taps into the network; return the blocks of its vectors."""
        listed = _listed(network)
        self.stages = tuple(listed)
        stages = [(name, max(1, one["reduction"] // self._shrink)) for name, one in listed.items()]
        known = [name for name, _ in network.named_modules() if name]
        layers = layers_of(taps, self.name, known, list(listed), later_stages(stages))
        made = Tapped(network, network, layers, _positions(network, stages, photo))
        channels = {name: one["num_chs"] for name, one in listed.items()}
        self._network, blocks = settled(taps, made, photo, channels)
        self.dimension = blocks[-1].stop if blocks else self.dimension
        return blocks


def _listed(network: nn.Module) -> dict[str, dict[str, Any]]:
    """What timm lists of the stages: module -> its channels and its reduction of the photo; empty without a list."""
    modules, info = dict(network.named_modules()), getattr(network, "feature_info", None)
    stages = [one for one in info if isinstance(one, dict)] if isinstance(info, list) else []
    return {one["module"]: one for one in stages if one.get("module") in modules and {"reduction", "num_chs"} <= {*one}}


def _positions(network: nn.Module, stages: Sequence[tuple[str, int]], photo: Tensor) -> Positions:
    """How the network lays out its maps or tokens; class and register tokens come before those of the patches."""
    channels_last = getattr(network, "output_fmt", None) == "NHWC"
    prefix = int(getattr(network, "num_prefix_tokens", 0))
    side = max((reduction for _, reduction in stages), default=1)
    patches = (photo.shape[2] // side) * (photo.shape[3] // side) if prefix and stages else 0
    return Positions(channels_last, prefix, patches)


@dataclass(frozen=True)
class _Wanted:
    """A network to be made: its side in pixels, its weight file or a seed, and its stem, where they are given."""

    model: str
    size: int | None
    weights: Path | None
    seed: int | None
    stem: str | None


def _create(wanted: _Wanted) -> tuple[nn.Module, str]:
    """The network in eval mode, without its last layer, and what of it is drawn."""
    timm, model, size = import_timm(), wanted.model, wanted.size
    if not timm.is_model(model.partition(".")[0]):
        close = difflib.get_close_matches(model, timm.list_models(), n=3)
        hint = f"Near: {', '.join(close)}." if close else "See timm.list_models()."
        raise UnknownName(f"timm has no network {model!r}. {hint}")
    architecture = timm.get_pretrained_cfg(model, allow_unregistered=False)
    other = size is not None and (size, size) != tuple(getattr(architecture, "input_size", ()))[1:]
    fixed = {"img_size": size} if other and getattr(architecture, "fixed_input_size", False) else {}
    network, init = _built(wanted, fixed), "" if wanted.seed is None else f"seed {wanted.seed}"
    small = None if wanted.stem is None else _small_stem(network, model, wanted.seed or 0)
    if wanted.weights is not None:
        tensors = read_tensors(wanted.weights)
        if small is not None and not _is_of(network.conv1, tensors):
            network.conv1, small = small, None
        _load(network, tensors, wanted.weights, f"timm:{model} cannot read photos at {size} px" if fixed else "")
    if small is not None:
        network.conv1, init = small, init or f"{DRAWN_STEM} 0"
    if wanted.stem is not None:
        network.maxpool = nn.Identity()
    return network.eval().requires_grad_(False), init


def _built(wanted: _Wanted, fixed: dict[str, Any]) -> Any:
    """The network with its published weights, or with drawn ones where a seed or a file is given."""
    published = wanted.weights is None and wanted.seed is None
    try:
        return drawn(
            wanted.seed or 0,
            lambda: import_timm().create_model(wanted.model, pretrained=published, num_classes=0, **fixed),
        )
    except (RuntimeError, OSError, AssertionError, ValueError) as error:
        raise NoInput(
            f"The published weights of {wanted.model!r} cannot be had: {reason_of(error)}. "
            f"Give a local file: timm:{wanted.model}@weights.safetensors."
        ) from error


def _load(network: Any, tensors: Mapping[str, Tensor], weights: Path, unread: str) -> None:
    """Load a file's tensors, with or without the last layer; ``unread`` begins an error that the size may cause."""
    last = network.pretrained_cfg.get("classifier") or ()
    try:
        load_tensors(network, tensors, weights, spare=(last,) if isinstance(last, str) else last)
    except DataError as error:
        if not unread:
            raise
        raise DataError(f"{unread} with these weights; leave the size out. {error}") from error


def _small_stem(network: Any, model: str, seed: int) -> nn.Conv2d:
    """The 3 x 3 convolution at full size with which a ResNet is to begin.

    Raises:
        UsageError: it does not begin with one convolution and a maximum.
    """
    first = getattr(network, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not isinstance(getattr(network, "maxpool", None), nn.MaxPool2d):
        raise UsageError(f"encoder.stem small is for ResNets of timm, and {model!r} is none. Leave it out.")
    return drawn(seed, lambda: nn.Conv2d(first.in_channels, first.out_channels, 3, 1, 1, bias=first.bias is not None))


def _is_of(first: nn.Conv2d, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file is of the usual network, by the shape of its first convolution."""
    return "conv1.weight" in tensors and tensors["conv1.weight"].shape == first.weight.shape
