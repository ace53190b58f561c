"""Lifetimes: copies that were made together do not end together, and some are read again before they end."""

import asyncio
from dataclasses import replace
from random import Random

import pytest

from core.definitions import ServingPolicy
from core.errors import StoreError, StoreTimeoutError
from core.leases import NO_ROW
from core.metrics import Metrics
from core.ports import RowKey, StoredRow
from core.rows import pack_row
from core.windows import NEVER_MS, hours, seconds
from serving.tiers.local import LocalCopies
from serving.tiers.reader import TieredReader
from tests.clock import Seconds
from tests.fakes import idle, until
from tests.tiers_kit import MEANING, OTHER, USER, CountingStore, SlowStore, fail, values, write

MANY = [RowKey(f"user#i{number}", "spend@v1") for number in range(10, 1_010)]
SOFT_MS, HARD_MS = 30_000, 3_600_000
JITTERED = ServingPolicy(soft_ttl=seconds(30), hard_ttl=hours(1), negative_ttl=seconds(30), jitter=0.2)
EAGER = ServingPolicy(soft_ttl=seconds(30), hard_ttl=hours(1), jitter=0, early_refresh=1)
LOAD_S = 0.005


@pytest.fixture
def monotonic():
    return Seconds()


def reader_of(clock, cache, record, *, hears_changes=True, draw=None, monotonic=None, metrics=None):
    return TieredReader(
        local=LocalCopies(bytes_max=1 << 20, is_announced=lambda _: hears_changes), cache=cache, record=record,
        clock=clock, metrics=metrics or Metrics(), monotonic=monotonic or Seconds(),
        draw=draw or Random(1).random,  # noqa: S311  # the same every time
    )  # fmt: skip


def always_due() -> float:
    """Draw what makes every reader read again as early as anybody may."""
    return 0.9999


async def still_copied(reader, cache, policy=JITTERED) -> int:
    """Return how many of the rows are answered from copies."""
    before = len(cache.asked)
    await values(reader, *MANY, policy=policy)
    return len(MANY) - sum(map(len, cache.asked[before:]))


async def test_copies_that_were_made_together_do_not_all_end_together(clock, cache, record):
    """
    A worker began, its first feed read a thousand rows, and every thirty seconds all of them were read again at once.
    """
    for key in MANY:
        await write(1, cache, key=key)
    reader = reader_of(clock, cache, record)
    await values(reader, *MANY, policy=JITTERED)

    clock.advance(int(0.8 * SOFT_MS))
    assert await still_copied(reader, cache) == len(MANY)
    clock.advance(int(0.1 * SOFT_MS))
    assert 0.4 * len(MANY) < await still_copied(reader, cache) < 0.6 * len(MANY)
    clock.advance(int(0.05 * SOFT_MS))
    assert await still_copied(reader, cache) > 0.6 * len(MANY)


async def test_that_rows_are_not_there_is_not_forgotten_all_at_once(clock, cache, record):
    """
    Nor are a thousand new users looked for in one moment.
    """
    reader = reader_of(clock, cache, record)
    await values(reader, *MANY, policy=JITTERED)
    clock.advance(int(0.9 * SOFT_MS))

    assert 0.4 * len(MANY) < await still_copied(reader, cache) < 0.6 * len(MANY)


@pytest.mark.parametrize(("exists", "ttl_ms"), [(True, HARD_MS), (False, SOFT_MS)])
async def test_what_was_filled_in_together_does_not_leave_redis_together(clock, cache, record, exists, ttl_ms):
    """
    Redis was emptied and filled again within a second; a day later all of it was gone within a second.
    """
    for key in MANY:
        await write_endless(*([record] if exists else []), key=key)
    reader = reader_of(clock, cache, record)
    await values(reader, *MANY, policy=JITTERED)

    lives_ms = sorted(cache._rows[key].expires_at_ms - clock.now_ms() for key in MANY)

    assert all((row.value == NO_ROW) is not exists for row in cache._rows.values())
    assert 0.8 * ttl_ms <= lives_ms[0] < 0.82 * ttl_ms
    assert 0.98 * ttl_ms < lives_ms[-1] <= ttl_ms


async def test_a_copy_that_is_about_to_end_is_read_again_once_for_everybody(clock, cache, record, monotonic):
    """
    The hottest row's copy ended, and a hundred readers waited for Redis each half minute.
    """
    metrics = Metrics()
    reader = reader_of(clock, cache, record, draw=always_due, monotonic=monotonic, metrics=metrics)
    await write(1, cache)
    takes(cache, monotonic, LOAD_S)
    await values(reader, USER, policy=EAGER)
    await write(2, cache)
    clock.advance(SOFT_MS - 10)

    assert await asyncio.gather(*(values(reader, USER, policy=EAGER) for _ in range(100))) == [[1]] * 100
    await idle()
    clock.advance(20)
    assert await values(reader, USER, policy=EAGER) == [2]

    assert len(cache.asked) == 2
    early = metrics.registry.get_sample_value("freshet_tier_keys_total", {"tier": "local", "outcome": "early"})
    assert early == 100


