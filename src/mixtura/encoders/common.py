"""What encoders share: networks and copies to train, names, sizes, devices, hashes, and photos as tensors."""

import copy
import hashlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Num, UInt8
from PIL import Image
from torch import Tensor, nn

from mixtura.encoders import NAME_FORMS, WITH_WEIGHTS
from mixtura.encoders.sizes import size_of
from mixtura.errors import UsageError
from mixtura.files import is_folder_at
from mixtura.formats import reason_of
from mixtura.identity import IMPORTED_PREFIX, taps_of
from mixtura.names import require_allowed
from mixtura.sections import EncoderSection

_Network = TypeVar("_Network", bound=nn.Module)


class OwnNames(nn.Module):
    """A module around one ``network`` whose state has the network's own names.

    What is trained in it is saved as the network's library would save it, and loaded the same way.
    """

    network: nn.Module

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:
        """The state of the network."""
        return self.network.state_dict(*args, **options)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in [name for name in state_dict if name.startswith(prefix)]:
            state_dict[f"{prefix}network.{name.removeprefix(prefix)}"] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)


class Normalized(OwnNames):
    """A network behind the scaling of its input, (x - mean) / std by channel; both in units of bytes, 0 to 255."""

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.reshape(1, -1, 1, 1).clone(), persistent=False)
        self.register_buffer("std", std.reshape(1, -1, 1, 1).clone(), persistent=False)

    def forward(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "M D"]:
        """The vectors of a batch of prepared photos."""
        return self.network((batch.float() - self.get_buffer("mean")) / self.get_buffer("std")).float()


def to_train(network: nn.Module) -> nn.Module:
    """A copy of a frozen network that shares no tensor with it, in training mode, all of it to be trained."""
    return copy.deepcopy(network).train().requires_grad_(True)


def drawn(seed: int, build: Callable[[], _Network]) -> _Network:
    """What ``build`` makes with weights drawn from a seed, on the CPU; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def checked_start(weights: Path | None, seed: int | None, default: int = 0) -> int:
    """The seed from which a network begins, ``default`` where it is ``None``.

    Raises:
        UsageError: a weight file is given too.
    """
    if weights is not None and seed is not None:
        raise UsageError(f"A network begins with {weights} or with weights drawn from seed {seed}. Give one of them.")
    return default if seed is None else seed


def checked_dropout(share: float) -> float:
    """The share that training sets to zero.

    Raises:
        UsageError: it is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise UsageError(f"encoder.dropout {share:g} is out of range. Give a share of at least 0 and less than 1.")
    return float(share)


def split_name(name: str) -> tuple[str, dict[str, Any]]:
    """The key into ``ENCODERS`` and the further constructor arguments that an encoder's full name stands for.

    >>> split_name("lite0")
    ('lite0', {})
    >>> split_name("timm:resnet18")
    ('timm', {'model': 'resnet18'})
    >>> split_name("hf:./siglip")
    ('hf', {'model': './siglip'})
    >>> split_name("clap:models/clap")
    ('clap', {'model': 'models/clap'})
    >>> split_name("timm:resnet18@r.safetensors")[1]["weights"].name
    'r.safetensors'
    """
    key, _, model = name.partition(":")
    if key not in NAME_FORMS:
        return name, {}
    at, weights = "", ""
    if key in WITH_WEIGHTS:
        model, at, weights = model.partition("@")
    if not model or (at and not weights):
        raise UsageError(f"Encoder name {name!r} is incomplete. Write {', or '.join(NAME_FORMS[key])}.")
    return key, {"model": model} | ({"weights": Path(weights)} if weights else {})


def with_absolute_name(section: EncoderSection) -> EncoderSection:
    """The section with an absolute path where the encoder's name goes on with a weight file or a local folder."""
    kind, _, rest = section.name.partition(":")
    if kind not in NAME_FORMS:
        return section
    network, at, weights = rest.partition("@")
    if kind in WITH_WEIGHTS:
        rest = f"{network}{at}{Path(weights).absolute()}" if weights else rest
    elif rest.startswith((".", "~")) or is_folder_at(Path(rest)):
        rest = str(Path(rest).expanduser().absolute())
    return section.model_copy(update={"name": f"{kind}:{rest}"})


def is_outside_encoder(name: str) -> bool:
    """Whether a full name is ``package.module:Class``, and not an encoder of mixtura or one whose features came in.

    >>> [is_outside_encoder(name) for name in ("lite0", "timm:resnet18", "imported:clip", "mine.nets:Net")]
    [False, False, False, True]
    """
    return ":" in name and name.partition(":")[0] not in NAME_FORMS and not name.startswith(IMPORTED_PREFIX)


def require_allowed_encoder(name: str, place: object) -> None:
    """As :func:`mixtura.names.require_allowed`, for the full name of an encoder, where a colon may be mixtura's own.

    Raises:
        BundleError: the package of an outside encoder is not listed; nothing was imported.
    """
    if is_outside_encoder(name):
        require_allowed(name, place)


def checked_size(size: int | None, default: int, smallest: int = 1, largest: int = 4096) -> int:
    """The side in pixels: ``size``, or ``default`` where it is ``None``.

    Raises:
        UsageError: the side is not in [``smallest``, ``largest``].
    """
    side = default if size is None else size
    if not smallest <= side <= largest:
        raise UsageError(f"Encoder size {side} px is out of range. Give a side of {smallest} to {largest} pixels.")
    return side


def resolved(section: EncoderSection, identity: Mapping[str, str]) -> EncoderSection:
    """The section with its size and taps written out, read from the identity of the encoder that it has made.

    Defaults may change from release to release; and models from before taps say nothing of them.
    """
    size = size_of(identity) if section.size is None else section.size
    return section.model_copy(update={"size": size, "taps": taps_of(identity)})


def refuse_weights(name: str, weights: Path | None) -> None:
    """For encoders that have no weight file.

    Raises:
        UsageError: one is given.
    """
    if weights is not None:
        raise UsageError(f"Encoder {name!r} has no weight file, and {weights} was given. Leave the weights out.")


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its convolutions in channels-last memory, which is faster; the numbers stay."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def checked_device(device: str | torch.device) -> torch.device:
    """The device, once it is known to work here.

    Raises:
        UsageError: there is no such device.
    """
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"Device {str(device)!r} cannot be used: {reason_of(error)}. Use 'cpu', or 'cuda' where there is one."
        ) from error
    return found


def to_tensor(image: Image.Image) -> UInt8[Tensor, "3 H W"]:
    """An RGB photo as bytes, channels first (a view: the memory stays channels last, as convolutions like it)."""
    return torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB"))).permute(2, 0, 1)


def squash(image: Image.Image, side: int) -> Image.Image:
    """The whole photo as ``side`` x ``side`` pixels: bicubic, antialiased, aspect ratio not kept."""
    if image.size == (side, side):
        return image
    return image.resize((side, side), Image.Resampling.BICUBIC)


def squash_steps(side: int) -> list[dict[str, Any]]:
    """What :func:`squash` does, as plain values."""
    return [{"step": "resize", "size": [side, side], "filter": "bicubic"}]


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 (hex) of names, shapes, number formats and bytes: the same weights in another file hash the same."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def library_versions(*packages: str) -> dict[str, str]:
    """The installed versions of ``packages``, and of those that every encoder rests on."""
    return {package: version(package) for package in ("torch", "pillow", *packages)}
