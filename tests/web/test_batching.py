"""Batches: the same answers, in order, as large as the load makes them, and nobody waits for nobody."""

import asyncio
import threading

from mixtura.web.batching import Batcher


def run(scenario):
    """Run a coroutine that is given a factory of running batchers."""

    async def whole():
        tasks = []

        def start(work, size=4, wait=5.0):
            batcher = Batcher(work, size, wait)
            tasks.append(asyncio.create_task(batcher.run()))
            return batcher

        try:
            async with asyncio.timeout(20):
                return await scenario(start)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(whole())


class Gate:
    """Work that waits until it is let through; remembers its batches."""

    def __init__(self):
        self.open, self.begun, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, items):
        self.batches.append(list(items))
        self.begun.set()
        assert self.open.wait(20)
        return [10 * item for item in items]


def test_each_gets_its_own_result():
    async def scenario(start):
        batcher = start(lambda items: [item**2 for item in items])
        return await asyncio.gather(*(batcher.submit(i) for i in range(50)))

    assert run(scenario) == [i**2 for i in range(50)]


def test_what_comes_while_a_batch_is_computed_is_the_next_batch():
    gate = Gate()

    async def scenario(start):
        batcher = start(gate)
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.to_thread(gate.begun.wait)
        others = [asyncio.create_task(batcher.submit(i)) for i in range(1, 8)]
        await asyncio.sleep(0)
        assert batcher.waiting == 7
        gate.open.set()
        return await asyncio.gather(first, *others)

    assert run(scenario) == [10 * i for i in range(8)]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_a_lone_item_does_not_wait():
    async def scenario(start):
        batcher = start(lambda items: items, wait=3600.0)
        with batcher.announced():
            pass  # it turned out to be no photo
        return await batcher.submit(1)

    assert run(scenario) == 1


def test_a_batch_waits_for_what_is_announced():
    sizes = []

    async def scenario(start):
        batcher = start(lambda items: sizes.append(len(items)) or items, wait=3600.0)
        with batcher.announced():
            first = asyncio.create_task(batcher.submit(1))
            await asyncio.sleep(0.05)
            assert not first.done()
        return await asyncio.gather(first, batcher.submit(2))

    assert run(scenario) == [1, 2]
    assert sizes == [2]


def test_but_not_for_long():
    async def scenario(start):
        batcher = start(lambda items: items, wait=0.01)
        with batcher.announced():
            return await batcher.submit(1)

    assert run(scenario) == 1


def test_one_bad_item_spoils_no_other():
    def work(items):
        if 3 in items:
            raise ValueError("three")
        return items

    async def scenario(start):
        batcher = start(work)
        return await asyncio.gather(*(batcher.submit(i) for i in range(8)), return_exceptions=True)

    answers = run(scenario)
    assert [a for a in answers if not isinstance(a, Exception)] == [0, 1, 2, 4, 5, 6, 7]
    assert isinstance(answers[3], ValueError)


def test_who_has_left_is_not_computed():
    gate = Gate()

    async def scenario(start):
        batcher = start(gate)
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.to_thread(gate.begun.wait)
        gone, stays = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(first, stays)

    assert run(scenario) == [0, 20]
    assert gate.batches == [[0], [2]]


def test_the_loop_goes_on_while_a_batch_is_computed():
    gate = Gate()

    async def scenario(start):
        task = asyncio.create_task(start(gate).submit(1))
        await asyncio.to_thread(gate.begun.wait)
        for _ in range(100):
            await asyncio.sleep(0)
        gate.open.set()
        return await task

    assert run(scenario) == 10
