"""What the routes stand on: a catalog, its journal, an encoder, and the threads in which they work."""

import asyncio
from collections import defaultdict
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
from mixtura.web.live import LiveShop
from mixtura.web.photos import Photos
from mixtura.web.problems import Refusal, busy
from mixtura.web.settings import Settings
from mixtura.web.telemetry import Telemetry

T = TypeVar("T")

READ_THREADS = 4
"""Threads that read the catalog; those that decode photos and the one that encodes them are others."""


class Service:
    """One catalog that is served.

    The event loop never waits for the disk or for arithmetic: reading is done in some threads, editing in one, so that
    edits follow one another, and what takes long (drift, groups) in one of its own.
    """

    def __init__(self, catalog: Catalog, journal: Journal, encoder: PhotoEncoder, settings: Settings) -> None:
        self.live, self.journal, self.settings = LiveShop(catalog, encoder), journal, settings
        self.telemetry = Telemetry()
        self.photos = Photos(self.live, journal, settings)
        self.drift: Memo[Any] = Memo()
        self.groups: Memo[Any] = Memo()
        self.kinds: defaultdict[str, Memo[Any]] = defaultdict(Memo)  # by product
        self.ready = False
        self._observe()
        self._read_pool = ThreadPoolExecutor(READ_THREADS, "reader")
        self._edit_pool = ThreadPoolExecutor(1, "editor")
        self._compute_pool = ThreadPoolExecutor(1, "compute")
        self._edit_count = 0

    @property
    def catalog(self) -> Catalog:
        """The catalog that answers now; a refit with another encoder brings another one."""
        return self.live.current.catalog

    @property
    def encoder(self) -> PhotoEncoder:
        """The encoder of :attr:`catalog`."""
        return self.live.current.encoder

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Take requests until the end of the block."""
        async with self.photos.running():
            self.ready = True
            try:
                yield
            finally:
                self.ready = False
                for pool in (self._read_pool, self._compute_pool):
                    pool.shutdown(wait=False, cancel_futures=True)
                self._edit_pool.shutdown(wait=True)  # an edit that has begun is finished

    def _observe(self) -> None:
        """Have the metrics of this moment read when they are scraped."""
        batcher, admission, gauge = self.photos.batcher, self.photos.admission, self.telemetry.gauge
        gauge("catalog_revision", "Number of the last edit of the catalog.", lambda: self.catalog.revision)
        gauge("photos_waiting", "Photos that no batch has taken yet.", lambda: batcher.waiting)
        gauge("photos_in_work", "Photos that hold a slot.", lambda: admission.taken)
        gauge("batches", "Batches that the encoder has computed.", lambda: batcher.batches)
        gauge("batched_photos", "Photos in these batches.", lambda: batcher.items)
        gauge("ready", "Whether photos are being answered.", lambda: self.ready)

    async def read(self, work: Callable[[], T]) -> T:
        """Read from the catalog as it is now, whoever has changed it."""
        return await self._run(self._read_pool, work)

    async def edit(self, work: Callable[[], T]) -> T:
        """Change the catalog, or the journal by hand, after all changes that were asked for before."""
        self._edit_count += 1
        return await self._run(self._edit_pool, work)

    async def compute(self, memo: "Memo[T]", work: Callable[[], T]) -> T:
        """What takes long; computed again only after new decisions, answers or edits."""
        key = (await self.read(lambda: self.catalog.view().version), self.photos.decided, self._edit_count)
        return await memo.get(key, lambda: self._run(self._compute_pool, work))

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, self.live.at_work, lambda _: work())

    async def check_ready(self) -> None:
        """See that a question would be answered now.

        Raises:
            Refusal: 503 while the service starts or stops, or its model cannot be used.
            CannotWrite, OutOfSpace: the last decision could not be stored, and none could be now.
        """
        if not self.ready:
            raise busy("The service is starting or stopping.", 2)
        await self.read(self.journal.check_writable if self.photos.failing else lambda: None)


@dataclass
class Memo(Generic[T]):
    """The last value of something slow and the key it belongs to; computed by one request at a time."""

    def __post_init__(self) -> None:
        self._lock, self._kept = asyncio.Lock(), None

    async def get(self, key: Hashable, compute: Callable[[], Any]) -> T:
        """The value for ``key``."""
        async with self._lock:
            if self._kept is None or self._kept[0] != key:
                self._kept = (key, await compute())
            return self._kept[1]


async def service_of(request: Request) -> Service:
    """The service that a request is for; ``async``, since FastAPI would call it in a thread otherwise."""
    return request.app.state.service


ServiceDep = Annotated[Service, Depends(service_of)]


def product_of(catalog: Catalog, id: str) -> Product:
    """The product with an id; its name is not enough, since a name may be another product's id.

    Raises:
        Refusal: 404.
    """
    for product in catalog.products():
        if product.id == id:
            return product
    raise Refusal(404, f"There is no product {id!r} in this catalog. GET /v1/products lists them.")
