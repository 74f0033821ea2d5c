"""The live catalog: a model that follows every edit, including those of other processes."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mixtura import files
from mixtura.catalog import edits, kinds, limits
from mixtura.catalog.create import opened
from mixtura.catalog.database import CATALOG_FILE, CatalogDatabase, EditTransaction, OutdatedCatalog
from mixtura.catalog.newcomers import NewcomerCalibration
from mixtura.catalog.queries import (
    ALL_ITEMS,
    HOME_CLASS,
    asked_of,
    classes_of,
    find_product,
    gauge_of,
    items_of,
    known_of,
    products_of,
    state_of,
)
from mixtura.catalog.rebuild import model_of
from mixtura.catalog.snapshot import OtherEncoder as OtherEncoder
from mixtura.catalog.snapshot import Snapshot as Snapshot
from mixtura.core.moments import Moments
from mixtura.errors import CannotWrite, NoInput, UsageError
from mixtura.features.records import Features
from mixtura.model.bundle import CONFIG_FILE
from mixtura.model.decide import Known, decide
from mixtura.model.model import Model
from mixtura.model.prior import AskedPrior
from mixtura.pipeline.thumbnails import thumbnails
from mixtura.records.catalog import Edit, EditResult, Kind, Product, Shot, StoredItem
from mixtura.records.decision import Decision
from mixtura.scores.typicality import Typicality

EDIT_TRIES = 3  # of an edit, while new models come


class Catalog:
    """A model folder with ``catalog.sqlite``: products, their items, and every edit.

    The model is a function of the bundle and the items with their products. Several processes may edit the catalog;
    each sees the others' edits at its next call. All methods are thread-safe.

    Raises:
        NoInput: there is no model, or the features that it was made of are gone.
        BundleError: the model or the catalog is damaged, or they do not belong together.
        UsageError: the model has a head with a fixed set of classes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock, self._editing = threading.RLock(), threading.Lock()
        self._place = self._place_now()
        self._tables, self._base = opened(folder)
        self._place = self._place_opened(self._place)
        self._thumbnails = thumbnails(folder)
        self._gauges: dict[tuple[tuple[float, ...], tuple[int, ...]], NewcomerCalibration | None] = {}
        self._known: tuple[str, Known] | None = None
        self._view = self._viewed()

    @classmethod
    def open(cls, folder: Path) -> "Catalog":
        """Open the catalog of a model folder; creates the file if it does not exist."""
        return cls(folder)

    def refresh(self) -> bool:
        """Follow the edits of other processes and a refitted model; returns true if anything changed.

        Raises:
            OtherEncoder: the new model takes features of another encoder than the one before.
            MixturaError: the folder has gone, or what has replaced it cannot be opened.
        """
        with self._lock:
            if self._place_now() != self._place or self._tables.outdated():
                self._reopen()
                return True
            if self._tables.revision() == self._view.revision:
                return False
            self._view = self._viewed()
            return True

    def view(self) -> Snapshot:
        """The current snapshot: revision, model and products that belong together."""
        with self._lock:
            self.refresh()
            return self._view

    @property
    def revision(self) -> int:
        """Number of the latest edit; 0 before the first."""
        return self.view().revision

    @property
    def model(self) -> Model:
        """The model with all edits applied."""
        return self.view().model

    def products(self) -> tuple[Product, ...]:
        """All products, in order of creation."""
        return self.view().products

    def product(self, id_or_name: str | Product) -> Product:
        """The product with this id or name, which may be spelled in any form, case and with any invisible characters.

        A product that was found before is found by its id, whatever else has that as its name.

        Raises:
            NoInput: there is none; the nearest is named, or the product that has a kind of this name.
            UsageError: it is the id of one and the name of another, or several have such a name.
        """
        view = self.view()
        return find_product(view.products, id_or_name, view.model)

    def items(self, product: str | Product) -> tuple[StoredItem, ...]:
        """The items of a product, including test items."""
        return items_of(self._tables, "part.product = ?", (self.product(product).id,))

    def item(self, id: int) -> StoredItem:
        """The item with this number.

        Raises:
            NoInput: there is none of this number, or its product is gone.
        """
        found = items_of(self._tables, "item.id = ?", (id,))
        if not found:
            raise NoInput(f"There is no item {id} in this catalog. mixtura products lists what there is.")
        return found[0]

    def thumbnail(self, item: int) -> bytes | None:
        """A small JPEG of an item; ``None`` if its photo no longer exists.

        Raises:
            NoInput: there is no such item.
        """
        self.item(item)
        [(data, origin)] = self._tables.rows("SELECT thumbnail, origin FROM item WHERE id = ?", (item,))
        return data if data is not None or origin is None else self._thumbnails(origin)

    def known(self) -> Features:
        """Features of the items that products are learned from; item number as id, product name as label."""
        return self.shelf().items

    def shelf(self) -> Known:
        """The items of :meth:`known`, prepared for nearest-neighbor search."""
        return self._shelf()[1]

    def _shelf(self) -> tuple[Snapshot, Known]:
        """The current snapshot and the items of the same revision."""
        with self._lock:
            while True:
                view = self.view()
                if self._known is not None and self._known[0] == view.version:
                    return view, self._known[1]
                with self._tables.one_state():
                    if self._tables.revision() == view.revision:
                        self._known = view.version, Known(known_of(self._tables, self._base.model))

    def decide(
        self,
        ids: Sequence[str],
        embedding: Float[np.ndarray, "N D"],
        neighbors: int = 3,
        false_discovery_rate: float | None = None,
    ) -> list[Decision]:
        """One decision per row, see :func:`mixtura.model.decide.decide`, with catalog items as neighbors."""
        return self.decide_in_view(ids, embedding, neighbors, false_discovery_rate)[1]

    def decide_in_view(
        self,
        ids: Sequence[str],
        embedding: Float[np.ndarray, "N D"],
        neighbors: int = 3,
        false_discovery_rate: float | None = None,
    ) -> tuple[Snapshot, list[Decision]]:
        """The decisions of :meth:`decide`, with the snapshot that made all of them."""
        view, known = self._shelf() if neighbors else (self.view(), None)
        decisions = decide(view.model, list(ids), embedding, known, neighbors, None, false_discovery_rate)
        return view, [replace(decision, model=view.version) for decision in decisions]

    def history(self, limit: int = 50) -> tuple[Edit, ...]:
        """The latest edits, newest first."""
        return self._tables.history(limit)

    def enroll(self, name: str, shots: Sequence[Shot], kind: str = "") -> EditResult:
        """Add items to a product, as a ``kind`` of it if one is named, or create a product, without retraining.

        Raises:
            UsageError: no shot, an invalid name, or that of a kind of a product.
            WrongDimension, NonFinite: features that do not fit the model.
            DataError: an item that the catalog has already.
        """
        if kind.strip():
            what, into = (shots, kind), lambda: (self.product(name), self.products())
            return self._edit("enroll", lambda d: kinds.enroll(d, self._tables, self._base, into(), what), shots)
        return self._edit("enroll", lambda draft: edits.enroll(draft, self.model, name, shots, self._base.exact), shots)

    def remove_product(self, id: str | Product) -> EditResult:
        """Remove a product from the catalog."""
        return self._edit("remove_product", lambda draft: edits.remove_product(draft, self.product(id)))

    def remove_item(self, id: int) -> EditResult:
        """Remove one item; the model becomes the one fitted without it.

        Raises:
            UsageError: it is its product's last item, or the model was trained by gradients on it.
        """
        return self._edit("remove_item", lambda draft: edits.remove_item(draft, self.item(id), self._base.exact))

    def rename(self, id: str | Product, name: str) -> EditResult:
        """Rename a product; its id stays the same."""
        return self._edit("rename", lambda draft: edits.rename(draft, self.model, self.product(id), name))

    def merge(self, source: str | Product, into: str | Product) -> EditResult:
        """Merge one product into another, which keeps the components of both."""
        return self._edit("merge", lambda draft: edits.merge(draft, self.product(source), self.product(into)))

    def split(self, id: str | Product, items: Sequence[int], name: str) -> EditResult:
        """Move some items of a product into a new product."""
        exact = self._base.exact
        return self._edit("split", lambda draft: edits.split(draft, self.model, self.product(id), items, name, exact))

    def kinds(self, product: str | Product) -> tuple[Kind, ...]:
        """The kinds of a product, the largest first; items of no kind are one that has the name of the product."""
        return kinds.kinds_of_product(self._tables, self._base, self.product(product))

    def give_kinds(self, wanted: Mapping[str, Mapping[int, str]] | Mapping[Product, Mapping[int, str]]) -> EditResult:
        """Make items kinds of their product, by item number; each kind then has a density of its own.

        The product is estimated again from its kinds, as a fit with ``data.level: both`` estimates it. Items with one
        name are one kind; an empty name means no kind. Other items stay as they are.

        Raises:
            NoInput: an item that its product is not learned from.
            UsageError: an invalid name, or that of another product; or the model was trained by gradients on an item.
        """

        given = [(self.product(id), items) for id, items in wanted.items()]
        return self._edit("kinds", lambda draft: kinds.give(draft, self._tables, self._base, self.products(), given))

    def rename_kinds(self, id: str | Product, names: Mapping[str, str]) -> EditResult:
        """Rename kinds of a product; two that get one name become one, and one without a name is none any more."""
        return self.give_kinds({self.product(id): kinds.renamed(self.kinds(id), names)})

    def confirm(self, id: str | Product) -> EditResult:
        """Mark a provisional product as confirmed."""
        return self._edit("confirm", lambda draft: edits.confirm(draft, self.product(id)))

    def calibrate(
        self, typicality: Typicality, temperature: float, classes: Sequence[str], bundle: str | None = None
    ) -> EditResult:
        """Replace the fitted typicality and temperature.

        Args:
            typicality: new typicality; its classes are indices into ``classes``.
            temperature: of the class posterior; no unit.
            classes: product names at the time of calibration.
            bundle: the hash of the model that was calibrated (:class:`Snapshot`); any if left out.

        Raises:
            UsageError: products have come or gone, or changed their names, or the model was fitted again since then.
        """

        def change(draft: EditTransaction) -> None:
            limits.check_bundle(bundle, self.view().bundle)
            if tuple(classes) != self.model.classes:
                raise UsageError("The catalog has other products than when the limits were made. Make them again.")
            limits.calibrate(draft, typicality, temperature, classes_of(self._tables, self.products()))

        return self._edit("calibrate", change)

    def fitted_models(self) -> tuple[Model, Model]:
        """The model of the fit's classes, with the prior and limits of now and of then; to compare priors by."""
        with self._lock:
            self.refresh()
            return limits.fitted_models(self._tables, self._base)

    def set_prior(self, made: Model, bundle: str | None = None) -> EditResult:
        """Keep another class prior, with its temperature and limits.

        Args:
            made: one of :meth:`fitted_models` under the prior, see :func:`mixtura.model.prior.recalibrated`.
            bundle: the hash of the model that it was made of; any if left out. Another one is a UsageError.
        """

        def change(draft: EditTransaction) -> None:
            limits.check_bundle(bundle, self.view().bundle)
            limits.set_prior(draft, self._base, made)

        return self._edit("prior", change)

    def undo(self) -> EditResult:
        """Undo the latest edit that is still in effect.

        Raises:
            UsageError: there is none.
        """
        return self._edit("undo", edits.undo)

    def close(self) -> None:
        """Close this thread's connection."""
        self._tables.close()

    def _place_now(self) -> tuple[object, object]:
        """What tells the files of the folder from those that replace them."""
        found = files.identity_of(self.folder / CATALOG_FILE)
        return None if found is None else found[:2], files.identity_of(self.folder / CONFIG_FILE)

    def _place_opened(self, before: tuple[object, object]) -> tuple[object, object]:
        """The place after opening, which may have made the catalog's file; a model that came meanwhile is not it."""
        return self._place_now()[0], before[1]

    def _reopen(self) -> None:
        """Switch to the model that is in the folder now."""
        before = self._place_now()
        found, base = opened(self.folder)
        if base.model.identity != self._base.model.identity:
            raise OtherEncoder(
                f"The model in {self.folder} was fitted again with another encoder. Open the catalog again: stop what "
                "uses it, for example mixtura serve, and start it anew."
            )
        self._tables.close()
        self._tables, self._base, self._place = found, base, self._place_opened(before)
        self._thumbnails = thumbnails(self.folder)
        self._gauges.clear()
        self._known = None
        self._view = self._viewed()

    def _edit(
        self, kind: str, change: Callable[[EditTransaction], str | None], shots: Sequence[Shot] = ()
    ) -> EditResult:
        """Apply one edit to the model that is in the folder, also if a new one comes while the edit begins."""
        for _ in range(EDIT_TRIES):
            self.refresh()  # before the transaction, which belongs to one model
            with suppress(OutdatedCatalog):
                return self._edit_once(kind, change, shots)
        raise CannotWrite(f"The model in {self.folder} is being replaced. Nothing was changed: try again.")

    def _edit_once(
        self, kind: str, change: Callable[[EditTransaction], str | None], shots: Sequence[Shot]
    ) -> EditResult:
        """Apply one edit in a transaction; the model is rebuilt before the commit, so an edit that breaks it fails.

        Meanwhile, other threads are answered by the model from before the edit.
        """
        tables = self._tables
        with self._editing, tables.edit(kind) as draft:
            try:
                before, was = self.view(), edits.tested_items(tables)
                id = change(draft)
                after = self._viewed()
                with self._lock:
                    self._check_place(tables)
                    number = draft.commit()
                    self._view = replace(after, revision=number)
            except BaseException:
                self._gauges.clear()  # a rollback frees item numbers for reuse
                raise
            pair = (before.model, before.products), (after.model, after.products)
            accuracy = edits.accuracies(tables, *pair, was)
            product = next((product for product in after.products if product.id == id), None)
            said = edits.notes(product, after.model, shots, len(self._base.model.classes))
            said += kinds.notes(tables, draft.kinds, before.model, after.model)
            return EditResult(tables.history(1)[0], product, *accuracy, notes=said, kinds=draft.kinds)

    def _check_place(self, tables: CatalogDatabase) -> None:
        """See that an edit would not be written to a file that nobody opens again, or beside another model.

        Raises:
            OutdatedCatalog: the folder has other files than those of ``tables`` now.
        """
        if self._tables is not tables or self._place_now() != self._place:
            raise OutdatedCatalog(f"The model in {self.folder} was replaced. Open it again.")

    def _viewed(self) -> Snapshot:
        with self._tables.one_state():
            revision, products = self._tables.revision(), products_of(self._tables)
            state = state_of(self._tables, self._base, products)
            asked, set_anew = asked_of(self._tables, self._base), limits.limits_of(self._tables)
            model = model_of(self._base, state, partial(self._gauge, asked), set_anew, asked)
            return Snapshot(self._tables.bundle, revision, model, products)

    def _gauge(self, asked: AskedPrior, sums: Moments) -> NewcomerCalibration | None:
        """Calibration from validation items of the fitted classes; cached until one or the prior changes."""
        moved = self._tables.rows(f"SELECT item.id {ALL_ITEMS} item.base IS NOT {HOME_CLASS}")
        key = tuple(asked.values or ()), tuple(row[0] for row in moved)
        if key not in self._gauges:
            self._gauges = {key: gauge_of(self._tables, self._base, sums, asked)}
        return self._gauges[key]
