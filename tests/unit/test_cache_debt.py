import asyncio

import pytest

from agents.cache_debt import CacheDebt
from agents.progress import ProgressPublisher, Step
from agents.record_writer import RecordWriter
from core.errors import PartialWriteError, StoreError
from core.metrics import Metrics
from core.ports import RowKey, StoredRow
from core.progress import cached_key, progress_key
from core.versions import version, version_bytes, version_of
from tables.table import GroupTable, TablePartition
from tables.uncached import pages_between
from tests.aggregating import AROUND, FAST, HELD_MS, LIFETIME_MS, NOW_MS, SLOW, TOPIC, bench, clicks, taps
from tests.clock import ManualClock
from tests.engines import present_engine
from tests.fakes import ToldStore, idle, until

on_each_engine = pytest.mark.usefixtures("each_engine")


async def test_a_cache_that_fails_is_owed_the_newest_rows():
    """
    The record's answer suffices for a commit; the cache gets what it missed as soon as it answers (PROTOCOL, 2).
    """
    async with bench() as made:
        made.cache.failures = 1
        for offset in range(3):
            await made.take(taps(offset, offset % 2))
            await until(lambda offset=offset: len(made.finished) == offset + 1)
        assert made.debt.owed >= 2
        assert made.rows("cache") == []

        await settled(made.debt)

        assert await made.stored(0, store=made.cache) == version(0, 2)
        assert await made.stored(1, store=made.cache) == version(0, 1)
        await made.take(taps(3))
        await until(lambda: (FAST, version(0, 3)) in made.rows("cache"))


async def test_a_row_that_changes_while_its_debt_is_paid_is_still_owed():
    """
    What is paid is the row that was written, not the one that took its place meanwhile.
    """
    cache = ToldStore("cache")
    debt = new_debt(cache)
    cache.failures = 1
    await debt.write([stored(1, 1)])
    cache.open.clear()
    settling = asyncio.create_task(debt.settle())
    await idle()
    await debt.write([stored(1, 2)])
    await debt.write([stored(1, 1)])
    cache.open.set()
    await until(lambda: debt.owed == 0)
    settling.cancel()

    assert [rows[0].ver for what, rows in cache.told if what == "cache"] == [1, 2]


def stored(user, ver) -> StoredRow:
    return StoredRow(RowKey(f"user#i{user}", FAST), ver, version_bytes(ver))


async def test_a_full_debt_makes_the_writer_wait(monkeypatch):
    """
    Memory is bounded: a cache that stays away for a day stops the pipeline, and says so.
    """
    monkeypatch.setattr("agents.cache_debt.OWED_ROWS_MAX", 1_000)
    cache = ToldStore("cache")
    debt = new_debt(cache)
    cache.failures = 1
    await debt.write([stored(user, 1) for user in range(1_000)])
    writing = asyncio.create_task(debt.write([stored(-1, 1)]))
    await idle()
    assert (debt.owed, writing.done()) == (1_000, False)

    settling = asyncio.create_task(debt.settle())
    await writing
    await until(lambda: debt.owed == 0)
    settling.cancel()


async def test_a_group_that_is_written_around_never_reaches_the_cache():
    """
    Nobody reads it there, so nobody would notice it grow old there.
    """
    async with bench() as made:
        made.cache.failures = 1
        for offset in range(2):
            await made.take(taps(offset))
            await made.publisher.settle()
        await settled(made.debt)

        assert {sk for sk, _ in made.rows("cache")} == {FAST}
        assert {sk for sk, _ in made.rows("record")} == {FAST, AROUND}


@on_each_engine
async def test_a_debt_outlives_the_worker_that_had_it():
    """
    A worker that ended before Redis answered took its debt along: what Redis had stayed old for a day.
    """
    async with bench() as made:
        await made.take(taps(0, 1, 2))
        await until(lambda: made.finished)
        made.cache.failures = 1_000
        await made.take(taps(1, 2, 3))
        await until(lambda: len(made.finished) == 2)
        made.cache.failures = 0
        assert await made.stored(2, store=made.cache) == version(0, 0)

        heir = new_debt(made.cache, made.record)
        heir.inherit(restored(made.tables.get(TOPIC, 0)), until=version(0, 1))
        assert not heir.is_clear
        await settled(heir)

        assert await made.stored(2, store=made.cache) == version(0, 1)
        assert await made.stored(3, store=made.cache) == version(0, 1)
        assert made.rows("cache").count((FAST, version(0, 0))) == 2


