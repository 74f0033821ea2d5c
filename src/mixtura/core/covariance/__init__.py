"""The five covariance families behind one protocol: one final class per family, looked up by name in ``FAMILIES``."""

from typing import Any

from mixtura.core import FAMILIES as TABLE
from mixtura.core.covariance.diagonal import Diagonal
from mixtura.core.covariance.full import Full
from mixtura.core.covariance.lowrank import LowRank
from mixtura.core.covariance.protocol import NO_PRIOR, Covariance, Floor, Prior
from mixtura.core.covariance.spherical import Spherical
from mixtura.core.covariance.tied import Tied
from mixtura.errors import UnknownName, UsageError
from mixtura.names import find, name_of, nearest

FAMILIES: dict[str, type[Covariance]] = {name: find(TABLE, name) for name in TABLE}
"""The families of mixtura; :func:`family_of` finds those from outside too."""

_MEMBERS = sorted(name for name in {*dir(Covariance), *Covariance.__annotations__} if not name.startswith("_"))


def family_of(name: str) -> Any:
    """The class of :class:`Covariance` that a name stands for: an entry of the table, or any ``package.module:Class``.

    Raises:
        UnknownName: there is no such family.
        UsageError: the class lacks what the protocol asks for; the first such member is named.
    """
    if name not in TABLE and ":" not in name:
        raise UnknownName(f"There is no family {name!r}. {nearest(name, TABLE)} Or give package.module:Class.")
    kind = find(TABLE, name)
    missing = next((member for member in _MEMBERS if not hasattr(kind, member)), None)
    if missing is not None:
        raise UsageError(f"{name!r} is no covariance family: it has no {missing!r}. See Covariance in its protocol.")
    return kind


def family_name(kind: type) -> str:
    """The name by which :func:`family_of` gives a class."""
    return name_of(TABLE, kind)


__all__ = [
    "FAMILIES",
    "NO_PRIOR",
    "Covariance",
    "Diagonal",
    "Floor",
    "Full",
    "LowRank",
    "Prior",
    "Spherical",
    "Tied",
    "family_name",
    "family_of",
]
