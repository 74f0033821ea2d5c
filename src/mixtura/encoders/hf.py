"""Image towers of Hugging Face as encoders: CLIP, SigLIP, DINOv2, DINOv3 and ViT, from the hub or a local folder.

Sources: Radford et al., CLIP (ICML 2021); Zhai et al., SigLIP (ICCV 2023); Tschannen et al., SigLIP 2 (2025); Oquab et
al., DINOv2 (TMLR 2024); Siméoni et al., DINOv3 (2025); Dosovitskiy et al., ViT (ICLR 2021).
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Num
from PIL import Image
from torch import Tensor, nn

from mixtura.encoders.common import (
    OwnNames,
    checked_device,
    checked_size,
    checked_start,
    drawn,
    hash_tensors,
    library_versions,
    to_train,
)
from mixtura.encoders.taps import Positions, Tapped, later_stages, layers_of, settled
from mixtura.encoders.torchvision_repair import import_transformers
from mixtura.encoders.weights import load_weights
from mixtura.errors import DataError, NoInput, UsageError
from mixtura.files import is_file_at, is_folder_at
from mixtura.formats import reason_of
from mixtura.identity import NO_TAPS, UNTRAINED, Block, fingerprint, with_blocks


@dataclass(frozen=True)
class Tower:
    """How one architecture is built and which of its outputs is the vector of a photo.

    ``output`` names a field, or the class token of the last layer where it is ``None``; ``interpolate`` says that other
    sizes than the network's own must be asked for; ``options`` are those of ``from_pretrained``.
    """

    network: str
    output: str | None
    about: str
    interpolate: bool = True
    options: tuple[str, ...] = ()


_CLIP = Tower("CLIPVisionModelWithProjection", "image_embeds", "projected class token")
_SIGLIP = Tower("SiglipVisionModel", "pooler_output", "attention pooling")
TOWERS = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "dinov2": Tower("Dinov2Model", "pooler_output", "normalized class token", interpolate=False),
    "dinov2_with_registers": Tower(
        "Dinov2WithRegistersModel", "pooler_output", "normalized class token", interpolate=False
    ),
    "dinov3_vit": Tower("DINOv3ViTModel", "pooler_output", "normalized class token", interpolate=False),
    "vit": Tower("ViTModel", None, "normalized class token", options=("add_pooling_layer",)),
}
"""What ``model_type`` in a network's config.json stands for."""

_CONFIG, _PROCESSOR = "config.json", "preprocessor_config.json"
_KEYS = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)