async def test_a_partition_is_marked_as_cached_only_without_debt():
    """
    A mark above a row that is owed would hide it from the next owner.
    """
    async with bench() as made:
        made.cache.failures = 1
        await made.take(taps(0))
        await made.publisher.settle()
        assert await mark(made.record) is None

        await settled(made.debt)
        await made.take(taps(1))
        await made.publisher.settle()
        await until(lambda: made.rows_of(cached_key("user", 0)))
        assert await mark(made.record) == version(0, 1)


async def test_who_gives_partitions_away_pays_nothing_more():
    """
    The next owner pays. Redis was emptied meanwhile, took an old owner's row, and kept it for good: found by
    simulation.
    """
    cache = ToldStore("cache")
    debt = new_debt(cache)
    cache.failures = 1
    await debt.write([stored(1, 1)])

    debt.given_away()

    assert (debt.owed, debt.is_clear) == (0, True)


async def test_a_write_that_fails_when_its_partition_has_gone_is_not_owed():
    """
    It was under way when the partition was given away.
    """
    cache = ToldStore("cache")
    debt = new_debt(cache)
    cache.open.clear()
    cache.failures = 1
    writing = asyncio.create_task(debt.write([stored(1, 1)]))
    await idle()
    debt.given_away()
    cache.open.set()
    await writing

    assert debt.owed == 0


async def test_nothing_is_paid_by_one_who_may_have_been_replaced():
    """
    A worker that stood still and wakes up has debts that its successor has paid long ago.
    """
    cache, is_owner = ToldStore("cache"), asyncio.Event()

    async def wait_owner() -> None:
        await is_owner.wait()

    debt = CacheDebt(
        cache, ToldStore("record"), Metrics(), ManualClock(NOW_MS), lifetimes={FAST: LIFETIME_MS},
        wait_owner=wait_owner,
    )  # fmt: skip
    is_owner.set()
    cache.failures = 1
    await debt.write([stored(1, 1)])
    is_owner.clear()
    settling = asyncio.create_task(debt.settle())
    writing = asyncio.create_task(debt.write([stored(2, 1)]))
    await idle()
    assert [what for what, _ in cache.told] == ["cache failed"]

    is_owner.set()
    await until(lambda: debt.owed == 0 and writing.done())
    settling.cancel()


async def test_what_waits_to_be_written_goes_with_its_partition():
    """
    A worker stood still between the record and Redis; when it is sure who owns what, it is not the owner.
    """
    cache, is_owner = ToldStore("cache"), asyncio.Event()

    async def wait_owner() -> None:
        await is_owner.wait()

    debt = CacheDebt(
        cache, ToldStore("record"), Metrics(), ManualClock(NOW_MS), lifetimes={FAST: LIFETIME_MS}, wait_owner=wait_owner
    )
    writing = asyncio.create_task(debt.write([stored(1, 1)]))
    await idle()
    debt.given_away()
    is_owner.set()
    await writing

    assert (cache.told, debt.owed) == ([], 0)


async def test_a_partition_that_is_given_away_in_debt_is_not_marked():
    """
    A debt goes with its partition: without it the cache looks complete, to whoever asks in the wrong moment.
    """
    async with bench() as made:
        await made.take(taps(0))
        await made.publisher.settle()
        table, record = made.tables.get(TOPIC, 0), ToldStore("record")
        heir = new_debt(ToldStore("cache"), record)
        heir.inherit(restored(table), until=version(0, 0))
        progress = ProgressPublisher(RecordWriter(record, Metrics()), heir)
        record.open.clear()

        publishing = asyncio.create_task(progress.run())
        progress.note({table: Step(7, NOW_MS)})
        await idle()
        heir.given_away()
        record.open.set()
        await until(lambda: record.told)
        publishing.cancel()

        assert [row.key for _, rows in record.told for row in rows] == [progress_key("user", 0)]


