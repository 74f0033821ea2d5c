"""A catalog at one revision, and what replaces it by another model."""

from dataclasses import dataclass

from mixtura.errors import BundleError
from mixtura.model.model import Model
from mixtura.records.catalog import Product


class OtherEncoder(BundleError):
    """A model that was fitted again with another encoder; what uses the catalog needs that encoder first."""


@dataclass(frozen=True)
class Snapshot:
    """A catalog at one revision, with the hash (hex) of its bundle."""

    bundle: str
    revision: int
    model: Model
    products: tuple[Product, ...]

    @property
    def version(self) -> str:
        """Bundle and revision that made a decision, as one string."""
        return f"{self.bundle}r{self.revision}"