class HuggingFace:
    """A network of transformers with its own image processor; the vector is not scaled to unit length.

    For CLIP it is the projected embedding, which is what CLIP compares with texts; for SigLIP the attention-pooled
    one; for DINO and ViT the class token after the last normalization. Networks that take photos of any shape (NaFlex)
    are not read.

    Args:
        model: a name of the hub, or a folder that ``save_pretrained`` has written, with its image processor.
        size: side in pixels; the network's own unless given. Position embeddings are interpolated to another one.
        weights: a file of what :meth:`network` has become; the network's own unless given.
        device: where the network runs.
        taps: layers whose averages and deviations over the patches follow the vector, by their names as modules of
            the network; see :mod:`mixtura.encoders.taps`.
        seed: to draw the weights from instead; such a network is to be trained. With weights or a seed, the folder
            needs no weights of its own.

    Raises:
        MissingExtra: transformers is not installed.
        NoInput: there is no such network, neither in a folder nor on the hub (HF_HUB_OFFLINE=1 keeps to its cache).
        UnknownName: there is no such layer to tap.
        UsageError: an architecture that is not in :data:`TOWERS`, a size that the network cannot take, or taps that
            do not fit.
        DataError: the weights do not fit the network.
    """

    def __init__(
        self,
        model: str,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        taps: str = NO_TAPS,
        seed: int | None = None,
    ) -> None:
        self.name = f"hf:{model}"
        self.device = checked_device(device)
        begin = None if weights is None and seed is None else checked_start(weights, seed)
        side = None if size is None else checked_size(size, default=size)
        with _quiet(import_transformers()) as transformers:
            tower, network, self._processor = _open(transformers, model, begin)
        self.files = {
            _CONFIG: json.dumps(_without_place(network.config.to_json_string(use_diff=False)), indent=2),
            _PROCESSOR: self._processor.to_json_string(),
        }
        if weights is not None:
            load_weights(network, weights)
        own = _resize(self._processor, side) if side is not None else False
        options = {"interpolate_pos_encoding": True} if tower.interpolate and own else {}
        height, width = _input_size(self._processor)
        self.draft = 2 * max(_shortest(self._processor), height, width)
        made = {key: _plain(getattr(self._processor, key, None)) for key in _KEYS}
        identity = {
            "name": self.name,
            "size": f"{height} x {width} px",
            "weights": hash_tensors(network.state_dict()),
            "preprocessing": f"{self._processor.backend} {json.dumps(made)}; JPEG draft {self.draft} px; "
            f"vector: {tower.about} of {tower.network}",
            "dtype": "float32",
        }
        identity |= {} if seed is None else {UNTRAINED: f"seed {seed}"}
        self.versions = library_versions("transformers")
        self._network = _Vectors(network, tower.output, options).to(self.device)
        self.dimension = self._measure(height, width)
        blocks = self._tap(taps, network, torch.zeros(1, 3, height, width, device=self.device))
        self.identity = with_blocks(identity, blocks)
        self.fingerprint = fingerprint(self.identity)

    def prepare(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        """The photo as the network's own processor makes it ready."""
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return torch.as_tensor(self._processor(images=rgb, return_tensors="pt")["pixel_values"][0]).float()

    @torch.inference_mode()
    def encode(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of prepared photos, float32, on the CPU."""
        return self._network(batch.to(self.device)).cpu()

    def network(self) -> nn.Module:
        """A fresh network to train, as transformers builds it; a copy in memory.

        Mask tokens, which only pre-training uses, stay frozen: no vector depends on them.
        """
        network = to_train(self._network)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not name.endswith("mask_token"))
        return network

    def _measure(self, height: int, width: int) -> int:
        """The length of a vector, from one run on an empty photo."""
        try:
            return self.encode(torch.zeros(1, 3, height, width)).shape[1]
        except (RuntimeError, ValueError, IndexError) as error:
            raise UsageError(
                f"{self.name} cannot take {height} x {width} px: {reason_of(error)}. Leave the size out."
            ) from error

    def _tap(self, taps: str, network: Any, photo: Tensor) -> tuple[Block, ...]:
        """Put the taps into the network; return the blocks of its vectors."""
        stages = _layers(network)
        self.stages = tuple(stages)
        known = [name for name, _ in network.named_modules() if name]
        layers = layers_of(taps, self.name, known, stages, later_stages([(name, 1) for name in stages]))
        made = Tapped(self._network, network, layers, _positions(network, photo))
        self._network, blocks = settled(taps, made, photo)
        self.dimension = blocks[-1].stop if blocks else self.dimension
        return blocks


def _layers(network: Any) -> list[str]:
    """The layers whose outputs transformers calls the hidden states."""
    count = network.config.num_hidden_layers
    lists = (name for name, module in network.named_modules() if isinstance(module, nn.ModuleList))
    found = next((name for name in lists if len(network.get_submodule(name)) == count), None)
    return [] if found is None else [f"{found}.{place}" for place in range(count)]


def _positions(network: Any, photo: Tensor) -> Positions:
    """A class token, if any, and registers come before the patches."""
    side = network.config.patch_size
    registers = getattr(network.config, "num_register_tokens", 0)
    return Positions(prefix=1 + registers, patches=(photo.shape[2] // side) * (photo.shape[3] // side))


class _Vectors(OwnNames):
    """A network of transformers from prepared photos to what is read of its outputs."""

    def __init__(self, network: nn.Module, output: str | None, options: dict[str, bool]) -> None:
        super().__init__()
        self.network, self.output, self.options = network, output, options

    def forward(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "M D"]:
        """The vectors of a batch of prepared photos."""
        made = self.network(pixel_values=batch.float(), **self.options)
        return (made.last_hidden_state[:, 0] if self.output is None else made[self.output]).float()


def _open(transformers: Any, model: str, seed: int | None) -> tuple[Tower, Any, Any]:
    """The architecture, the network in eval mode and the image processor; the weights drawn where a seed is given."""
    local = model.startswith((".", "/", "~")) or is_folder_at(Path(model))
    place = str(Path(model).expanduser()) if local else model
    if local and not is_file_at(Path(place) / _CONFIG):
        raise NoInput(f"{model} is no folder with a network: {_CONFIG} is missing. Check the path.")
    try:
        config = transformers.AutoConfig.from_pretrained(place, local_files_only=local)
        if config.model_type not in TOWERS:
            raise UsageError(f"{model} is a network of kind {config.model_type!r}. Known: {', '.join(TOWERS)}.")
        tower = TOWERS[config.model_type]
        processor = transformers.AutoImageProcessor.from_pretrained(place, backend="pil", local_files_only=local)
        make, options = getattr(transformers, tower.network), dict.fromkeys(tower.options, False)
        if seed is not None:
            return tower, _drawn(make, config, options, seed), processor
        network, told = make.from_pretrained(
            place, dtype=torch.float32, output_loading_info=True, local_files_only=local, **options
        )
    except UsageError:
        raise
    except Exception as error:  # the hub, its client and damaged files raise anything
        said = " ".join(str(error).split()).partition(". ")[0][:200].rstrip(".") or type(error).__name__
        raise NoInput(
            f"The network {model!r} cannot be had: {said}. Give a folder with {_CONFIG}, model.safetensors and "
            f"{_PROCESSOR}, as hf:./folder, or check the name and the network."
        ) from error
    missing = sorted(told["missing_keys"])
    if missing:
        raise DataError(
            f"The weights of {model} lack {len(missing)} tensors, the first {missing[0]!r}. Get the whole network."
        )
    return tower, network.eval().requires_grad_(False), processor


def _without_place(config: str) -> dict[str, Any]:
    """A configuration as plain values, without the folder or the name that it was read from."""
    return {key: value for key, value in json.loads(config).items() if key != "_name_or_path"}


def _drawn(make: Any, config: Any, options: dict[str, bool], seed: int) -> Any:
    """The network with drawn weights; of a configuration of two towers, that of photos."""
    kind = make.config_class
    own = config if isinstance(config, kind) else config.vision_config
    return drawn(seed, lambda: make(own, **options).float()).eval().requires_grad_(False)


def _resize(processor: Any, side: int) -> bool:
    """Set the processor to another side, the margin around the crop kept in proportion; whether it was another."""
    height, width = _input_size(processor)
    if height == width == side:
        return False
    scaled = round(_shortest(processor) * side / min(height, width))
    squash = "height" in _plain(processor.size)
    larger = {"height": scaled, "width": scaled} if squash else {"shortest_edge": scaled}
    processor.size = type(processor.size)(**larger)
    if getattr(processor, "do_center_crop", None):
        processor.crop_size = type(processor.crop_size)(height=side, width=side)
    return True


def _input_size(processor: Any) -> tuple[int, int]:
    """Height and width of what the processor makes, in pixels.

    Raises:
        UsageError: they depend on the photo.
    """
    size = _plain(processor.crop_size if getattr(processor, "do_center_crop", None) else processor.size)
    if not {"height", "width"} <= set(size):
        raise UsageError(f"The image processor gives photos of many shapes ({size}). Choose a network of one size.")
    return size["height"], size["width"]


def _shortest(processor: Any) -> int:
    """The side in pixels to which the processor resizes."""
    size = _plain(processor.size)
    return int(size.get("shortest_edge") or min(size["height"], size["width"]))


def _plain(value: Any) -> Any:
    """A setting of a processor as JSON can hold it; of a size, what is set."""
    if value is None or isinstance(value, bool | int | float | str | list | tuple):
        return value
    return {key: number for key, number in dict(value).items() if number is not None}


@contextmanager
def _quiet(transformers: Any) -> Iterator[Any]:
    """Keep transformers from drawing bars and from telling what else a file holds, and the hub from its tries."""
    told, hub = transformers.utils.logging, logging.getLogger("huggingface_hub")
    level, bars, hub_level = told.get_verbosity(), told.is_progress_bar_enabled(), hub.level
    told.set_verbosity_error()
    told.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        yield transformers
    finally:
        told.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            told.enable_progress_bar()
