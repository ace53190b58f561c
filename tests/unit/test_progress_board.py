"""The progress of partitions: remembered for a moment, and never told to have gone back."""

import asyncio

from core.errors import StoreTimeoutError
from core.ports import StoredRow
from core.progress import progress_key, progress_row
from serving.answers.progress_board import ProgressBoard
from stores.memory import MemoryStore
from tests.serving_kit import FailingStore
from tests.tiers_kit import CountingStore


async def test_progress_is_remembered_for_a_moment_and_never_goes_back(clock):
    """
    Every answer tells up to when it is complete: that must not cost a call each time, nor jump back and forth.
    """
    store = CountingStore("cache", clock)
    board = ProgressBoard(store=store, clock=clock)
    await store.write([progress_row("user", 3, ver=1, as_of_ms=50)], deadline_ms=100)

    first = await board.as_of_ms([("user", 3), ("user", 4), ("user", 3)])
    await store.write([progress_row("user", 3, ver=2, as_of_ms=70)], deadline_ms=100)
    remembered = await board.as_of_ms([("user", 3)])
    clock.advance(251)
    renewed = await board.as_of_ms([("user", 3)])
    clock.advance(251)
    await store.write([progress_row("user", 3, ver=3, as_of_ms=60)], deadline_ms=100)
    not_back = await board.as_of_ms([("user", 3)])

    assert first == {("user", 3): 50, ("user", 4): 0}
    assert [answer["user", 3] for answer in (remembered, renewed, not_back)] == [50, 70, 70]
    assert store.asked[0] == [progress_key("user", 3), progress_key("user", 4)]
    assert len(store.asked) == 3


async def test_progress_is_read_anew_after_the_clock_was_put_back(clock):
    """
    The machine's clock was five minutes ahead and is corrected: for five minutes each answer would say that nothing has
    become complete since, because what was read in the future looks fresh.
    """
    store = MemoryStore(clock)
    await store.write([progress_row("user", 3, ver=1, as_of_ms=50)], deadline_ms=100)
    board = ProgressBoard(store=store, clock=clock)
    await board.as_of_ms([("user", 3)])
    await store.write([progress_row("user", 3, ver=2, as_of_ms=70)], deadline_ms=100)

    clock.advance(-300_000)

    assert board.known([("user", 3)]) is None
    assert await board.as_of_ms([("user", 3)]) == {("user", 3): 70}


async def test_progress_that_cannot_be_read_is_what_was_known_last(clock):
    """
    A store that fails, or a corrupt row in it, costs the figure its freshness, and nobody their features.
    """
    store = MemoryStore(clock)
    await store.write([progress_row("user", 3, ver=1, as_of_ms=50)], deadline_ms=100)
    board = ProgressBoard(store=store, clock=clock)
    await board.as_of_ms([("user", 3)])
    clock.advance(251)
    await store.write([StoredRow(progress_key("user", 3), 2, bytes(8) + b"\xc1")], deadline_ms=100)
    down = ProgressBoard(store=FailingStore("cache", StoreTimeoutError("no answer")), clock=clock)

    assert await board.as_of_ms([("user", 3)]) == {("user", 3): 50}
    assert await down.as_of_ms([("user", 3)]) == {("user", 3): 0}


async def test_partitions_that_different_requests_ask_for_are_asked_for_together(clock):
    """
    One at a time was asked for, that of whoever came first: with many partitions each third request waited for Redis.
    """
    store = CountingStore("cache", clock)
    board = ProgressBoard(store=store, clock=clock)
    places = [("user", number) for number in range(64)]
    await board.as_of_ms(places)
    clock.advance(251)

    for place in places:
        assert board.known([place]) == {place: 0}
    for _ in range(10):
        await asyncio.sleep(0)

    assert [sorted(keys) for keys in store.asked[1:]] == [
        [progress_key("user", 0)],
        sorted(progress_key(*place) for place in places[1:]),
    ]
