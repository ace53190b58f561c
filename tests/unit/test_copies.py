"""Copies in a worker: what is kept, for how long, and what may not be kept beside an announcement."""

import pytest

from core.definitions import ServingPolicy
from core.errors import StoreTimeoutError
from core.ports import RowKey
from core.windows import NEVER_MS, seconds
from serving.tiers.local import LocalCopies
from serving.tiers.reader import TieredReader
from tests.tiers_kit import OTHER, SOFT_TTL_MS, USER, fail, row, stored, values, version_of_copy, write


async def test_a_copy_is_served_until_it_is_as_old_as_soft_ttl(reader, cache, clock):
    """
    An announcement that is lost is felt for soft_ttl at the longest.
    """
    await write(1, cache)
    await values(reader, USER)
    await write(2, cache)

    clock.advance(SOFT_TTL_MS)
    old = await values(reader, USER)
    clock.advance(1)
    new = await values(reader, USER)

    assert (old, new) == ([1], [2])
    assert len(cache.asked) == 2


async def test_a_copy_from_before_the_clock_was_put_back_is_served_no_more(reader, cache, clock):
    """
    The machine's clock was an hour ahead and is corrected: nobody knows how old it is, and it would be young for an hour.
    """
    await write(1, cache)
    await values(reader, USER)
    await write(2, cache)

    clock.advance(-3_600_000)

    assert await values(reader, USER) == [2]


async def test_where_there_is_room_for_no_copy_none_is_kept(clock):
    """
    A limit of a few bytes is allowed; a key without a row was an error of the server then.
    """
    local = LocalCopies(bytes_max=1, is_announced=lambda _: True)

    local.put_none(USER, read_at_ms=clock.now_ms())

    assert local.get(USER, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0) is None


async def test_an_announcement_drops_the_older_copy(reader, cache, local):
    """
    Who reads right after a row was published reads what was published.
    """
    await write(1, cache)
    await values(reader, USER)
    await write(2, cache)
    local.announce([stored(2)])

    assert await values(reader, USER) == [2]


async def test_a_read_that_began_before_an_announcement_does_not_put_its_old_row_in(reader, cache, local):
    """
    A slow read brought an old row back for half a minute, after everybody had seen the new one.
    """
    await write(1, cache)
    cache.before_answer = lambda: local.announce([stored(2)])
    slow = await values(reader, USER)
    cache.before_answer = lambda: None
    await write(2, cache)

    after = await values(reader, USER)

    assert (slow, after) == ([1], [2])


async def test_reads_that_overlap_without_end_do_not_make_announcements_pile_up(local):
    """
    Under load some read is always under way: what is remembered is bounded by the length of a read, not by their end.
    """
    before = local.reading()
    before.__enter__()
    for ver in range(1, 1_001):
        after = local.reading()
        local.announce([stored(ver, RowKey(f"user#i{ver}", "spend@v1"))])
        after.__enter__()
        before.__exit__(None, None, None)
        before = after
        assert len(local._announced) <= 2
    before.__exit__(None, None, None)
    assert not local._announced


def test_an_old_row_stays_out_however_many_other_reads_end_meanwhile(local):
    """
    Another read's end must not make the process forget what this one still has to know.
    """
    with local.reading():
        with local.reading():
            local.announce([stored(2)])
        local.put(USER, row(1), size=10, read_at_ms=0)
        assert local.get(USER, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0) is None
        local.put(USER, row(2), size=10, read_at_ms=0)

    assert version_of_copy(local, USER) == 2


def test_the_newest_announcement_counts(local):
    """
    When the cache's debt was paid, its older rows were announced after the newer ones, and an old row was let in.
    """
    with local.reading():
        local.announce([stored(3)])
        local.announce([stored(2)])
        local.put(USER, row(2), size=10, read_at_ms=0)

    assert local.get(USER, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0) is None


