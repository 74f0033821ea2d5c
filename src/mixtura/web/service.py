"""What the routes stand on: a catalog, its journal, an encoder, and the threads in which they work."""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, FastAPI, Request

from mixtura.catalog import Catalog
from mixtura.catalog.journal import Journal
from mixtura.pipeline.factory import PhotoEncoder
from mixtura.records.catalog import Product
from mixtura.web.photos import Photos
from mixtura.web.problems import Refusal
from mixtura.web.settings import Settings
from mixtura.web.telemetry import Telemetry

T = TypeVar("T")

READERS = 4
"""Threads that read the catalog; those that decode photos and the one that encodes them are others."""


class Service:
    """One catalog that is served.

    The event loop never waits for the disk or for arithmetic: reading is done in some threads, editing in one, so that
    edits follow one another, and what takes long (drift, groups) in one of its own.
    """

    def __init__(self, catalog: Catalog, journal: Journal, encoder: PhotoEncoder, settings: Settings) -> None:
        self.catalog, self.journal, self.encoder, self.settings = catalog, journal, encoder, settings
        self.telemetry = Telemetry()
        self.photos = Photos(catalog, journal, encoder, settings)
        self.drift: Latest[Any] = Latest()
        self.groups: Latest[Any] = Latest()
        self.ready = False
        self._readers = ThreadPoolExecutor(READERS, "reader")
        self._editor = ThreadPoolExecutor(1, "editor")
        self._thinker = ThreadPoolExecutor(1, "thinker")
        self._told = 0

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Take requests until the end of the block."""
        async with self.photos.running():
            self.ready = True
            try:
                yield
            finally:
                self.ready = False
                for pool in (self._readers, self._thinker):
                    pool.shutdown(wait=False, cancel_futures=True)
                self._editor.shutdown(wait=True)  # an edit that has begun is finished

    async def read(self, work: Callable[[], T]) -> T:
        """Read from the catalog as it is now, whoever has changed it."""
        return await self._in(self._readers, work)

    async def edit(self, work: Callable[[], T]) -> T:
        """Change the catalog, or the journal by hand, after all changes that were asked for before."""
        self._told += 1
        return await self._in(self._editor, work)

    async def think(self, latest: "Latest[T]", work: Callable[[], T]) -> T:
        """What takes long; computed again only when there are other decisions, answers or edits."""
        key = (await self.read(lambda: self.catalog.view().version), self.photos.decided, self._told)
        return await latest.get(key, lambda: self._in(self._thinker, work))

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        def fresh() -> T:
            self.catalog.refresh()
            return work()

        return await asyncio.get_running_loop().run_in_executor(pool, fresh)


@dataclass
class Latest(Generic[T]):
    """The last value of something slow, with what it depended on; one at a time computes it."""

    def __post_init__(self) -> None:
        self._lock, self._kept = asyncio.Lock(), None

    async def get(self, key: Hashable, make: Callable[[], Any]) -> T:
        """The value for ``key``."""
        async with self._lock:
            if self._kept is None or self._kept[0] != key:
                self._kept = (key, await make())
            return self._kept[1]


async def service_of(request: Request) -> Service:
    """The service that a request is for; ``async``, since FastAPI would call it in a thread otherwise."""
    return request.app.state.service


Here = Annotated[Service, Depends(service_of)]


def product_of(catalog: Catalog, id: str) -> Product:
    """The product with an id; its name is not enough, since a name may be another product's id.

    Raises:
        Refusal: 404.
    """
    for product in catalog.products():
        if product.id == id:
            return product
    raise Refusal(404, f"There is no product {id!r} in this catalog. GET /v1/products lists them.")
