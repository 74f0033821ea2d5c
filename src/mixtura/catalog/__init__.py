"""The catalog: products that are enrolled, renamed, merged, split, removed and brought back without retraining.

Everything here is kept in ``catalog.sqlite`` beside a model. ``catalog``: the live catalog; ``create``: opened, made
anew, or taken over by a new model (``renewal``); ``database``: its tables; ``edits``: each edit as one transaction;
``queries``: products and items as they are stored; ``statistics``: the additive sums of each class; ``rebuild``: the
model after an edit; ``newcomers``: limits for classes of a few photos; ``shots``: photos to enroll; ``journal`` and
``journal_database``: the decisions that were made.
"""

from mixtura.catalog.catalog import Catalog
from mixtura.records.catalog import STATUSES, Edit, EditResult, Product, Shot, StoredItem

__all__ = ["STATUSES", "Catalog", "Edit", "EditResult", "Product", "Shot", "StoredItem"]
