import asyncio

import pytest

from agents.publish import UPDATES_WAITING_MAX
from agents.record_writer import RecordWriter
from core.errors import PartialWriteError, RowTooLargeError, StoreTimeoutError
from core.metrics import Metrics
from core.ports import RowKey, StoredRow
from core.progress import progress_as_of_ms, progress_key
from core.versions import version, version_bytes, version_of
from stores.dynamodb import ITEM_BYTES_MAX, DynamoStore
from stores.dynamodb_calls import DynamoCalls
from stores.dynamodb_place import TablePlace
from tests.aggregating import AROUND, CHANGELOG, FAST, HELD_MS, NOW_MS, SLOW, TOPIC, bench, clicks, taps
from tests.clock import ManualClock
from tests.fakes import Run, ToldStore, idle, until


async def test_a_row_goes_to_changelog_record_and_cache_before_its_run_is_finished():
    """
    A commit before any of them loses what a crash then prevents (PROTOCOL, P6).
    """
    async with bench() as made:
        run = taps(7)
        await made.take(run)
        await until(lambda: len(made.told) >= 7)

        assert [what for what, _ in made.told] == [
            CHANGELOG, "record", "cache", "announced", "finished", "record", "cache"
        ]  # fmt: skip
        assert sorted(made.rows("record")) == [(AROUND, version(0, 7)), (FAST, version(0, 7))]
        assert made.finished == [run]


@pytest.mark.parametrize(
    ("step", "told"), [("changelog", [CHANGELOG]), ("record", [CHANGELOG]), ("cache", [CHANGELOG, "record"])]
)
async def test_nothing_passes_a_step_that_has_not_answered(step, told):
    """
    The order of writes says little; the order of answers is what a crash cuts. One step is held at a time: with all of
    them held, a step that was not waited for at all went unnoticed. Found by a mutant.
    """
    async with bench(held=step == "changelog") as made:
        store = {"record": made.record, "cache": made.cache}.get(step)
        if store is not None:
            store.open.clear()
        await made.take(taps(7))
        await until(lambda: made.producer.sent)
        await idle()
        assert [what for what, _ in made.told] == told

        if store is not None:
            store.open.set()
        made.acknowledge()
        await until(lambda: made.finished)


async def test_on_a_machine_that_has_just_started_the_first_change_goes_out_at_once(monkeypatch):
    """
    Its clock begins with it: an hourly group waited until the machine was an hour old.
    """
    loop = asyncio.get_running_loop()
    now, started = loop.time, loop.time()
    monkeypatch.setattr(loop, "time", lambda: now() - started)
    async with bench() as made:
        await made.take(clicks(0))

        await until(lambda: made.finished)
        assert (SLOW, version(0, 0)) in made.rows("record")


async def test_a_run_waits_for_all_its_groups_and_for_the_runs_before_it():
    """
    A commit covers every offset below it, whichever group is written seldom.
    """
    async with bench() as made:
        first, second, third, elsewhere = clicks(0), clicks(1), taps(2), taps(0, 2, partition=1)
        await made.take(first)
        await until(lambda: made.finished == [first])

        await made.take(second)
        await made.take(third)
        await made.take(elsewhere)
        await until(lambda: (FAST, version(0, 2)) in made.rows("record"))
        await until(lambda: len(made.finished) == 2)
        await idle()
        assert made.finished == [first, elsewhere]
        assert made.rows("record").count((SLOW, version(0, 1))) == 0

        await made.publisher.settle()

        assert made.finished == [first, elsewhere, second, third]
        assert await made.stored(sk=SLOW) == version(0, 1)


async def test_the_first_change_of_a_group_goes_out_at_once():
    """
    While an hourly group waited for its hour, every other group's first change waited with it.
    """
    async with bench() as made:
        await made.take(clicks(0))
        await until(lambda: made.finished)
        await made.take(clicks(1))
        await until(lambda: (FAST, version(0, 1)) in made.rows("record"))
        await idle()

        await made.take(taps(0, 2, partition=1))
        await until(lambda: len(made.finished) == 2)

        assert (AROUND, version(0, 0)) in made.rows("record")
        assert (SLOW, version(0, 1)) not in made.rows("record")


