"""That there is no row: remembered for a while, and no longer than until there is one."""

import pytest

from core.definitions import ServingPolicy
from core.ports import StoredRow
from core.windows import NEVER_MS, seconds
from tests.tiers_kit import DIRECT, NEGATIVE_TTL_MS, OTHER, USER, stored, values, write


async def test_a_key_without_a_row_is_not_asked_for_again_for_a_while(reader, cache, record, clock):
    """
    Half of a feed's users are new: each of their reads would go to Redis and the record, to find nothing.
    """
    assert await values(reader, USER) == [None]
    assert await values(reader, USER) == [None]
    assert (cache.asked, record.asked) == ([[USER]], [[USER]])

    clock.advance(NEGATIVE_TTL_MS + 1)
    assert await values(reader, USER) == [None]
    assert record.asked == [[USER], [USER]]


async def test_the_first_event_of_a_key_ends_that_it_has_no_row(reader, cache, record, local):
    """
    A new user clicks; the next page must know, not the one after half a minute.
    """
    assert await values(reader, USER) == [None]
    await write(1, record, cache)
    local.announce([stored(1)])

    assert await values(reader, USER) == [1]


async def test_a_row_that_is_created_while_it_is_looked_for_is_found_afterwards(reader, cache, record, local):
    """
    The record had said that there is none before it was written; remembered after its announcement, that would hide it.
    """
    record.before_answer = lambda: local.announce([stored(1)])
    assert await values(reader, USER) == [None]
    record.before_answer = lambda: None
    await write(1, record, cache)

    assert await values(reader, USER) == [1]


@pytest.mark.parametrize("policy", [DIRECT, ServingPolicy(negative_ttl=seconds(0))])
async def test_who_wants_to_ask_each_time_does(reader, record, clock, policy):
    """
    Rows that are written by others than this worker's group are announced to nobody.
    """
    await values(reader, USER, policy=policy)
    clock.advance(1)
    await values(reader, USER, policy=policy)

    assert len(record.asked) == 2


async def test_nothing_is_remembered_here_of_keys_whose_changes_are_not_announced_here(reader, cache, record):
    """
    Another worker owns their partition, and tells this one nothing of their first event; it tells the cache.
    """
    await values(reader, OTHER)
    await values(reader, OTHER)
    assert (len(cache.asked), len(record.asked)) == (2, 1)

    await write(1, record, cache, key=OTHER)
    assert await values(reader, OTHER) == [1]


def test_a_read_from_before_a_clearing_does_not_leave_that_there_is_no_row(local):
    """
    The partition was elsewhere meanwhile, and the row was created and announced there.
    """
    with local.reading():
        local.clear()
        local.put_none(USER, read_at_ms=0)

    assert local.get(USER, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0) is None


@pytest.mark.parametrize("value", [stored(9, OTHER, fingerprint=b"formerly").value, bytes(8) + b"\xc1"])
async def test_what_nobody_can_use_in_the_cache_hides_not_that_there_is_no_row(reader, cache, value):
    """
    Its group was redefined and the user is gone from the record: each read of them failed for a day.
    """
    await cache.write([StoredRow(OTHER, 9, value)], deadline_ms=100)

    assert await values(reader, OTHER) == [None]


async def test_a_row_that_was_served_and_removed_is_looked_for_once(reader, cache, record):
    """
    Who was served it must not be told of an older one; that there is none any more looked like one, and each read went to
    the record past everybody else's.
    """
    await write(5, cache, record, key=OTHER)
    assert await values(reader, OTHER) == [5]
    cache._rows.clear()
    record._rows.clear()

    assert [await values(reader, OTHER) for _ in range(10)] == [[None]] * 10
    assert len(record.asked) <= 2
