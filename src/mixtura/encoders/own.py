"""A trained encoder in a folder, as an encoder for every other task: its weights and a description of its network.

An autoencoder has the weights of its decoder there too, and a network that was trained below an embedder those of that.

The folder is enough: neither the hub nor the files that the network began with are asked again, and it may be moved.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Num
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load, save
from torch import Tensor, nn

from mixtura import files
from mixtura.encoders import ENCODERS
from mixtura.encoders.common import require_allowed_encoder, split_name
from mixtura.encoders.sizes import size_of
from mixtura.encoders.stages import bare
from mixtura.encoders.taps import AUTO
from mixtura.errors import BundleError, UsageError
from mixtura.files import is_folder_at
from mixtura.identity import fingerprint, options_of, taps_of
from mixtura.interfaces import Encoder, ExportableEncoder, TrainableEncoder
from mixtura.names import find
from mixtura.sections import EncoderSection

WEIGHTS_FILE, DESCRIPTION_FILE = "encoder.safetensors", "encoder.json"
DECODER_FILE, EMBEDDER_FILE = "decoder.safetensors", "embedder.safetensors"
PARTNERS = {"decoder": DECODER_FILE, "embedder": EMBEDDER_FILE}
"""What may have been trained on top of a network -> its weights; the description has their hash by the same word."""

KIND = "own"
HERE = f"{KIND}:."
"""The full name of the encoder that lies in the folder which names it."""


class Description(BaseModel):
    """What a folder says of its trained network, beside the weights.

    ``encoder`` is the full name of what was trained, ``options`` are its own (filters, dropout, stem), ``size`` is the
    side in pixels if photos are square, ``taps`` are the layers of the vector, ``trained`` are the blocks that were
    trained, ``files`` what else its library needs, by name, ``sha256`` is that of the weight file, and ``decoder`` and
    ``embedder`` those of :data:`PARTNERS`, where there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: Literal[1] = 1
    encoder: str
    options: dict[str, int | float | str] = Field(default_factory=dict)
    size: int | None = None
    taps: str
    trained: tuple[str, ...] = ()
    files: dict[Literal["config.json", "preprocessor_config.json"], str] = Field(default_factory=dict)
    sha256: str
    decoder: str | None = None
    embedder: str | None = None


def encoder_files(
    encoder: TrainableEncoder,
    network: nn.Module,
    trained: Sequence[str] = (),
    decoder: Mapping[str, Tensor] | None = None,
    embedder: Mapping[str, Tensor] | None = None,
) -> dict[str, bytes]:
    """The files of a trained encoder by name, to be written into one folder with whatever else belongs to it.

    Args:
        encoder: whose network it was; an encoder of this class is described by what was trained first.
        network: what :meth:`~mixtura.interfaces.TrainableEncoder.network` has become.
        trained: names of the blocks that were trained.
        decoder: tensors of the decoder that was trained with it.
        embedder: tensors of the embedder that was trained on it.
    """
    weights = _saved(network.state_dict())
    partners = {"decoder": decoder, "embedder": embedder}
    beside = {key: _saved(tensors) for key, tensors in partners.items() if tensors is not None}
    made = encoder.inner if isinstance(encoder, Own) else encoder
    name = encoder.description.encoder if isinstance(encoder, Own) else encoder.identity["name"]
    kind, _, place = name.partition(":")
    digests = {key: hashlib.sha256(data).hexdigest() for key, data in beside.items()}
    description = Description(
        encoder=f"{kind}:{Path(place).name}" if place and is_folder_at(Path(place)) else name,
        options=options_of(made.identity),
        size=size_of(made.identity),
        taps=taps_of(made.identity),
        trained=tuple(trained),
        files=getattr(made, "files", {}),
        sha256=hashlib.sha256(weights).hexdigest(),
        decoder=digests.get("decoder"),
        embedder=digests.get("embedder"),
    )
    # Without these, the description has the form that earlier versions of mixtura read.
    told = description.model_dump(mode="json", exclude=PARTNERS.keys() - beside.keys())
    text = json.dumps(told, indent=2, sort_keys=True) + "\n"
    return {WEIGHTS_FILE: weights, DESCRIPTION_FILE: text.encode()} | {PARTNERS[key]: beside[key] for key in beside}