async def test_rows_that_have_not_just_been_flushed_go_out_before_their_group_is_due(monkeypatch):
    """
    A user's first click would be seen after a whole interval, because others had clicked just before.
    """
    monkeypatch.setattr("agents.flush_times._ALONE_EVERY_MAX_S", 3_600)
    async with bench() as made:
        made.clock.advance(-NOW_MS)
        first, second, third = clicks(0, 1), clicks(1, 2), clicks(2, 1, 3)
        await made.take(first)
        await until(lambda: made.finished == [first])

        await made.take(second)
        await until(lambda: made.finished == [first, second])
        assert await made.stored(2, SLOW) == version(0, 1)

        await made.take(third)
        await until(lambda: len(made.rows_of(RowKey("user#i3", SLOW))) == 1)
        await idle()
        assert await made.stored(1, SLOW) == version(0, 0)
        # Of what it changed, one row is not written yet.
        assert made.finished == [first, second]

        await made.publisher.settle()
        assert made.finished == [first, second, third]
        assert await made.stored(1, SLOW) == version(0, 2)


async def test_rows_of_a_group_that_is_flushed_seldom_wait_for_it():
    """
    Whoever lets an hour pass between two flushes pays for every write.
    """
    async with bench() as made:
        made.clock.advance(-NOW_MS)
        await made.take(clicks(0, 1))
        await until(lambda: made.finished)
        await made.take(clicks(1, 2))
        await until(lambda: made.rows_of(RowKey("user#i2", FAST)))
        await asyncio.sleep(0.05)

        assert made.rows_of(RowKey("user#i2", SLOW)) == []


async def test_settle_publishes_at_once_whatever_the_intervals():
    """
    Partitions are given away within seconds; an hour is too long to wait.
    """
    async with bench() as made:
        runs = [clicks(0), clicks(1), clicks(2, 2, partition=1)]
        for run in runs:
            await made.take(run)
            await idle()

        await made.aggregator.settle()

        assert sorted(made.finished, key=runs.index) == runs
        assert await made.stored(sk=SLOW) == version(0, 1)
        await made.aggregator.settle()


async def test_a_change_during_a_flush_is_flushed_after_it():
    """
    A run that is applied while its row is on the wire must not be finished by that flush.
    """
    async with bench(held=True) as made:
        first, second = taps(0), taps(1)
        await made.take(first)
        await until(lambda: made.producer.sent)
        await made.take(second)
        made.acknowledge()
        await until(lambda: len(made.producer.sent) == 2)
        assert made.finished == [first]
        assert await made.stored() == version(0, 0)

        made.acknowledge()
        await until(lambda: made.finished == [first, second])
        assert await made.stored() == version(0, 1)


async def test_a_record_that_fails_is_tried_again_and_nothing_is_finished_before():
    """
    The record is the truth: while it is down, partitions wait, and nothing is lost.
    """
    async with bench() as made:
        made.record.failures = 2
        await made.take(taps(0))
        await until(lambda: made.finished)

        whats = [what for what, _ in made.told]
        assert whats.index("finished") > whats.index("record") > 2
        assert whats.count("record failed") == 2
        assert await made.stored() == version(0, 0)


async def test_a_row_that_dynamodb_can_never_take_is_not_tried_again():
    """
    It refuses items over 400 KB; the write was tried again for ever, and the partition stood still in silence.
    """
    store = DynamoStore(DynamoCalls(TablePlace("rows", "eu-central-1")), ManualClock(NOW_MS))
    record = RecordWriter(store, Metrics())
    large = StoredRow(RowKey("user#i1", FAST), 1, bytes(ITEM_BYTES_MAX))

    with pytest.raises(RowTooLargeError, match=rf"the row {FAST} of user#i1 has \d+ bytes, .* smaller states"):
        await asyncio.wait_for(record.write([large]), timeout=30)


async def test_a_record_that_is_slow_gets_less_at_a_time():
    """
    DynamoDB that takes 100 rows within a deadline never took 1,000, however often they were tried again.
    """
    store = SlowStore("record", at_once=100)
    record = RecordWriter(store, Metrics())
    rows = [StoredRow(RowKey(f"user#i{user}", FAST), 1, version_bytes(1)) for user in range(2_000)]

    await asyncio.wait_for(record.write(rows), timeout=30)
    store.at_once = 1_000
    store.told.clear()
    await record.write([row._replace(ver=2, value=version_bytes(2)) for row in rows])

    assert len(await store.read([row.key for row in rows], deadline_ms=HELD_MS)) == 2_000
    assert max(len(rows) for _, rows in store.told) > 900


async def test_what_a_record_took_of_a_write_is_not_written_again():
    """
    Asked for all of it again, a slow record never gets further.
    """
    store = SlowStore("record", at_once=100, partly=True)
    rows = [StoredRow(RowKey(f"user#i{user}", FAST), 1, version_bytes(1)) for user in range(500)]

    await asyncio.wait_for(RecordWriter(store, Metrics()).write(rows), timeout=30)

    assert sum(len(rows) for _, rows in store.told) == 500


