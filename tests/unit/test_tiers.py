"""Tiers: which copy of a row is read, and that no copy hides a newer row for longer than it may."""

import asyncio
from collections.abc import Sequence

import pytest
from typing_extensions import override

from core.definitions import ServingPolicy
from core.errors import FormatError, StoreError, StoreTimeoutError
from core.leases import NO_ROW, new_token
from core.metrics import Metrics
from core.ports import Filling, RowKey, StoredRow
from core.progress import progress_key, progress_row
from core.rows import Row, pack_row, unpack_row
from core.windows import seconds
from serving.local import LocalCopies
from serving.progress_board import ProgressBoard
from serving.tiers import TieredReader
from serving.wanted import Terms, Wanted
from stores.memory import MemoryStore
from tests.clock import ManualClock
from tests.fakes import idle, until
from tests.serving_kit import FailingStore

USER = RowKey("user#i1", "spend@v1")
OTHER = RowKey("user#i2", "spend@v1")
NOBODY = RowKey("user#i2", "nothing@v1")
FAILURES_MAX = 5
SOFT_TTL_MS = NEGATIVE_TTL_MS = 30_000
REMOTE = ServingPolicy(soft_ttl=seconds(30), jitter=0)
DIRECT = ServingPolicy(tier="direct")


MEANING = bytes(8)


def stored(ver: int, key: RowKey = USER, *, padding: int = 0, fingerprint: bytes = MEANING) -> StoredRow:
    """A row whose one value is its version."""
    value = pack_row(
        ver=ver, fingerprint=fingerprint, as_of_ms=1, valid_from_ms=1, valid_until_ms=2, expires_at_ms=3, event_time_ms=1,
        values=[ver, "x" * padding], tail=[],
    )  # fmt: skip
    return StoredRow(key, ver, value)


def row(ver: int, key: RowKey = USER) -> Row:
    return unpack_row(stored(ver, key).value)


def version_of_copy(local: LocalCopies, key: RowKey) -> int | None:
    copy = local.get(key, oldest_ms=0, oldest_none_ms=0)
    return copy.row.ver if copy is not None and copy.row is not None else None


class CountingStore(MemoryStore):
    """Counts what it is asked, and lets something happen before it answers."""

    def __init__(self, name: str, clock: ManualClock) -> None:
        super().__init__(clock)
        self.name = name
        self.asked: list[list[RowKey]] = []
        self.before_answer = lambda: None

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        self.asked.append(list(keys))
        found = await super().read(keys, deadline_ms=deadline_ms)
        self.before_answer()
        return found


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def cache(clock):
    return CountingStore("cache", clock)


@pytest.fixture
def record(clock):
    return CountingStore("record", clock)


@pytest.fixture
def local():
    return LocalCopies(bytes_max=100_000, is_announced=lambda key: key.pk != "user#i2")


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def reader(local, cache, record, clock, metrics):
    return TieredReader(local=local, cache=cache, record=record, clock=clock, metrics=metrics)


async def values(reader, *keys: RowKey, policy: ServingPolicy = REMOTE, cached: bool = True) -> list[int | None]:
    rows = await reader.read([Wanted(key, Terms(policy, cached, MEANING)) for key in keys])
    return [rows[key].values[0] if key in rows else None for key in keys]


async def write(ver: int, *stores: MemoryStore, key: RowKey = USER) -> None:
    for store in stores:
        await store.write([stored(ver, key)], deadline_ms=100)


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


def fail() -> None:
    raise StoreTimeoutError("cache: no answer within 150 ms")


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
        assert local.get(USER, oldest_ms=0, oldest_none_ms=0) is None
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

    assert local.get(USER, oldest_ms=0, oldest_none_ms=0) is None


def test_a_read_from_before_a_clearing_leaves_no_copy(local):
    """
    Its partition went and came back meanwhile; what its other owner wrote was announced there and not here.
    """
    with local.reading():
        local.clear()
        local.put(USER, row(1), size=10, read_at_ms=0)
        assert local.get(USER, oldest_ms=0, oldest_none_ms=0) is None

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
    assert local.get(USER, oldest_ms=0, oldest_none_ms=0).row is None


def test_copies_are_bounded_in_bytes(local):
    """
    A worker's memory is given in bytes, whatever the size of rows; the copies used last stay.
    """
    keys = [RowKey(f"user#i{number}", "spend@v1") for number in range(3, 1_003)]
    for key in keys:
        local.put(key, row(1, key), size=800, read_at_ms=1)
    local.put(USER, row(1), size=100_000, read_at_ms=1)

    kept = [key for key in keys if local.get(key, oldest_ms=0, oldest_none_ms=0)]
    assert kept == keys[-100:]
    assert local.get(USER, oldest_ms=0, oldest_none_ms=0) is None


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

    assert local.get(USER, oldest_ms=0, oldest_none_ms=0) is None


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


@pytest.mark.parametrize("is_displaced", [False, True], ids=["copied", "displaced"])
async def test_a_load_that_found_nothing_does_not_hide_a_row_that_was_found_since(
    local, record, clock, metrics, is_displaced
):
    """
    A user's first row was in the record and not yet announced: a second read had it, then a slow one came that had found
    nothing, and who asked next was told that there is none. A copy that is there shows that the load is the older of
    the two; where it was displaced, what was served is all that tells.
    """
    slow, cache = SlowStore(record), CountingStore("cache", clock)
    reader = TieredReader(local=local, cache=cache, record=slow, clock=clock, metrics=metrics)
    first = asyncio.create_task(values(reader, USER))
    await until(lambda: slow.found is not None)
    await write(1, record, cache)
    assert await values(reader, USER) == [1]
    if is_displaced:
        copy = local.get(USER, oldest_ms=0, oldest_none_ms=0)
        local.put(USER._replace(pk="user#i9"), copy.row, size=99_700, read_at_ms=clock.now_ms())
        assert local.get(USER, oldest_ms=0, oldest_none_ms=0) is None
    slow.may.set()
    await first

    assert await values(reader, USER) == [1]


async def test_no_copy_stays_that_is_older_than_what_was_served(local, record, clock, metrics):
    """
    A slow load had found nothing, a second read the first version of a row, and the slow one, looking again, the second
    one, which was not announced yet: it was served, and who asked next was told the first again.
    """
    slow, cache = SlowStore(record), CountingStore("cache", clock)
    reader = TieredReader(local=local, cache=cache, record=slow, clock=clock, metrics=metrics)
    first = asyncio.create_task(values(reader, USER))
    await until(lambda: slow.found is not None)
    await write(1, record, cache)
    assert await values(reader, USER) == [1]
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


class SlowStore:
    """Finds what there is at once, and tells it when it may."""

    def __init__(self, held: CountingStore) -> None:
        self.name = held.name
        self._held = held
        self.found: dict[RowKey, bytes] | None = None
        self.may = asyncio.Event()

    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        found = self.found = await self._held.read(keys, deadline_ms=deadline_ms)
        await self.may.wait()
        return found
