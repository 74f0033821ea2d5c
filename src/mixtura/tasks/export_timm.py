"""Export the weights of a model's encoder under the key names of timm, for programs that build networks with timm."""

import json
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mixtura import files
from mixtura.encoders.own import timm_weights
from mixtura.errors import CannotWrite, UsageError
from mixtura.files import is_there
from mixtura.identity import IMPORTED_PREFIX
from mixtura.interfaces import ExportableEncoder, TrainableEncoder
from mixtura.tasks.predict import current, encoder_for

SUFFIX = ".safetensors"
VERSION_KEY = "mixtura"
"""Key of the metadata that only a file of this export has; its value is the version of mixtura."""

CHANNELS = 3
BYTE = 255  # the networks here scale bytes, those of timm shares of them


@dataclass(frozen=True)
class TimmReport:
    """The weight file, its bytes, and the name of its network in timm."""

    file: Path
    size: int
    timm_name: str


def run(model_path: Path, file: Path) -> TimmReport:
    """Write the weights of a model's encoder as timm names them, without a last layer.

    ``timm.create_model(name, num_classes=0, checkpoint_path=file)`` makes the network. The metadata of the file hold
    this name as ``timm_name`` and how it reads photos: ``input_size``, and ``mean`` and ``std`` of shares in [0, 1].

    Args:
        model_path: of a model written by ``mixtura fit`` or ``mixtura train``.
        file: target, a ``.safetensors`` file; an earlier export is replaced.

    Raises:
        NoInput, BundleError: there is no model, or it is damaged.
        UsageError: timm has no such network, or the file has another suffix.
        CannotWrite, OutOfSpace: the file is another one, or cannot be written.
    """
    if file.suffix != SUFFIX:
        raise UsageError(f"--timm {file} does not end with {SUFFIX}, by which timm tells the format. Name it so.")
    model = current(model_path)
    if model.encoder.name.startswith(IMPORTED_PREFIX):
        raise UsageError(f"The features of {model_path} are imported, so there are no weights. Leave --timm out.")
    section = model.encoder.model_copy(update={"device": "cpu", "runtime": "torch"})
    encoder = encoder_for(replace(model, encoder=section))
    if not isinstance(encoder, TrainableEncoder) or not isinstance(encoder, ExportableEncoder):
        raise UsageError(
            f"The encoder {model.encoder.name!r} is not one of timm's. Leave --timm out: mixtura export {model_path} "
            "writes ONNX."
        )
    network = encoder.network()
    name, tensors = timm_weights(encoder, network)
    _require_own(file)
    size = encoder.steps()[-1]["size"]
    mean, std = ([value / BYTE for value in network.get_buffer(key).flatten().tolist()] for key in ("mean", "std"))
    facts = {
        "input_size": [CHANNELS, *size],
        "mean": mean if len(mean) == CHANNELS else mean * CHANNELS,
        "std": std if len(std) == CHANNELS else std * CHANNELS,
    }
    said = {key: json.dumps(value) for key, value in facts.items()}
    data = save(tensors, {"timm_name": name, VERSION_KEY: metadata.version("mixtura")} | said)
    with files.new_folder(file.parent):
        files.write(file, data)
    return TimmReport(file, len(data), name)


def _require_own(file: Path) -> None:
    """Check that no other file is replaced, such as the weights of a model."""
    if not is_there(file):
        return
    try:
        with safe_open(str(file), "pt") as earlier:
            own = VERSION_KEY in (earlier.metadata() or {})
    except (SafetensorError, OSError):
        own = False
    if not own:
        raise CannotWrite(f"{file} exists, and mixtura export --timm has not written it. Give another name.")
