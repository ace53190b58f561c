"""Hedges: a read that is slow by accident is begun a second time, and not where everything is slow."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from core.errors import StoreError, StoreTimeoutError
from serving.tiers.hedges import SHARE, Hedges
from tests.simulation.loop import VirtualLoop

USUAL_S, SLOW_S = 0.004, 0.4
LEARNT = 200


class Store:
    """Takes for each read as long as it is told, or fails then."""

    def __init__(self) -> None:
        self.takes_s: list[float] = []
        self.fails: list[bool] = []
        self.reads = 0

    async def read(self) -> int:
        self.reads += 1
        number = self.reads
        takes_s = self.takes_s.pop(0) if self.takes_s else USUAL_S
        fails = self.fails.pop(0) if self.fails else False
        await asyncio.sleep(takes_s)
        if fails:
            raise StoreTimeoutError(f"read {number}")
        return number


@pytest.fixture
def loop():
    return VirtualLoop()


@pytest.fixture
def store():
    return Store()


def run(loop: VirtualLoop, work: Coroutine[Any, Any, Any]) -> Any:
    return loop.run_until(loop.create_task(work))


async def learnt(store: Store, *, share: float = SHARE) -> Hedges:
    """Return hedges that know how long reads take."""
    hedges = Hedges(share=share)
    # Each a little shorter than the one before: none of them is slow.
    store.takes_s = [USUAL_S * (1.2 - number / 1_000) for number in range(LEARNT)]
    for _ in range(LEARNT):
        await hedges.read(store.read)
    assert store.reads == LEARNT
    store.reads = 0
    return hedges


def test_a_read_that_is_slow_by_accident_is_answered_by_a_second_one(loop, store):
    """
    One read in a hundred took a third of a second, and a feed of a hundred rows had one each time.
    """

    async def play() -> float:
        hedges = await learnt(store)
        store.takes_s = [SLOW_S]
        began_at = loop.time()
        assert await hedges.read(store.read) == 2
        return loop.time() - began_at

    assert 2 * USUAL_S < run(loop, play()) < 2.2 * USUAL_S


def test_where_everything_is_slow_few_reads_are_begun_twice(loop, store):
    """
    A table that is throttled would be asked twice as much, and stay so.
    """

    async def play() -> int:
        hedges = await learnt(store)
        store.takes_s = [SLOW_S] * 5_000
        await asyncio.gather(*(hedges.read(store.read) for _ in range(1_000)))
        return store.reads

    assert 1_000 < run(loop, play()) <= 1_000 * (1 + SHARE) + 10


def test_nothing_is_begun_twice_before_it_is_known_what_is_slow(loop, store):
    """
    The first reads of a worker wait for connections, all of them.
    """

    async def play() -> int:
        hedges = Hedges()
        store.takes_s = [SLOW_S] * 10
        await asyncio.gather(*(hedges.read(store.read) for _ in range(10)))
        return store.reads

    assert run(loop, play()) == 10


@pytest.mark.parametrize("fails", [[True, False], [False, True]], ids=["first", "second"])
def test_one_of_two_reads_may_fail(loop, store, fails):
    """
    The second read is begun to help; that one of them fails must cost nothing.
    """

    async def play() -> int:
        hedges = await learnt(store)
        store.takes_s, store.fails = [2 * USUAL_S, 4 * USUAL_S], list(fails)
        return await hedges.read(store.read)

    assert run(loop, play()) == 1 + fails.index(False)


def test_a_read_that_fails_in_the_moment_in_which_the_other_is_answered_costs_nothing(loop, store):
    """
    A set has no order: when the failed one of the two was met first, the answer that was there was not told.
    """

    async def read(number: int, may: asyncio.Event) -> int:
        await may.wait()
        if number == 1:
            raise StoreTimeoutError("read 1")
        return number

    async def play() -> list[int]:
        hedges, answers = await learnt(store), []
        for order in [(1, 2), (2, 1)] * 4:
            numbers, may = iter(order), asyncio.Event()
            loop.call_later(SLOW_S, may.set)
            answers.append(await hedges.read(lambda numbers=numbers, may=may: read(next(numbers), may)))
        return answers

    assert run(loop, play()) == [2] * 8


def test_two_reads_that_fail_are_a_failure(loop, store):
    """
    Behind the record is nothing.
    """

    async def play() -> None:
        hedges = await learnt(store)
        store.takes_s, store.fails = [SLOW_S, SLOW_S], [True, True]
        with pytest.raises(StoreError, match="read 2"):
            await hedges.read(store.read)

    run(loop, play())


def test_without_a_share_nothing_is_begun_twice(loop, store):
    """
    One disk answers no sooner if it is asked twice.
    """

    async def play() -> int:
        hedges = await learnt(store, share=0)
        store.takes_s = [SLOW_S]
        await hedges.read(store.read)
        return store.reads

    assert run(loop, play()) == 1
