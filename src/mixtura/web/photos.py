"""From the bytes of photos to decisions and neighbors: decoded in some threads, encoded in batches in one."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from mixtura.catalog import Catalog
from mixtura.catalog.catalog import Snapshot
from mixtura.catalog.journal import Journal
from mixtura.errors import BadItem, CannotWrite, OutOfSpace
from mixtura.model.decide import with_flaw
from mixtura.pipeline.factory import PhotoEncoder
from mixtura.pipeline.queries import Prepared, embed, prepare
from mixtura.records.decision import Decision, Neighbor
from mixtura.web.admission import AdmissionQueue
from mixtura.web.batching import Batcher
from mixtura.web.live import LiveShop, Shop
from mixtura.web.problems import Refusal
from mixtura.web.settings import Settings

JPEG = b"\xff\xd8\xff"
MAX_DECODE_THREADS = 2
"""Threads that decode: the largest photo that is read may need hundreds of MiB while it is."""


@dataclass(frozen=True)
class Query:
    """A photo that is ready for an encoder: decide on it, or only search; ``count`` items are to be named.

    ``number`` is its place in the request, from 1; ``data`` are its bytes, should another encoder come meanwhile.
    """

    photo: Prepared
    data: bytes
    encoder: PhotoEncoder
    number: int
    count: int
    decide: bool


@dataclass(frozen=True)
class Decided:
    """A decision, the id by which the journal knows it, and the catalog that it was made with."""

    decision: Decision
    id: str
    view: Snapshot


@dataclass(frozen=True)
class Unreadable:
    """A photo that could not be read."""

    name: str
    reason: str
    message: str


Result = Decided | tuple[Neighbor, ...]


class Photos:
    """Answers for photos of many requests at once."""

    def __init__(self, live: LiveShop, journal: Journal, settings: Settings) -> None:
        self._live, self._journal, self._settings = live, journal, settings
        self.admission = AdmissionQueue(
            settings.photo_slots, settings.max_wait, settings.overload_max_wait, settings.overload_slots
        )
        self.batcher: Batcher[Query, Result] = Batcher(self._work, settings.batch_size, settings.batch_wait)
        self._decoders = ThreadPoolExecutor(min(MAX_DECODE_THREADS, os.cpu_count() or 1), "decoder")
        self._one_at_a_time = threading.Lock()
        self.decided, self.failing = 0, False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compute batches until the end of the block."""
        task = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._decoders.shutdown(wait=True, cancel_futures=True)

    async def answer(self, photos: Sequence[bytes], count: int, decide: bool) -> list[Result | Unreadable]:
        """One result a photo, in their order.

        Raises:
            Refusal: 503 if too many photos are in work for too long.
        """
        answers: list[Result | Unreadable] = []
        # In parts, so that a request of many photos leaves slots to others; in an overload, a large first part would
        # never find enough of them.
        first, later = max(1, self.admission.overload_slots // 2), max(1, self.admission.slots // 2)
        for start, end in pairwise([0, *range(first, len(photos), later), len(photos)]):
            part = photos[start:end]
            async with self.admission.admit(len(part), continues=start > 0):
                tasks = (self._answer_one(photo, n, count, decide) for n, photo in enumerate(part, start + 1))
                answers += await asyncio.gather(*tasks)
        return answers

    async def _answer_one(self, photo: bytes, number: int, count: int, decide: bool) -> Result | Unreadable:
        with self.batcher.announced():
            try:
                query = await asyncio.get_running_loop().run_in_executor(
                    self._decoders, self._query, photo, number, count, decide
                )
            except BadItem as error:
                return Unreadable(_name(number), error.reason, str(error))
        return await self.batcher.submit(query)

    def _query(self, photo: bytes, number: int, count: int, decide: bool) -> Query:
        encoder = self._live.current.encoder
        return Query(self._prepared(photo, encoder, number, decide), photo, encoder, number, count, decide)

    def _prepared(self, photo: bytes, encoder: PhotoEncoder, number: int, decide: bool) -> Prepared:
        with self.decoding(photo):
            return prepare(encoder, photo, f"photo {number}", decide and self._settings.keep_photos)

    def decoding(self, photo: bytes) -> AbstractContextManager[Any]:
        """Held while a photo is decoded: one at a time, but for JPEG.

        A file of 40 bytes may be a WebP of 50 megapixels, which takes a gigabyte while it is decoded; large JPEGs are
        reduced on the way.
        """
        return nullcontext() if photo.startswith(JPEG) else self._one_at_a_time

    def _work(self, queries: Sequence[Query]) -> list[Result]:
        """One batch; the only place where the encoder runs for questions."""
        try:
            results = self._live.at_work(lambda shop: self._results(shop, queries))
        except (Refusal, CannotWrite, OutOfSpace):
            self.failing = True  # until a decision can be made and stored again
            raise
        self.failing = False
        return results

    def _results(self, shop: Shop, queries: Sequence[Query]) -> list[Result]:
        queries = [self._for(shop.encoder, query) for query in queries]
        embedding = embed(shop.encoder, [query.photo for query in queries])
        asked = [row for row, query in enumerate(queries) if query.decide]
        sought = [row for row, query in enumerate(queries) if not query.decide]
        found: dict[int, Result] = {}
        if sought:
            count = max(queries[row].count for row in sought)
            near = shop.catalog.shelf().nearest(embedding[sought], count)
            found |= {row: near[place][: queries[row].count] for place, row in enumerate(sought)}
        if asked:
            decided = self._decide(shop.catalog, [queries[row] for row in asked], embedding[asked])
            found |= zip(asked, decided, strict=True)
        return [found[row] for row in range(len(queries))]

    def _for(self, encoder: PhotoEncoder, query: Query) -> Query:
        """The query, prepared again if another encoder has come since."""
        if query.encoder is encoder:
            return query
        return replace(query, photo=self._prepared(query.data, encoder, query.number, query.decide), encoder=encoder)

    def _decide(self, catalog: Catalog, queries: Sequence[Query], embedding: np.ndarray) -> list[Decided]:
        names, count = [_name(query.number) for query in queries], max(query.count for query in queries)
        view, decisions = catalog.decide_in_view(names, embedding, count)
        cut = [
            with_flaw(replace(d, neighbors=d.neighbors[: q.count]), q.photo.flaw)
            for d, q in zip(decisions, queries, strict=True)
        ]
        ids = self._journal.log(cut, embedding, [query.photo.picture for query in queries])
        self.decided += len(ids)
        return [Decided(decision, id, view) for decision, id in zip(cut, ids, strict=True)]


def _name(number: int) -> str:
    """The id of a photo in an answer: its place in the request as programs count, from 0."""
    return str(number - 1)
