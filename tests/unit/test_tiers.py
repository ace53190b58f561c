"""Tiers: which of local copies, the cache and the record is asked, and what of each is believed."""

import asyncio

import pytest

from core.errors import FormatError, StoreError, StoreTimeoutError
from core.leases import NO_ROW, new_token
from core.ports import Filling, RowKey, StoredRow
from serving.tiers.reader import TieredReader
from tests.tiers_kit import DIRECT, FAILURES_MAX, NOBODY, OTHER, SOFT_TTL_MS, USER, fail, stored, values, write


async def test_each_tier_is_asked_once_for_what_is_still_missing(reader, cache, record, metrics):
    """
    A feed of a thousand videos costs one call of each tier, not a thousand.
    """
    third = RowKey("user#i3", "spend@v1")
    await write(1, cache, record)
    await write(2, record, key=third)
    nobody = RowKey("user#i4", "spend@v1")

    assert await values(reader, USER, third, nobody) == [1, 2, None]

    assert cache.asked == [[USER, third, nobody]]
    assert record.asked == [[third, nobody]]
    tiers = {
        (tier, outcome): metrics.registry.get_sample_value(
            "freshet_tier_keys_total", {"tier": tier, "outcome": outcome}
        )
        for tier in ("local", "cache", "record")
        for outcome in ("hit", "miss")
    }
    assert tiers == {
        ("local", "hit"): None, ("local", "miss"): 3, ("cache", "hit"): 1, ("cache", "miss"): 2,
        ("record", "hit"): 1, ("record", "miss"): 1,
    }  # fmt: skip


async def test_a_direct_group_is_read_from_the_record_alone(reader, cache, record):
    """
    Who declares a group direct wants no copy of any kind between, not even our own.
    """
    await write(1, cache, record)
    await values(reader, USER, policy=DIRECT)
    await write(2, record)

    assert await values(reader, USER, policy=DIRECT) == [2]
    assert cache.asked == []
    assert len(record.asked) == 2


async def test_a_group_that_is_written_around_the_cache_is_not_looked_for_there(reader, cache, record):
    """
    Its rows are never in Redis: a look-up there would be a miss every time, or a row from before the policy changed.
    """
    await write(1, cache)
    await write(2, record)

    assert await values(reader, USER, cached=False) == [2]
    assert cache.asked == []


async def test_without_cache_and_copies_the_record_answers(record, clock, metrics):
    """
    A machine without a redis-server serves all the same.
    """
    await write(1, record)
    reader = TieredReader(local=None, cache=None, record=record, clock=clock, metrics=metrics)

    assert await values(reader, USER) == [1]


async def test_a_row_of_another_meaning_in_the_cache_is_a_counted_miss(reader, cache, record, metrics):
    """
    A record that was replaced numbers meanings anew, and Redis still held the former meaning of that number: its
    values were served as if they were the new one's.
    """
    await cache.write([stored(9, fingerprint=b"formerly")], deadline_ms=100)
    await write(1, cache, key=OTHER)
    await write(2, record)

    assert await values(reader, USER, OTHER) == [2, 1]

    counted = {
        outcome: metrics.registry.get_sample_value("freshet_tier_keys_total", {"tier": "cache", "outcome": outcome})
        for outcome in ("hit", "miss")
    }
    assert counted == {"hit": 1, "miss": 1}


async def test_a_row_of_another_meaning_is_a_miss_however_often_it_is_read(cache, record, clock, metrics):
    """
    What its bytes say was remembered, and the second reader was served it as if the first had been.
    """
    reader = TieredReader(local=None, cache=cache, record=record, clock=clock, metrics=metrics)
    await cache.write([stored(9, fingerprint=b"formerly")], deadline_ms=100)

    assert [await values(reader, USER) for _ in range(3)] == [[None], [None], [None]]


async def test_a_row_that_cannot_be_read_in_the_cache_costs_no_other_row_its_copy(reader, cache, record):
    """
    One corrupt value sent the whole request to the record.
    """
    await cache.write([StoredRow(USER, 9, bytes(8) + b"\xc1")], deadline_ms=100)
    await write(1, cache, key=OTHER)
    await write(2, record)

    assert await values(reader, USER, OTHER) == [2, 1]
    assert record.asked == [[USER]]


async def test_a_row_of_another_meaning_in_the_record_is_an_error_that_says_what_to_do(reader, record):
    """
    Behind the record is nothing: a wrong number would be served, or a right one silently missing.
    """
    await record.write([stored(9, fingerprint=b"formerly")], deadline_ms=100)

    with pytest.raises(FormatError, match=r"spend@v1 was computed with definition 666f726d65726c79, .*recover.md"):
        await values(reader, USER)


