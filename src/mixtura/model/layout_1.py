"""Convert bundles of layout 1: what has changed name or form since; heads read older states themselves."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from mixtura.core import linalg
from mixtura.renames import RENAMED_FACTS, renamed


def migrated_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration in layout 2; floors of layout 1 were a share of the data's average variance."""
    facts = config.get("facts")
    if isinstance(facts, dict):  # anything else is refused as it is
        facts = {"floor": "average"} | renamed(RENAMED_FACTS, facts)
    return config | {"layout": 2, "facts": facts}


def migrated_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in layout 2."""
    moved: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new, convert = CHANGED_TENSORS.get(name, (name, _same))
        moved[new] = convert(tensor)
    return moved


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _inverse(tensor: Tensor) -> Tensor:
    return linalg.inverse_tril(tensor).to(tensor.dtype)


CHANGED_TENSORS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "mixture.owner": ("mixture.component_class", _same),
    "mixture.covariance.scale_tril": ("mixture.covariance.precision_tril", _inverse),
}
"""Old name -> new name and conversion: factors of covariances are now factors of precisions."""