def takes(store: CountingStore, monotonic: Seconds, took_s: float) -> None:
    """Let each read of a store take so long."""

    def pass_time() -> None:
        monotonic.now += took_s

    store.before_answer = pass_time


@pytest.mark.parametrize(
    ("policy", "left_ms"), [(replace(EAGER, early_refresh=0), 10), (EAGER, 200)], ids=["not wanted", "too early"]
)
async def test_a_copy_that_lives_for_a_while_is_not_read_again(clock, cache, record, monotonic, policy, left_ms):
    """
    Each read again is a load; there shall be one for each time that a copy lives, not one for each reader.
    """
    reader = reader_of(clock, cache, record, draw=always_due, monotonic=monotonic)
    await write(1, cache)
    takes(cache, monotonic, LOAD_S)
    await values(reader, USER, policy=policy)
    clock.advance(SOFT_MS - left_ms)

    await values(reader, USER, policy=policy)
    await idle()

    assert len(cache.asked) == 1


async def test_an_outage_is_not_remembered_as_the_time_that_a_load_takes(clock, cache, record, monotonic):
    """
    Redis had stood still for a minute; from then on each copy was read again all the time.
    """
    reader = reader_of(clock, cache, record, draw=always_due, monotonic=monotonic)
    await write(1, cache)
    takes(cache, monotonic, 60)
    await values(reader, USER, policy=EAGER)
    clock.advance(SOFT_MS - 10_000)

    await values(reader, USER, policy=EAGER)
    await idle()

    assert len(cache.asked) == 1


