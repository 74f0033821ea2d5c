"""The product catalog: enroll, rename, merge, split, remove and restore products without retraining.

All of it is stored in ``catalog.sqlite`` beside the model. ``catalog``: the live catalog; ``create``: opens or creates
one, or hands it to a new model (``renewal``); ``database``: its tables; ``edits``: each edit as one transaction;
``kinds``: those that divide a product; ``subclasses``: the named subclasses of its model;
``queries``: stored products and items; ``statistics``: additive sums per class; ``rebuild``: the model after an edit;
``priors`` and ``limits``: how frequent its classes are, and how strict it is; ``snapshot``: it at one revision;
``newcomers``: limits for classes with few photos; ``shots``: photos to enroll; ``journal`` and ``journal_database``:
past decisions.
"""

from mixtura.catalog.catalog import Catalog
from mixtura.records.catalog import STATUSES, Edit, EditResult, Kind, Product, Shot, StoredItem

__all__ = ["STATUSES", "Catalog", "Edit", "EditResult", "Kind", "Product", "Shot", "StoredItem"]
