"""Weight files: read without running what they say, and loaded strictly."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from mixtura.encoders.torchvision_repair import import_timm
from mixtura.errors import DataError, NoInput
from mixtura.formats import reason_of


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file; nothing in it is executed.

    Raises:
        NoInput: the file is missing. DataError: it is not a weight file.
    """
    models = import_timm().models
    try:
        path.open("rb").close()  # timm would log its own message for a file that cannot be read
        return dict(models.load_state_dict(str(path), weights_only=True))
    except OSError as error:
        raise NoInput(f"The weights {path} are missing or unreadable. Check the path.") from error
    except Exception as error:  # a damaged or hostile file may raise anything
        raise DataError(
            f"{path} is no weight file: {reason_of(error)}. Give a .safetensors file of the network."
        ) from error


def load_weights(network: nn.Module, path: Path, spare: Sequence[str] = ()) -> None:
    """Load a file strictly: it has every tensor of the network, and no other but those of the ``spare`` modules.

    Raises:
        NoInput: the file is missing. DataError: it is no weight file, or of another network.
    """
    load_tensors(network, read_tensors(path), path, spare)


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, spare: Sequence[str] = ()) -> None:
    """Load what was read from ``path``, as strictly as :func:`load_weights`.

    Raises:
        DataError: the tensors are those of another network.
    """
    wanted = network.state_dict()
    prefixes = tuple(f"{name}." for name in spare)
    body = {name: value for name, value in tensors.items() if name in wanted or not name.startswith(prefixes)}
    strange = sorted(set(body) ^ set(wanted)) or [name for name in wanted if body[name].shape != wanted[name].shape]
    if strange:
        raise DataError(
            f"{path} does not fit the network: {len(strange)} tensors are missing, extra or of another shape, "
            f"the first {strange[0]!r}. Give weights of this very network and size, with the names of its library."
        )
    network.load_state_dict(body)
