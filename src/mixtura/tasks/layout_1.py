"""Bundles of layout 1, as they are read today: what has changed its name or its form since."""

from typing import Any

from torch import Tensor

from mixtura.core import linalg
from mixtura.core.owners import ClassLogSumExp

GROUPS = "groups.owner"


def migrated_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as layout 2 would have it; floors were a share of the data's average variance."""
    facts = dict(config.get("facts") or {})
    return config | {"layout": 2, "facts": {"floor": "average"} | facts}


def migrated_tensors(state: dict[str, Tensor], n_classes: int) -> dict[str, Tensor]:
    """The tensors as layout 2 would have them: factors of precisions, and which components a class has."""
    moved: dict[str, Tensor] = {}
    for name, tensor in state.items():
        moved[name] = tensor
        if name == "mixture.covariance.scale_tril":
            del moved[name]
            moved["mixture.covariance.precision_tril"] = linalg.inverse_tril(tensor).to(tensor.dtype)
        elif name.endswith(GROUPS):
            members = ClassLogSumExp.of(tensor, n_classes).members
            moved[name.removesuffix(GROUPS) + "groups.members"] = members
    return moved