def test_a_read_from_before_a_clearing_leaves_no_copy(local):
    """
    Its partition went and came back meanwhile; what its other owner wrote was announced there and not here.
    """
    with local.reading():
        local.clear()
        local.put(USER, row(1), size=10, read_at_ms=0)
        assert local.get(USER, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0) is None

    with local.reading():
        local.put(USER, row(2), size=10, read_at_ms=0)
    assert version_of_copy(local, USER) == 2


def test_a_newer_copy_is_not_replaced_by_an_older_row(local):
    """
    Two reads of one key may end in another order than they began.
    """
    local.put(USER, row(2), size=10, read_at_ms=5)
    local.put(USER, row(1), size=10, read_at_ms=6)

    assert version_of_copy(local, USER) == 2


def test_that_there_was_no_row_does_not_replace_a_row_that_was_read_since(local):
    """
    A slow load had found nothing. The row was read and copied meanwhile, and so many others after it that its version
    was not remembered: what the slow load had not found took the place of the copy.
    """
    local.put(USER, row(1), size=10, read_at_ms=5)
    for read_at_ms in (4, 5):
        local.put_none(USER, read_at_ms=read_at_ms)
        assert version_of_copy(local, USER) == 1

    local.put_none(USER, read_at_ms=6)
    assert local.get(USER, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0).row is None


def test_copies_are_bounded_in_bytes(local):
    """
    A worker's memory is given in bytes, whatever the size of rows; the copies used last stay.
    """
    keys = [RowKey(f"user#i{number}", "spend@v1") for number in range(3, 1_003)]
    for key in keys:
        local.put(key, row(1, key), size=800, read_at_ms=1)
    local.put(USER, row(1), size=100_000, read_at_ms=1)

    kept = [key for key in keys if local.get(key, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0)]
    assert kept == keys[-100:]
    assert local.get(USER, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0) is None


async def test_a_key_whose_changes_are_not_announced_here_has_no_copy(reader, cache):
    """
    A partition of another worker changes without a word to this one.
    """
    await write(1, cache, key=OTHER)
    await values(reader, OTHER)
    await write(2, cache, key=OTHER)

    assert await values(reader, OTHER) == [2]


async def test_no_copy_survives_the_loss_of_its_partition(reader, cache, local):
    """
    When partitions move, the next change is announced elsewhere.
    """
    await write(1, cache)
    await values(reader, USER)
    local.clear()
    await write(2, cache)

    assert await values(reader, USER) == [2]


async def test_old_copies_are_served_while_the_record_is_away_until_they_are_too_old(reader, cache, record, clock):
    """
    DynamoDB throttled for a minute, and the whole feed was empty although nothing had changed.
    """
    policy = ServingPolicy(soft_ttl=seconds(30), hard_ttl=seconds(90))
    await write(1, cache, record)
    assert await values(reader, USER, policy=policy) == [1]
    cache.before_answer = record.before_answer = fail

    clock.advance(60_000)
    assert await values(reader, USER, policy=policy) == [1]
    with pytest.raises(StoreTimeoutError):
        await values(reader, USER, OTHER, policy=policy)

    clock.advance(31_000)
    with pytest.raises(StoreTimeoutError):
        await values(reader, USER, policy=policy)


async def test_no_old_copy_is_served_by_who_may_have_been_replaced(local, cache, record, clock, metrics):
    """
    A worker that is cut off from everything keeps its partitions until it is told otherwise; its successor writes rows
    that it does not hear of.
    """
    hears = [True]
    reader = TieredReader(local=local, cache=cache, record=record, clock=clock, metrics=metrics, hears=lambda: hears[0])
    await write(1, cache, record)
    assert await values(reader, USER) == [1]
    cache.before_answer = record.before_answer = fail
    clock.advance(SOFT_TTL_MS + 1)
    assert await values(reader, USER) == [1]

    hears[0] = False
    with pytest.raises(StoreTimeoutError):
        await values(reader, USER)
