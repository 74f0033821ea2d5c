"""The embedder of a trained network: what maps its vectors to the embeddings that training compared."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load
from torch import Tensor, nn

from mixtura import files
from mixtura.encoders.own import DESCRIPTION_FILE, EMBEDDER_FILE, read_description
from mixtura.errors import UsageError
from mixtura.training.embedding import embedder_of

PREFIX = "embedder."
KEYS = {"linear": "weight", "mlp": "2.weight"}
"""Kind of an embedder -> the tensor with a row for each number of an embedding."""


def embedder_in(head: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors of the embedder of a head; ``None`` if it has none."""
    return {name.removeprefix(PREFIX): one for name, one in head.items() if name.startswith(PREFIX)} or None


def load_embedder(folder: Path | str) -> nn.Module:
    """Return the embedder in the folder of a model that ``mixtura train`` has trained with one.

    It takes the vectors of the network, with which the model's features begin, and its embeddings are not scaled to
    unit length. With ``encoder.taps: none``, the features are these vectors:
    ``mixtura.load_embedder("shop")(torch.from_numpy(mixtura.FeatureStore.open("shop/features").read().embedding))``.

    Raises:
        UsageError: there is none.
        BundleError: a file of the trained encoder is damaged.
    """
    place = Path(folder)
    if not files.is_file_at(files.current(place / DESCRIPTION_FILE)) or read_description(place).embedder is None:
        raise UsageError(
            f"{folder} has no embedder: it is not a model whose network was trained with one. Train it with "
            "coarse.embedder, as by train.objective: scgm-g."
        )
    tensors = load(files.read_current(place / EMBEDDER_FILE))
    kind = next(kind for kind, key in KEYS.items() if key in tensors)
    last, first = tensors[KEYS[kind]], tensors["weight" if kind == "linear" else "0.weight"]
    made, _ = embedder_of(kind, first.shape[1], len(last))
    made.load_state_dict(tensors)
    return made.requires_grad_(False).eval()