def _saved(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def write_encoder(
    folder: Path,
    encoder: TrainableEncoder,
    network: nn.Module,
    trained: Sequence[str] = (),
    decoder: Mapping[str, Tensor] | None = None,
    embedder: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a trained encoder into a folder, which is made if need be; see :func:`encoder_files`.

    Raises:
        CannotWrite, OutOfSpace: the folder cannot be written.
    """
    files.make_folder(folder)
    made = encoder_files(encoder, network, trained, decoder, embedder)
    files.write_all({folder / name: data for name, data in made.items()})


def folder_of(name: str) -> Path | None:
    """The folder that the full name of an encoder gives; ``None`` where it is no trained encoder of a folder.

    >>> folder_of("own:shop"), folder_of("lite0")
    (PosixPath('shop'), None)
    """
    kind, _, place = name.partition(":")
    return Path(place).expanduser() if kind == KIND and place else None


def placed(section: EncoderSection, folder: Path) -> EncoderSection:
    """The section of an encoder that lies in a folder, whatever place it was written with."""
    return section.model_copy(update={"name": f"{KIND}:{folder.absolute()}"})


def read_files(folder: Path) -> dict[str, bytes]:
    """The files of the trained encoder in a folder, by name, checked.

    Raises:
        BundleError: there is no trained encoder in it, or one of its files is damaged.
    """
    partners = _partners(read_description(folder))
    return {name: files.read_current(folder / name) for name in (WEIGHTS_FILE, DESCRIPTION_FILE, *partners)}


def read_description(folder: Path) -> Description:
    """The description in a folder, checked against the weight files beside it.

    Raises:
        BundleError: there is no trained encoder in it, or one of its files is damaged.
    """
    try:
        description = Description.model_validate_json(files.read_current(folder / DESCRIPTION_FILE))
    except OSError as error:
        raise _no_encoder(folder, f"{DESCRIPTION_FILE} is missing") from error
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "the file"
        raise BundleError(
            f"{folder / DESCRIPTION_FILE} is damaged: {place}: {fault['msg']}. Copy the folder again."
        ) from error
    for name, digest in ({WEIGHTS_FILE: description.sha256} | _partners(description)).items():
        _check(folder, name, digest)
    return description


def _partners(description: Description) -> dict[str, str]:
    """The weight files beside the network's own, with their hashes."""
    told = ((name, getattr(description, key)) for key, name in PARTNERS.items())
    return {name: digest for name, digest in told if digest is not None}


def _check(folder: Path, name: str, digest: str) -> None:
    """See that a weight file is the one that was described."""
    try:
        found = hashlib.sha256(files.read_current(folder / name)).hexdigest()
    except OSError as error:
        raise _no_encoder(folder, f"{name} is missing") from error
    if found != digest:
        raise BundleError(f"{folder / name} was altered: its SHA-256 is {found}, not {digest}. Copy it again.")


def _no_encoder(folder: Path, why: str) -> BundleError:
    return BundleError(f"{folder} has no trained encoder: {why}. Give the folder of mixtura train.")


class Own:
    """The trained encoder of a folder; it reads photos as the network was trained to unless told otherwise.

    Its identity names no place, so features and models stay valid where the folder is moved.

    Args:
        model: the folder.
        size: side in pixels; that of the training unless given.
        weights: a ``.safetensors`` of what :meth:`network` has become; those in the folder unless given.
        device: where the network runs.
        taps: layers whose averages and deviations follow the vector; ``auto`` takes those of the training.

    Raises:
        BundleError: there is no trained encoder, it is damaged, or it comes from a package that is not allowed.
        UsageError: the size or the taps do not fit.
        NoInput, DataError: the weights that are given are missing, or do not fit.
    """

    name = KIND

    def __init__(
        self,
        model: str,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        taps: str = AUTO,
    ) -> None:
        folder = Path(model).expanduser()
        self.description = read_description(folder)
        wanted = {
            "size": self.description.size if size is None else size,
            "taps": self.description.taps if taps == AUTO else taps,
            "device": device,
            "weights": weights or files.current(folder / WEIGHTS_FILE),
        }
        self.inner = _opened(self.description, folder, wanted)
        network = json.dumps({"encoder": self.description.encoder, **self.description.options}, sort_keys=True)
        inner = {key: said for key, said in self.inner.identity.items() if key != "options"}
        self.identity = inner | {"name": self.name, "network": network}
        self.fingerprint = fingerprint(self.identity)
        self.dimension, self.draft = self.inner.dimension, self.inner.draft
        self.versions, self.stages = self.inner.versions, self.inner.stages
        self.bottleneck: tuple[int, int, int] | None = getattr(self.inner, "bottleneck", None)
        self._folder = folder
        self.timm_name: str | None = getattr(self.inner, "timm_name", None)
        if isinstance(self.inner, ExportableEncoder):
            self.graph: Callable[[], nn.Module] = self.inner.graph
            self.steps: Callable[[], list[dict[str, Any]]] = self.inner.steps

    def prepare(self, image: Image.Image) -> Num[Tensor, "3 H W"]:
        """The photo as the network was trained on."""
        return self.inner.prepare(image)

    def encode(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of prepared photos, float32, on the CPU."""
        return self.inner.encode(batch)

    def network(self) -> nn.Module:
        """A fresh network to train further."""
        return self.inner.network()

    def decoder_weights(self) -> dict[str, Tensor] | None:
        """The tensors of the decoder that was trained with it; ``None`` if there is none.

        Raises:
            BundleError: the file is missing or was altered.
        """
        if self.description.decoder is None:
            return None
        _check(self._folder, DECODER_FILE, self.description.decoder)
        return load(files.read_current(self._folder / DECODER_FILE))


def timm_weights(encoder: Encoder, network: nn.Module) -> tuple[str, dict[str, Tensor]]:
    """The name of a network in timm, and the tensors by timm's key names, without a last layer.

    ``timm.create_model(name, num_classes=0).load_state_dict(tensors)`` makes the network there; the scaling of photos
    is the encoder's own.

    Args:
        encoder: whose network it is.
        network: what its ``network()`` has become.

    Raises:
        UsageError: timm has no such network.
    """
    name = getattr(encoder, "timm_name", None)
    if name is None:
        raise UsageError(f"The network of {encoder.name!r} is not one of timm's. Export it as ONNX instead.")
    tensors = bare(network).state_dict()
    return name, {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}


def _opened(description: Description, folder: Path, wanted: Mapping[str, Any]) -> TrainableEncoder:
    """The encoder that was trained, with its trained weights.

    Raises:
        BundleError: it is none that could have been written here.
    """
    require_allowed_encoder(description.encoder, folder)
    key, further = split_name(description.encoder)
    make = find(ENCODERS, key)
    if make is Own:
        raise BundleError(f"{folder / DESCRIPTION_FILE} is damaged: it describes itself. Copy the folder again.")
    with _placed(description.files) as place:
        further |= {"model": place} if place else {}
        return make(**description.options, **further, **wanted)


@contextmanager
def _placed(texts: Mapping[Any, str]) -> Iterator[str | None]:
    """A folder with the files that a library wants to read; ``None`` if it wants none."""
    if not texts:
        yield None
        return
    with tempfile.TemporaryDirectory() as place:
        for name, text in texts.items():
            (Path(place) / name).write_text(text, encoding="utf-8")
        yield place
