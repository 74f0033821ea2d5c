"""The five covariance families behind one protocol: one final class per family, looked up by name in ``FAMILIES``."""

from mixtura.core.covariance.diagonal import Diagonal
from mixtura.core.covariance.full import Full
from mixtura.core.covariance.lowrank import LowRank
from mixtura.core.covariance.protocol import NO_PRIOR, Covariance, Floor, Prior
from mixtura.core.covariance.spherical import Spherical
from mixtura.core.covariance.tied import Tied

FAMILIES: dict[str, type[Covariance]] = {
    "spherical": Spherical,
    "diagonal": Diagonal,
    "lowrank": LowRank,
    "tied": Tied,
    "full": Full,
}

__all__ = ["FAMILIES", "NO_PRIOR", "Covariance", "Diagonal", "Floor", "Full", "LowRank", "Prior", "Spherical", "Tied"]
