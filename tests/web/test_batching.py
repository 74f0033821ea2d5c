"""Batches: the same answers, in order, as large as the load makes them, and nobody waits for nobody."""

import asyncio
import threading

import pytest

from mixtura.web.batching import Batcher, Places
from mixtura.web.problems import Refusal


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


def test_places_are_given_in_order_and_given_back():
    async def scenario():
        places, order = Places(4, 20.0, 20.0, 4), []

        async def ask(name, count):
            async with places.some(count):
                order.append(name)
                await asyncio.sleep(0)
                assert places.taken <= 4

        await asyncio.gather(*(ask(name, count) for name, count in [("a", 3), ("b", 4), ("c", 1), ("d", 4), ("e", 2)]))
        assert places.taken == 0
        return order

    assert asyncio.run(scenario()) == list("abcde")


def test_no_place_in_time_is_503_and_leaves_no_trace():
    async def scenario():
        places = Places(2, 0.01, 0.01, 2)
        async with places.some(2):
            for count in (1, 2):
                with pytest.raises(Refusal) as refused:
                    async with places.some(count):
                        pass
                assert refused.value.status == 503 and refused.value.headers["Retry-After"] == "1"
        async with places.some(2):
            assert places.taken == 2
        return places.taken

    assert asyncio.run(scenario()) == 0


def test_places_of_those_who_leave_are_free():
    """However the cancelling and the giving of places fall together."""

    async def scenario():
        places = Places(3, 5.0, 5.0, 3)

        async def ask(count):
            async with places.some(count):
                await asyncio.sleep(0.001)

        for round in range(30):
            tasks = [asyncio.create_task(ask(1 + i % 3)) for i in range(8)]
            for _ in range(round % 7):
                await asyncio.sleep(0)
            for task in tasks[round % 3 :: 2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert places.taken == 0

    asyncio.run(scenario())


def test_where_too_much_is_asked_few_are_taken_in():
    """And when these few find room, as many as ever."""

    async def scenario():
        places, leave = Places(4, 0.1, 0.0, 2), asyncio.Event()

        async def work():
            async with places.some(1, admitted=True):
                await leave.wait()

        first = [asyncio.create_task(work()) for _ in range(5)]  # four, and one who waits
        await asyncio.sleep(0.5)
        assert places.taken == 4
        leave.set()
        await asyncio.gather(*first)
        leave.clear()
        second = [asyncio.create_task(work()) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert places.taken == 2
        leave.set()
        await asyncio.gather(*second)
        await asyncio.sleep(0.5)
        leave.clear()
        third = [asyncio.create_task(work()) for _ in range(4)]
        await asyncio.sleep(0.01)
        assert places.taken == 4
        leave.set()
        await asyncio.gather(*third)
        assert places.taken == 0
        async with places.some(4):  # more than the few, where nobody else is
            return places.taken

    assert asyncio.run(scenario()) == 4


def test_where_too_much_is_asked_nobody_waits_long():
    """And when that is over, everybody may wait again."""

    async def scenario():
        places = Places(1, 0.2, 0.0, 1)
        async with places.some(1):
            line = [asyncio.create_task(enter(places)) for _ in range(3)]  # a rush: they wait
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in line)
            places.check()  # a rush is no reason to refuse unread
            stays = asyncio.create_task(enter(places, admitted=True))
            await asyncio.sleep(0.6)
            assert await asyncio.gather(*line) == [503, 503, 503] and not stays.done()
            assert places._allowed() == 0.0 and await enter(places) == 503  # there was no room for too long
            with pytest.raises(Refusal, match="waiting"):
                places.check()
        assert await stays == 200
        await asyncio.sleep(0.6)
        assert places._allowed() == 0.2
        places.check()
        async with places.some(1):
            again = asyncio.create_task(enter(places))
            await asyncio.sleep(0.05)
            assert not again.done()
        return await again

    async def enter(places, **options):
        try:
            async with places.some(1, **options):
                return 200
        except Refusal as refused:
            return refused.status

    assert asyncio.run(scenario()) == 200