async def test_a_row_that_the_cache_has_lost_is_filled_in_by_its_first_reader(reader, cache, record):
    """
    Redis was emptied: until a row's next event, which may be days away, each read of it went to the record.
    """
    await write(1, record, key=OTHER)

    assert await values(reader, OTHER, NOBODY) == [1, None]
    assert await values(reader, OTHER, NOBODY) == [1, None]

    assert record.asked == [[OTHER, NOBODY]]
    assert (await cache.read([OTHER], deadline_ms=100))[OTHER] == stored(1, OTHER).value


@pytest.mark.parametrize("past_ms", [0, SOFT_TTL_MS])
async def test_what_is_filled_in_is_forgotten_after_a_while(reader, cache, record, clock, past_ms):
    """
    Nothing that a reader has put into the cache is true for ever, least of all that there is no row; and a row that is
    past was read in the record each time.
    """
    await write(1, record, key=OTHER)
    await values(reader, OTHER, NOBODY)
    clock.advance(past_ms)

    left = await cache.read([OTHER, NOBODY], deadline_ms=100)

    assert left == ({OTHER: stored(1, OTHER).value, NOBODY: NO_ROW} if not past_ms else {})


async def test_what_another_process_fills_in_is_waited_for(reader, cache, record):
    """
    The hottest row expires, and every worker of the fleet would read it in the record.
    """
    token = new_token()
    await write(1, record, key=OTHER)
    await cache.lease([OTHER], token=token, lease_ms=1_000, deadline_ms=100)
    reading = asyncio.create_task(values(reader, OTHER))
    await asyncio.sleep(0.01)
    await cache.fill([Filling(OTHER, stored(1, OTHER).value, None)], token=token, deadline_ms=100)

    assert await reading == [1]
    assert record.asked == []


async def test_who_holds_a_lease_and_has_died_is_not_waited_for(reader, cache, record):
    """
    A worker was killed between its lease and its filling; nobody could read the row until the lease ended.
    """
    await write(1, record, key=OTHER)
    await cache.lease([OTHER], token=new_token(), lease_ms=60_000, deadline_ms=100)

    assert await values(reader, OTHER) == [1]


async def test_of_those_who_wait_for_a_dead_holder_one_reads_for_all(cache, record, clock, metrics):
    """
    A worker that was killed, or had no processor, held the hottest row's lease: every other one read the row in the
    record, again and again until the lease ended.
    """
    await write(1, record, key=OTHER)
    await cache.lease([OTHER], token=new_token(), lease_ms=60_000, deadline_ms=100)
    readers = [TieredReader(local=None, cache=cache, record=record, clock=clock, metrics=metrics) for _ in range(4)]

    told = await asyncio.gather(*(values(reader, OTHER) for reader in readers))

    assert told == [[1]] * 4
    assert record.asked == [[OTHER]]
    assert await cache.read([OTHER], deadline_ms=100) == {OTHER: stored(1, OTHER).value}


async def test_who_cannot_read_the_record_gives_the_lease_back(reader, cache, record, clock, metrics):
    """
    One process cannot reach the record, and everybody waited for what it would never fill in.
    """
    await write(1, record, key=OTHER)
    record.before_answer = fail
    with pytest.raises(StoreTimeoutError):
        await values(reader, OTHER)

    assert await cache.read([OTHER], deadline_ms=100) == {}


async def test_a_cache_that_gives_no_answer_is_asked_less_and_less(reader, cache, record, metrics):
    """
    Each read would wait for its whole deadline first, and then go to the record all the same.
    """
    await write(1, record, key=OTHER)
    cache.before_answer = fail

    assert [await values(reader, OTHER) for _ in range(20)] == [[1]] * 20

    assert len(cache.asked) == FAILURES_MAX
    assert metrics.registry.get_sample_value("freshet_breaker_open", {"store": "cache"}) == 1


async def test_a_record_that_fails_again_and_again_is_not_asked_for_a_moment(cache, record, clock, metrics):
    """
    Each read waited for its whole deadline, and the answers that needed none of it waited with them.
    """
    now = [0.0]
    reader = TieredReader(
        local=None, cache=cache, record=record, clock=clock, metrics=metrics, monotonic=lambda: now[0]
    )
    await write(1, record)
    record.before_answer = fail
    for _ in range(3 * FAILURES_MAX):
        now[0] += 0.01
        with pytest.raises(StoreError):
            await values(reader, USER)
    assert len(record.asked) == FAILURES_MAX

    record.before_answer = lambda: None
    now[0] += 1
    assert await values(reader, USER) == [1]