async def test_a_mark_that_cannot_be_read_is_read_again():
    """
    The record may be away for as long as the cache; giving up would leave old rows.
    """
    async with bench() as made:
        await made.take(taps(0))
        await made.publisher.settle()
        record, cache = UnreadableStore("record"), ToldStore("cache")
        heir = new_debt(cache, record)
        heir.inherit(restored(made.tables.get(TOPIC, 0)), until=version(0, 0))

        await settled(heir)

        assert record.refusals == 0
        assert await made.stored(store=cache) == version(0, 0)


@on_each_engine
async def test_what_was_inherited_is_paid_before_what_came_later():
    """
    A partition's progress says that every row up to it can be read; paid first, it would be a lie.
    """
    async with bench() as made:
        await made.take(taps(0))
        await made.publisher.settle()
        cache = ToldStore("cache")
        heir = new_debt(cache)
        heir.inherit(restored(made.tables.get(TOPIC, 0)), until=version(0, 0))
        await heir.write([stored(2, 5), StoredRow(progress_key("user", 0), 5, version_bytes(5))])
        await heir.write([stored(2, 6)])
        await heir.write([StoredRow(progress_key("user", 0), 6, version_bytes(6))])

        await settled(heir)

        paid = [(row.key.pk, row.ver) for _, rows in cache.told for row in rows]
        assert paid == [("user#i1", version(0, 0)), ("user#i2", 6), ("user#p0", 6)]


async def test_what_was_inherited_goes_with_its_partition():
    """
    The next owner reads the same mark; two who pay one debt cost twice.
    """
    async with bench() as made:
        await made.take(taps(0))
        await made.publisher.settle()
        cache = ToldStore("cache")
        heir = new_debt(cache)
        heir.inherit(restored(made.tables.get(TOPIC, 0)), until=version(0, 0))
        heir.given_away()
        assert heir.is_clear

        await settled(heir)
        assert not cache.told


async def test_the_cache_forgets_a_row_that_is_too_old_to_be_served():
    """
    Whatever else went wrong: no copy is served beyond ``hard_ttl``, and none after its row means nothing.
    """
    cache = ToldStore("cache")
    key = RowKey("user#i1", FAST)
    soon = StoredRow(RowKey("user#i2", FAST), 1, version_bytes(1), NOW_MS + 5)
    debt = new_debt(cache)
    await debt.write([StoredRow(key, 1, version_bytes(1), NOW_MS + 10 * LIFETIME_MS), soon])
    assert [row.expires_at_ms for _, rows in cache.told for row in rows] == [NOW_MS + LIFETIME_MS, NOW_MS + 5]

    cache.failures = 1
    late = StoredRow(key, 2, version_bytes(2))
    await debt.write([late])
    await settled(debt)
    assert cache.told[-1] == ("cache", (late._replace(expires_at_ms=NOW_MS + LIFETIME_MS),))


@on_each_engine
async def test_what_is_inherited_are_the_rows_that_nobody_else_will_write():
    """
    Below the mark the cache has them; above what is committed their events are applied again, record first.
    """
    async with bench() as made:
        for offset in range(4):
            await made.take(clicks(offset, offset))
        await made.publisher.settle()
        table = restored(made.tables.get(TOPIC, 0))

        pages = pages_between(table, after=version(0, 0), until=version(0, 2), groups={FAST})
        found = [row for page in pages for row in page]

        assert sorted(row.ver for row in found) == [version(0, 1), version(0, 2)]
        assert {row.key.sk for row in found} == {FAST}
        values = await made.record.read([row.key for row in found], deadline_ms=HELD_MS)
        assert {row.key: row.value for row in found} == values


async def test_a_node_that_is_away_does_not_hold_up_the_rows_of_the_others():
    """
    A cluster goes on without one of its nodes; what the others hold must not grow old for as long as that takes.
    """
    cache = PartlyAway("cache")
    debt = new_debt(cache)
    cache.refuses = lambda row: int(row.key.pk.removeprefix("user#i")) < 2_500
    await debt.write([stored(user, 1) for user in range(3_000)])
    settling = asyncio.create_task(debt.settle())

    await until(lambda: debt.owed == 2_500)
    await debt.write([stored(2_999, 2), StoredRow(progress_key("user", 0), 2, version_bytes(2))])
    await until(lambda: debt.owed == 2_501)

    assert await version_in(cache, 2_999) == 2
    assert progress_key("user", 0) not in await cache.read([progress_key("user", 0)], deadline_ms=HELD_MS)
    cache.refuses = lambda row: False
    await until(lambda: debt.is_clear)
    settling.cancel()
    assert await version_in(cache, 0) == 1
    assert progress_key("user", 0) in await cache.read([progress_key("user", 0)], deadline_ms=HELD_MS)


