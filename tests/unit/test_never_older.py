"""Never older: who was served a row is served no older one, whatever loads, copies and tiers tell late."""

import asyncio

import pytest

from core.errors import StoreError
from core.windows import NEVER_MS
from serving.tiers.reader import TieredReader
from tests.fakes import idle, until
from tests.serving_kit import FailingStore
from tests.tiers_kit import OTHER, SOFT_TTL_MS, USER, CountingStore, SlowStore, fail, stored, values, write


async def test_who_was_served_a_row_is_served_no_older_one(reader, cache, record, clock):
    """
    Redis was slow for a moment, so the record answered; then Redis answered, whose newest rows were still owed, and
    within one process a count of 347 became 237.
    """
    await write(237, cache)
    await write(347, record)
    cache.before_answer = fail
    assert await values(reader, OTHER, USER) == [None, 347]
    cache.before_answer = lambda: None
    clock.advance(SOFT_TTL_MS + 1)

    assert await values(reader, USER) == [347]


async def test_who_joins_a_load_is_told_nothing_older_than_was_served_meanwhile(cache, record, clock, metrics):
    """
    A slow read of the record was under way when the row changed; the new one was served from Redis, Redis failed, and
    who asked then joined the slow read: time went back.
    """
    await write(1, record, key=OTHER)
    slow = SlowStore(record)
    reader = TieredReader(local=None, cache=cache, record=slow, clock=clock, metrics=metrics)
    first = asyncio.create_task(values(reader, OTHER))
    await until(lambda: slow.found is not None)
    await write(2, record, cache, key=OTHER)
    assert await values(reader, OTHER) == [2]
    cache._rows.clear()
    second = asyncio.create_task(values(reader, OTHER))
    await asyncio.sleep(0.01)
    slow.may.set()

    assert [await first, await second][1] == [2]


@pytest.mark.parametrize("first_goes", [True, False])
@pytest.mark.parametrize("is_away", [False, True])
async def test_who_joins_a_load_keeps_no_copy_of_what_was_replaced_before_it_came(
    local, record, clock, metrics, first_goes, is_away
):
    """
    The load had begun before a row was announced, the second reader after it: to that one the old row was news, and it
    kept it as a copy for the whole ``soft_ttl``.
    """
    await write(1, record)
    slow = SlowStore(record)
    cache = FailingStore("cache", StoreError("it is away")) if is_away else None
    reader = TieredReader(local=local, cache=cache, record=slow, clock=clock, metrics=metrics)
    first = asyncio.create_task(values(reader, USER))
    await until(lambda: slow.found is not None)
    await write(2, record)
    local.announce([stored(2)])
    second = asyncio.create_task(values(reader, USER))
    await idle()
    if first_goes:
        first.cancel()
        await idle()
    slow.may.set()
    await asyncio.gather(first, second, return_exceptions=True)

    assert await values(reader, USER) == [2]


async def served_beside_a_slow_load(local, record, clock, metrics):
    """Return a reader that has served version 1, what holds up its load from before, which had found nothing, and that."""
    slow, cache = SlowStore(record), CountingStore("cache", clock)
    reader = TieredReader(local=local, cache=cache, record=slow, clock=clock, metrics=metrics)
    first = asyncio.create_task(values(reader, USER))
    await until(lambda: slow.found is not None)
    await write(1, record, cache)
    assert await values(reader, USER) == [1]
    return reader, slow, first


@pytest.mark.parametrize("is_displaced", [False, True], ids=["copied", "displaced"])
async def test_a_load_that_found_nothing_does_not_hide_a_row_that_was_found_since(
    local, record, clock, metrics, is_displaced
):
    """
    A user's first row was in the record and not yet announced: a second read had it, then a slow one came that had found
    nothing, and who asked next was told that there is none. A copy that is there shows that the load is the older of
    the two; where it was displaced, what was served is all that tells.
    """
    reader, slow, first = await served_beside_a_slow_load(local, record, clock, metrics)
    if is_displaced:
        copy = local.get(USER, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0)
        local.put(USER._replace(pk="user#i9"), copy.row, size=99_700, read_at_ms=clock.now_ms())
        assert local.get(USER, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0) is None
    slow.may.set()
    await first

    assert await values(reader, USER) == [1]


async def test_no_copy_stays_that_is_older_than_what_was_served(local, record, clock, metrics):
    """
    A slow load had found nothing, a second read the first version of a row, and the slow one, looking again, the second
    one, which was not announced yet: it was served, and who asked next was told the first again.
    """
    reader, slow, first = await served_beside_a_slow_load(local, record, clock, metrics)
    await write(2, record)
    slow.may.set()
    assert await first == [2]

    assert await values(reader, USER) == [2]


async def test_who_was_served_a_copy_that_a_forsaken_load_left_is_served_no_older_row(
    local, cache, record, clock, metrics
):
    """
    Whoever had begun a load went away; its copy was served to the next one, ended, and Redis still had the former row.
    """
    slow = SlowStore(record)
    reader = TieredReader(local=local, cache=cache, record=slow, clock=clock, metrics=metrics)
    await write(3, record)
    first = asyncio.create_task(values(reader, USER))
    await until(lambda: slow.found is not None)
    first.cancel()
    await idle()
    slow.may.set()
    await idle()
    assert await values(reader, USER) == [3]
    cache._rows.clear()
    await write(2, cache)
    clock.advance(SOFT_TTL_MS + 1)

    assert await values(reader, USER) == [3]