async def test_who_has_filled_a_row_in_lets_it_live_on_before_it_ends(clock, cache, record):
    """
    A hot row that nobody writes left Redis once a day, and its readers waited for the record.
    """
    reader = reader_of(clock, cache, record, hears_changes=False, draw=always_due)
    await write_endless(record, key=OTHER)
    record.before_answer = lambda: clock.advance(5)
    await values(reader, OTHER, policy=EAGER)
    clock.advance(HARD_MS - 10)

    assert await asyncio.gather(*(values(reader, OTHER, policy=EAGER) for _ in range(100))) == [[1]] * 100
    await idle()
    clock.advance(HARD_MS // 2)
    assert await values(reader, OTHER, policy=EAGER) == [1]

    assert record.asked == [[OTHER], [OTHER]]


async def test_what_somebody_else_has_filled_in_since_is_not_read_again(clock, cache, record):
    """
    Whoever had ever filled a row in read it in the record again and again, although another process looked after it.
    """
    reader, other = (reader_of(clock, cache, record, hears_changes=False, draw=always_due) for _ in range(2))
    await write_endless(record, key=OTHER)
    await values(reader, OTHER, policy=EAGER)
    clock.advance(HARD_MS + 1)
    await values(other, OTHER, policy=EAGER)

    assert [await values(reader, OTHER, policy=EAGER) for _ in range(3)] == [[1]] * 3
    await idle()

    assert record.asked == [[OTHER], [OTHER]]


async def test_rows_that_live_on_are_looked_after_although_another_does_not(clock, cache, record):
    """
    One of a feed's rows had been written or evicted while all of them were read again; the others lived on, and at the
    end of that their readers waited for the record.
    """
    third = RowKey("user#i3", "spend@v1")
    reader = reader_of(clock, cache, record, hears_changes=False, draw=always_due)
    for key in (OTHER, third):
        await write_endless(record, key=key)
    await values(reader, OTHER, third, policy=EAGER)
    clock.advance(HARD_MS - 10)
    record.before_answer = lambda: cache._rows.pop(third)
    await values(reader, OTHER, third, policy=EAGER)
    await idle()
    record.before_answer = lambda: None
    clock.advance(HARD_MS - 10)

    await values(reader, OTHER, policy=EAGER)
    await idle()

    assert record.asked == [[OTHER, third], [OTHER, third], [OTHER]]


async def write_endless(*stores: CountingStore, key: RowKey) -> None:
    """Write a row that does not end by itself."""
    value = pack_row(
        ver=1, fingerprint=MEANING, as_of_ms=1, valid_from_ms=1, valid_until_ms=2, expires_at_ms=NEVER_MS,
        event_time_ms=1, values=[1], tail=[],
    )  # fmt: skip
    for store in stores:
        await store.write([StoredRow(key, 1, value)], deadline_ms=100)


async def test_a_row_that_cannot_be_read_again_early_is_served_until_it_ends(clock, cache, record):
    """
    That the record is away when a row is read again is nobody's failure: the row is there.
    """
    reader = reader_of(clock, cache, record, hears_changes=False, draw=always_due)
    await write_endless(record, key=OTHER)
    record.before_answer = lambda: clock.advance(5)
    await values(reader, OTHER, policy=EAGER)
    clock.advance(HARD_MS - 10)
    record.before_answer = fail

    assert await values(reader, OTHER, policy=EAGER) == [1]
    await idle()
    clock.advance(20)
    with pytest.raises(StoreTimeoutError):
        await values(reader, OTHER, policy=EAGER)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("tells", ["cache", "record", "record while the cache is away"])
async def test_a_copy_is_as_old_as_its_read_when_it_comes(clock, cache, record, tells, exists):
    """
    A store took 20 s; what it told may have changed since it was asked, and was served for a ``soft_ttl`` from then on.
    """
    policy = replace(JITTERED, jitter=0)
    reader = reader_of(clock, cache, record)
    if exists:
        await write(1, cache if tells == "cache" else record)
    elif tells == "cache":
        await cache.write([StoredRow(USER, 0, NO_ROW)], deadline_ms=100)
    if tells == "record while the cache is away":
        cache.before_answer = fail
    slow = cache if tells == "cache" else record
    slow.before_answer = lambda: clock.advance(20_000)
    expected = [1] if exists else [None]
    assert await values(reader, USER, policy=policy) == expected
    asked = len(cache.asked), len(record.asked)

    clock.advance(SOFT_MS - 20_000)
    assert await values(reader, USER, policy=policy) == expected
    assert (len(cache.asked), len(record.asked)) == asked
    clock.advance(1)
    await values(reader, USER, policy=policy)
    assert (len(cache.asked), len(record.asked)) != asked


LOCAL = ServingPolicy(tier="local", soft_ttl=seconds(30), hard_ttl=seconds(90), jitter=0)


async def test_a_local_group_has_copies_where_nobody_tells_of_changes(clock, cache, record):
    """
    Who declares a group local wants it in the process that serves; at most ``soft_ttl`` later it knows of a change.
    """
    reader = reader_of(clock, cache, record, hears_changes=False)
    await write(1, cache, record, key=OTHER)
    assert await values(reader, OTHER, policy=LOCAL) == [1]
    await write(2, cache, record, key=OTHER)

    clock.advance(SOFT_MS)
    assert await values(reader, OTHER, policy=LOCAL) == [1]
    assert len(cache.asked) == 1
    clock.advance(1)
    assert await values(reader, OTHER, policy=LOCAL) == [2]


async def test_that_a_local_group_has_no_row_is_not_said_for_longer_than_a_row_may_be_old(clock, cache, record):
    """
    A new video had its first event, and a worker that serves said for the whole ``negative_ttl`` that there is none.
    """
    policy = replace(LOCAL, negative_ttl=seconds(80))
    reader = reader_of(clock, cache, record, hears_changes=False)
    assert await values(reader, OTHER, policy=policy) == [None]
    await write(1, record, cache, key=OTHER)

    clock.advance(SOFT_MS)
    assert await values(reader, OTHER, policy=policy) == [None]
    clock.advance(1)
    assert await values(reader, OTHER, policy=policy) == [1]


async def test_old_copies_of_a_local_group_are_served_while_the_record_is_away(clock, cache, record):
    """
    Each reader of a local group may have an old copy, until ``hard_ttl``; so nobody need own it to serve it.
    """
    reader = reader_of(clock, cache, record, hears_changes=False)
    await write(1, cache, record, key=OTHER)
    await values(reader, OTHER, policy=LOCAL)
    cache.before_answer = record.before_answer = fail

    clock.advance(90_000)
    assert await values(reader, OTHER, policy=LOCAL) == [1]
    clock.advance(1)
    with pytest.raises(StoreError):
        await values(reader, OTHER, policy=LOCAL)


@pytest.mark.parametrize("tier", ["local", "remote"])
async def test_no_copy_is_older_than_what_was_served(clock, cache, record, tier):
    """
    A slow load brought the row from before a change that had been served, and for half a minute time had gone back.
    """
    policy, slow = replace(LOCAL, tier=tier), SlowStore(record)
    reader = TieredReader(
        local=LocalCopies(bytes_max=1_000, is_announced=lambda _: False), cache=cache, record=slow, clock=clock,
        metrics=Metrics(),
    )  # fmt: skip
    await write(1, record, key=OTHER)
    first = asyncio.create_task(values(reader, OTHER, policy=policy))
    await until(lambda: slow.found is not None)
    await write(2, record, cache, key=OTHER)
    assert await values(reader, OTHER, policy=policy) == [2]
    for key in MANY[:10]:
        # They take the place of its copy.
        await write(1, cache, key=key)
        await values(reader, key, policy=policy)
    slow.may.set()
    await first

    assert await values(reader, OTHER, policy=policy) == [2]
