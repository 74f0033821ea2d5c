"""The embedder of a trained network as a file: what maps its vectors to the embeddings that training compared."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from mixtura import files
from mixtura.errors import BundleError, UsageError
from mixtura.training.embedding import embedder_of

EMBEDDER_FILE = "embedder.safetensors"
PREFIX = "embedder."
KEYS = {"linear": "weight", "mlp": "2.weight"}
"""Kind of an embedder -> the tensor with a row for each number of an embedding."""


def write_embedder(folder: Path, head: Mapping[str, Tensor]) -> None:
    """Write the embedder of a head, if it has one, in place of an earlier one.

    Args:
        folder: which is there.
        head: tensors of the head.

    Raises:
        CannotWrite, OutOfSpace: it cannot be written.
    """
    tensors = {name.removeprefix(PREFIX): one.contiguous() for name, one in head.items() if name.startswith(PREFIX)}
    if tensors:
        files.write(folder / EMBEDDER_FILE, save(tensors, {"sha256": _digest(tensors)}))
    else:
        (folder / EMBEDDER_FILE).unlink(missing_ok=True)


def embedder_in(folder: Path) -> dict[str, bytes]:
    """The file by its name, for another folder; empty if there is none."""
    path = folder / EMBEDDER_FILE
    return {EMBEDDER_FILE: path.read_bytes()} if path.is_file() else {}


def load_embedder(folder: Path | str) -> nn.Module:
    """Return the embedder in the folder of a model that ``mixtura train`` has trained with one.

    It takes the vectors of the model's features, and its embeddings are not scaled to unit length:
    ``mixtura.load_embedder("shop")(torch.from_numpy(mixtura.FeatureStore.open("shop/features").read().embedding))``.

    Raises:
        UsageError: there is none.
        BundleError: the file is damaged.
    """
    path = files.current(Path(folder) / EMBEDDER_FILE)
    if not path.is_file():
        raise UsageError(
            f"{folder} has no embedder: its network was not trained with one. Train it with coarse.embedder, as by "
            "train.objective: scgm-g."
        )
    content = files.read_current(Path(folder) / EMBEDDER_FILE)
    try:
        tensors = load(content)
        with safe_open(path, "pt") as held:
            known = (held.metadata() or {}).get("sha256")
        kind = next(kind for kind, key in KEYS.items() if key in tensors)
        last, first = tensors[KEYS[kind]], tensors["weight" if kind == "linear" else "0.weight"]
        made, _ = embedder_of(kind, first.shape[1], len(last))
        made.load_state_dict(tensors)
    except (SafetensorError, StopIteration, KeyError, IndexError, RuntimeError) as error:
        raise BundleError(f"{path} is damaged ({error}). Copy the folder again, or train again.") from error
    if known != _digest(tensors):
        raise BundleError(f"{path} is damaged: its content has changed. Copy the folder again, or train again.")
    return made.requires_grad_(False).eval()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names and numbers."""
    made = hashlib.sha256()
    for name, one in sorted(tensors.items()):
        made.update(name.encode() + one.cpu().numpy().tobytes())
    return made.hexdigest()
