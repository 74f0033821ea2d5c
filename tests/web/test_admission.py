"""Slots for photos in work: in order, in time, and few of them in an overload."""

import asyncio

import pytest

from mixtura.web.admission import AdmissionQueue
from mixtura.web.problems import Refusal


def test_slots_are_given_in_order_and_given_back():
    async def scenario():
        queue, order = AdmissionQueue(4, 20.0, 20.0, 4), []

        async def ask(name, count):
            async with queue.admit(count):
                order.append(name)
                await asyncio.sleep(0)
                assert queue.taken <= 4

        await asyncio.gather(*(ask(name, count) for name, count in [("a", 3), ("b", 4), ("c", 1), ("d", 4), ("e", 2)]))
        assert queue.taken == 0
        return order

    assert asyncio.run(scenario()) == list("abcde")


def test_no_slot_in_time_is_503_and_leaves_no_trace():
    async def scenario():
        queue = AdmissionQueue(2, 0.01, 0.01, 2)
        async with queue.admit(2):
            for count in (1, 2):
                with pytest.raises(Refusal) as refused:
                    async with queue.admit(count):
                        pass
                assert refused.value.status == 503 and refused.value.headers["Retry-After"] == "1"
        async with queue.admit(2):
            assert queue.taken == 2
        return queue.taken

    assert asyncio.run(scenario()) == 0


def test_slots_of_those_who_leave_are_free():
    """However the cancelling and the giving of slots fall together."""

    async def scenario():
        queue = AdmissionQueue(3, 5.0, 5.0, 3)

        async def ask(count):
            async with queue.admit(count):
                await asyncio.sleep(0.001)

        for round in range(30):
            tasks = [asyncio.create_task(ask(1 + i % 3)) for i in range(8)]
            for _ in range(round % 7):
                await asyncio.sleep(0)
            for task in tasks[round % 3 :: 2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert queue.taken == 0

    asyncio.run(scenario())


def test_where_too_much_is_asked_few_are_taken_in():
    """And when these few find room, as many as ever."""

    async def scenario():
        queue, leave = AdmissionQueue(4, 0.1, 0.0, 2), asyncio.Event()

        async def work():
            async with queue.admit(1, continues=True):
                await leave.wait()

        first = [asyncio.create_task(work()) for _ in range(5)]  # four, and one who waits
        await asyncio.sleep(0.5)
        assert queue.taken == 4
        leave.set()
        await asyncio.gather(*first)
        leave.clear()
        second = [asyncio.create_task(work()) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert queue.taken == 2
        leave.set()
        await asyncio.gather(*second)
        await asyncio.sleep(0.5)
        leave.clear()
        third = [asyncio.create_task(work()) for _ in range(4)]
        await asyncio.sleep(0.01)
        assert queue.taken == 4
        leave.set()
        await asyncio.gather(*third)
        assert queue.taken == 0
        async with queue.admit(4):  # more than the few, where nobody else is
            return queue.taken

    assert asyncio.run(scenario()) == 4


def test_where_too_much_is_asked_nobody_waits_long():
    """And when that is over, everybody may wait again."""

    async def scenario():
        queue = AdmissionQueue(1, 0.2, 0.0, 1)
        async with queue.admit(1):
            line = [asyncio.create_task(enter(queue)) for _ in range(3)]  # a rush: they wait
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in line)
            queue.check_overload()  # a rush is no reason to refuse unread
            stays = asyncio.create_task(enter(queue, continues=True))
            await asyncio.sleep(0.6)
            assert await asyncio.gather(*line) == [503, 503, 503] and not stays.done()
            assert queue._allowed_wait() == 0.0 and await enter(queue) == 503  # there was no room for too long
            with pytest.raises(Refusal, match="waiting"):
                queue.check_overload()
        assert await stays == 200
        await asyncio.sleep(0.6)
        assert queue._allowed_wait() == 0.2
        queue.check_overload()
        async with queue.admit(1):
            again = asyncio.create_task(enter(queue))
            await asyncio.sleep(0.05)
            assert not again.done()
        return await again

    async def enter(queue, **options):
        try:
            async with queue.admit(1, **options):
                return 200
        except Refusal as refused:
            return refused.status

    assert asyncio.run(scenario()) == 200
