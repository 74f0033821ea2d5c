"""The catalog: products that are enrolled, renamed, merged, split, removed and brought back without retraining."""

from mixtura.tasks.catalog.live import Catalog
from mixtura.tasks.catalog.records import STATUSES, Edit, Effect, Product, Shot, StoredItem

__all__ = ["STATUSES", "Catalog", "Edit", "Effect", "Product", "Shot", "StoredItem"]
