"""The model on disk: config.json, model.safetensors, metrics.json, README.md. Nothing is pickled or imported by name."""

import hashlib
import json
from pathlib import Path
from typing import Any


from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mixtura import files
from mixtura.core import FAMILIES
from mixtura.core.mixture import Mixture
from mixtura.errors import BundleError, NoInput
from mixtura.features.projection import Chain
from mixtura.recipe import DecisionSection, EncoderSection
from mixtura.scores.typicality import Typicality
from mixtura.tasks.model import Model

LAYOUT = 1
CONFIG, TENSORS, METRICS, CARD, RECIPE = "config.json", "model.safetensors", "metrics.json", "README.md", "recipe.yaml"
KEYS = frozenset(
    {"layout", "classes", "encoder", "identity", "dimension", "projection", "family", "temperature", "decision",
     "facts", "sha256"}
)  # fmt: skip


def save_pretrained(model: Model, folder: Path) -> None:
    """Write the tensors and, last, the configuration with their hash; each file appears whole or not at all.

    Raises:
        CannotWrite, OutOfSpace: the folder cannot be written.
    """
    files.make_folder(folder)
    data = save(_tensors(model))
    config = {
        "layout": LAYOUT,
        "classes": list(model.classes),
        "encoder": model.encoder.model_dump(mode="json"),
        "identity": model.identity,
        "dimension": model.dimension,
        "projection": model.projection.config(),
        "family": type(model.mixture.covariance).name,
        "temperature": model.temperature,
        "decision": model.decision.model_dump(mode="json"),
        "facts": model.facts,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    files.write(folder / TENSORS, data)
    write_json(folder / CONFIG, config)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that people can read."""
    files.write(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def from_pretrained(folder: Path) -> Model:
    """The model in a folder, checked strictly.

    Raises:
        NoInput: there is no model.
        BundleError: it is incomplete, altered, or of another version.
    """
    config = _config(folder)
    state = _state(folder, config["sha256"])
    parts: dict[str, dict[str, Tensor]] = {"mixture": {}, "projection": {}, "typicality": {}}
    for key, tensor in state.items():
        part, _, name = key.partition(".")
        if part not in parts:
            raise _altered(folder, f"tensor {key!r} is not known")
        parts[part][name] = tensor
    try:
        mixture = Mixture.from_state(config["family"], parts["mixture"], len(config["classes"]))
        return Model(
            tuple(config["classes"]),
            EncoderSection(**config["encoder"]),
            config["identity"],
            config["dimension"],
            Chain.from_state(config["projection"], parts["projection"]),
            mixture,
            config["temperature"],
            Typicality(**parts["typicality"]),
            DecisionSection(**config["decision"]),
            config["facts"],
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise _altered(folder, f"{CONFIG} and {TENSORS} do not fit together ({error})") from error


def _tensors(model: Model) -> dict[str, Tensor]:
    parts = {
        "mixture": model.mixture.state(),
        "projection": model.projection.state(),
        "typicality": model.typicality.state(),
    }
    return {f"{part}.{name}": t.contiguous() for part, state in parts.items() for name, t in state.items()}


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoInput(f"{folder} is no model: {CONFIG} is missing. Give a folder that mixtura fit has written.") from error
    except (OSError, ValueError) as error:
        raise _altered(folder, f"{CONFIG} cannot be read ({error})") from error
    if not isinstance(config, dict) or set(config) != KEYS:
        odd = sorted(KEYS ^ set(config)) if isinstance(config, dict) else []
        raise _altered(folder, f"{CONFIG} does not have the keys of a model ({', '.join(odd[:3])})")
    if config["layout"] != LAYOUT:
        raise BundleError(f"{folder} has layout {config['layout']}, this mixtura reads {LAYOUT}. Fit again.")
    if config["family"] not in FAMILIES:
        raise _altered(folder, f"family {config['family']!r} is not known")
    return config


def _state(folder: Path, digest: str) -> dict[str, Tensor]:
    try:
        data = (folder / TENSORS).read_bytes()
    except OSError as error:
        raise _altered(folder, f"{TENSORS} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise _altered(folder, f"{TENSORS} is not the file that {CONFIG} was written with")
    try:
        state = load(data)
    except SafetensorError as error:
        raise _altered(folder, f"{TENSORS} is damaged ({error})") from error
    if not all(tensor.isfinite().all() for key, tensor in state.items() if key != "mixture.log_weight"):
        raise _altered(folder, f"{TENSORS} holds NaN or infinity")
    return state


def _altered(folder: Path, what: str) -> BundleError:
    return BundleError(f"{folder}: {what}. Run mixtura fit again; the features are kept.")