class SlowStore(ToldStore):
    """Takes so many rows at once; of more it takes none in time, or the first of them."""

    def __init__(self, name, *, at_once, partly=False) -> None:
        super().__init__(name)
        self.at_once = at_once
        self._partly = partly

    async def write(self, rows, *, deadline_ms):
        if len(rows) <= self.at_once:
            return await super().write(rows, deadline_ms=deadline_ms)
        if not self._partly:
            raise StoreTimeoutError("too slow")
        await super().write(rows[: self.at_once], deadline_ms=deadline_ms)
        raise PartialWriteError("too slow", frozenset(row.key for row in rows[self.at_once :]))


async def test_a_replay_is_published_again():
    """
    Its last publication may have died between changelog and record (PROTOCOL, P5).
    """
    async with bench() as made:
        await made.take(taps(0))
        await until(lambda: made.finished)
        again = taps(0)
        await made.take(Run(TOPIC, 0, [again.value[0]._replace(offset=1)]))
        await until(lambda: len(made.finished) == 2)

        assert made.rows("record").count((FAST, version(0, 0))) == 2


async def test_progress_follows_the_finished_runs():
    """
    A quiet key is not an old key: its partition's progress says up to when it is complete.
    """
    async with bench() as made:
        await made.take(taps(5))
        await made.publisher.settle()

        key = progress_key("user", 0)
        found = await made.record.read([key], deadline_ms=HELD_MS)
        assert (version_of(found[key]), progress_as_of_ms(found[key])) == (version(0, 5), NOW_MS + 5)


async def test_the_last_progress_before_a_silence_is_published_too():
    """
    Steps that came too soon after one another were left out, and nothing came back for the last of them: every answer
    said that it was complete up to the last but one, for as long as nobody sent anything.
    """
    async with bench() as made:
        for offset in (5, 6, 7):
            await made.take(taps(offset))
            await made.publisher.settle()
        key = progress_key("user", 0)

        await until(lambda: made.rows_of(key)[-1] == version(0, 7))

        found = await made.record.read([key], deadline_ms=HELD_MS)
        assert progress_as_of_ms(found[key]) == NOW_MS + 7


async def test_progress_does_not_wait_for_a_group_of_another_partition():
    """
    The publisher slept until a group was due, for an hour, and what had been held back for a moment slept with it.
    """
    async with bench() as made:
        for offset in (0, 1):
            await made.take(clicks(offset, partition=1))
        for offset in (5, 6, 7):
            await made.take(taps(offset))
            await until(lambda: (FAST, version(0, offset)) in made.rows("record"))  # noqa: B023

        await until(lambda: made.rows_of(progress_key("user", 0))[-1:] == [version(0, 7)])


async def test_runs_that_wait_for_a_group_that_is_seldom_flushed_become_one():
    """
    Beyond a number of unfinished runs a partition is not read: an hourly group let it stand still for an hour.
    """
    async with bench() as made:
        runs = [clicks(offset) for offset in range(20)]
        deliveries = [made.offsets.deliver(TOPIC, offset + 1, 1) for offset in range(20)]
        made.deliveries = dict(zip(map(id, runs), deliveries, strict=True))
        for offset, run in enumerate(runs):
            await made.take(run)
            await until(lambda: (FAST, version(0, offset)) in made.rows("record"))  # noqa: B023
            await idle()

        assert made.offsets.outstanding(TOPIC) < 5
        assert made.offsets.positions() == {TOPIC: 1}
        await made.publisher.settle()
        assert made.offsets.positions() == {TOPIC: 20}


async def test_progress_that_waits_wakes_the_publisher_once():
    """
    Each flush set a timer and each timer made a flush: under load the publisher soon did nothing else.
    """
    async with bench() as made:
        for offset in range(30):
            await made.take(taps(offset))
            await made.publisher.settle()

        timers = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]
        assert len(timers) < 5


async def test_room_is_made_by_a_flush_that_does_not_wait():
    """
    However seldom a group is written: what is applied and not yet durable is bounded.
    """
    async with bench() as made:
        await made.take(clicks(0))
        await until(lambda: made.finished)
        table = made.tables.get(TOPIC, 0)
        table.group(SLOW).touch("i1")
        full = clicks(1)
        made.publisher.applied(table, full, updates=UPDATES_WAITING_MAX)
        waiting = asyncio.create_task(made.publisher.wait_for_room())
        await idle()

        await asyncio.wait_for(waiting, timeout=5)

        assert made.finished[-1] is full
        assert made.rows("record").count((SLOW, version(0, 0))) == 2
