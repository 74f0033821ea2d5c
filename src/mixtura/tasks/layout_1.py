"""Bundles of layout 1, as they are read today: what has changed its name or its form since; heads read older states."""

from typing import Any

from torch import Tensor

from mixtura.core import linalg


def migrated_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as layout 2 would have it; floors were a share of the data's average variance."""
    facts = dict(config.get("facts") or {})
    return config | {"layout": 2, "facts": {"floor": "average"} | facts}


def migrated_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as layout 2 would have them: factors of precisions in place of those of covariances."""
    old, new = ("mixture.covariance.scale_tril", "mixture.covariance.precision_tril")
    return {
        new if name == old else name: linalg.inverse_tril(tensor).to(tensor.dtype) if name == old else tensor
        for name, tensor in state.items()
    }