async def test_a_row_that_is_refused_for_ever_is_owed_alone():
    """
    Somebody else's list under the name of one of our rows: Redis refuses the script, and with it its neighbours.
    """
    cache = PartlyAway("cache", together=True)
    debt = new_debt(cache)
    cache.refuses = lambda row: row.key.pk == "user#i7"
    await debt.write([stored(user, 1) for user in range(50)])
    settling = asyncio.create_task(debt.settle())

    await until(lambda: debt.owed == 1)

    settling.cancel()
    assert [await version_in(cache, user) for user in (6, 7, 8)] == [1, None, 1]


async def test_what_was_inherited_does_not_hold_up_a_large_debt(monkeypatch):
    """
    With the room half full nothing inherited was taken as paid, and nothing else was tried before it, for ever.
    """
    monkeypatch.setattr("agents.cache_debt.OWED_ROWS_MAX", 10)
    async with bench() as made:
        await made.take(taps(0))
        await made.publisher.settle()
        cache = ToldStore("cache")
        heir = new_debt(cache)
        heir.inherit(restored(made.tables.get(TOPIC, 0)), until=version(0, 0))
        await heir.write([stored(user, 5) for user in range(2, 9)])

        await settled(heir)

        assert [await version_in(cache, user) for user in (1, 8)] == [version(0, 0), 5]


async def test_a_partitions_progress_is_inherited_too():
    """
    The partition may be quiet from now on: readers would see a lag that is none until its next event.
    """
    async with bench() as made:
        await made.take(taps(3))
        await made.publisher.settle()
        cache = ToldStore("cache")
        heir = new_debt(cache, made.record)
        heir.inherit(restored(made.tables.get(TOPIC, 0)), until=version(0, 3))

        await settled(heir)

        key = progress_key("user", 0)
        assert await cache.read([key], deadline_ms=HELD_MS) == await made.record.read([key], deadline_ms=HELD_MS)


class PartlyAway(ToldStore):
    """Takes some rows alone; told to, it takes none of those that come together with one that it refuses."""

    def __init__(self, name, *, together=False) -> None:
        super().__init__(name)
        self.refuses = lambda _row: False
        self._together = together

    async def write(self, rows, *, deadline_ms):
        refused = [row for row in rows if self.refuses(row)]
        taken = [row for row in rows if row not in refused] if not (refused and self._together) else []
        number = await super().write(taken, deadline_ms=deadline_ms)
        if refused:
            raise PartialWriteError("told to fail in part", frozenset(row.key for row in rows if row not in taken))
        return number


async def version_in(store, user) -> int | None:
    key = RowKey(f"user#i{user}", FAST)
    found = await store.read([key], deadline_ms=HELD_MS)
    return version_of(found[key]) if key in found else None


class UnreadableStore(ToldStore):
    """Cannot be read at first."""

    refusals = 1

    async def read(self, keys, *, deadline_ms):
        if self.refusals:
            self.refusals -= 1
            raise StoreError("told to fail")
        return await super().read(keys, deadline_ms=deadline_ms)


def new_debt(cache, record=None) -> CacheDebt:
    record = record or ToldStore("record")
    return CacheDebt(cache, record, Metrics(), ManualClock(NOW_MS), lifetimes={FAST: LIFETIME_MS, SLOW: LIFETIME_MS})


async def settled(debt) -> None:
    settling = asyncio.create_task(debt.settle())
    await until(lambda: debt.is_clear)
    settling.cancel()


async def mark(record) -> int | None:
    key = cached_key("user", 0)
    found = await record.read([key], deadline_ms=HELD_MS)
    return version_of(found[key]) if key in found else None


def restored(table) -> TablePartition:
    """The table as its next owner restores it from the changelog."""
    heir = TablePartition(
        table.entity, table.partition, [GroupTable(group.plan, 1, present_engine()) for group in table.groups], []
    )
    for group, copy in zip(table.groups, heir.groups, strict=True):
        for key, change in group.packed():
            copy.put_packed(key, change, group.version(key))
    return heir
