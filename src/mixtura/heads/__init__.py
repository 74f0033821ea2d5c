"""Heads: ``nn.Module`` classes that replace the last linear layer."""

from typing import Any

from mixtura.core import FAMILIES

HEADS = {
    "gaussian": "mixtura.heads.gaussian:GaussianHead",
    "sdgm": "mixtura.heads.sdgm:SDGMHead",
    "online": "mixtura.heads.online:OnlineGaussianHead",
    "vmf": "mixtura.heads.vmf:VonMisesFisherHead",
    "prototype": "mixtura.heads.prototype:PrototypeHead",
    "linear": "mixtura.heads.linear:LinearHead",
    "random_projection": "mixtura.heads.random_projection:RandomProjectionHead",
}

SAVED = HEADS | {"sdgm_compact": "mixtura.heads.sdgm:CompactSDGMHead"}
"""Heads that a model may contain, including the pruned head, which cannot be trained."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {family: ("gaussian", {"family": family}) for family in FAMILIES} | {
    "dgmmc-s": ("gaussian", {"family": "spherical"}),
    "dgmmc-d": ("gaussian", {"family": "diagonal"}),
    "gmml": ("gaussian", {"family": "full"}),
    "sdgm-d": ("sdgm", {"quadratic": "diagonal"}),
    "sdgm-f": ("sdgm", {"quadratic": "full"}),
    "nearest-mean": ("prototype", {"metric": "euclidean"}),
    "softmax": ("linear", {}),
}
"""Names for a head with its options: each covariance family, and what papers use."""
