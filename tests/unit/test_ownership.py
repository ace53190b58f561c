"""What becomes of runs, rows and bytes when partitions come and go in the middle of the work (PROTOCOL, P7b, P9)."""

import asyncio

from agents.publish import UPDATES_WAITING_MAX
from core.versions import version
from tests.aggregating import FAST, TOPIC, bench, clicks, taps
from tests.fakes import Record, Run, idle, until


async def test_there_is_no_room_while_too_much_waits():
    """
    Without a bound a store that is down would fill the memory with what it should have had.
    """
    async with bench(held=True) as made:
        table = made.tables.get(TOPIC, 0)
        await made.take(taps(0))
        await until(lambda: made.producer.sent)
        made.publisher.applied(table, taps(1), updates=UPDATES_WAITING_MAX)
        waiting = asyncio.create_task(made.take(taps(2)))
        await idle()
        assert not waiting.done()

        made.give_away()

        await asyncio.wait_for(waiting, timeout=5)
        made.acknowledge()
        assert not made.finished


async def test_what_is_given_away_is_finished_by_nobody():
    """
    Its offsets are another worker's now; and a run that waits for rows that nobody flushes would hold up every later
    settling for its whole time.
    """
    async with bench() as made:
        for offset in range(2):
            await made.take(clicks(offset))
            await idle()
        assert len(made.finished) == 1

        made.give_away()
        await made.take(clicks(2))
        await asyncio.wait_for(made.aggregator.settle(), timeout=5)

        assert [run.offset for run in made.finished] == [0]


async def test_a_flush_in_flight_ends_when_its_partitions_go():
    """
    It went on to write, part after part, over whatever their next owner had written by then.
    """
    async with bench(held=True) as made:
        await made.take(taps(0, *range(9_000)))
        await until(lambda: len(made.producer.sent) >= 4)
        sent = len(made.producer.sent)

        made.give_away()
        made.acknowledge()
        await idle()
        made.acknowledge()
        await idle()

        assert len(made.producer.sent) - sent <= 1
        assert not made.finished
        assert not [what for what, _ in made.told if what == "announced"]


async def test_the_cache_gets_nothing_of_partitions_that_went_while_the_record_was_away():
    """
    The next owner has written newer rows by then; a Redis that was emptied meanwhile would keep the older ones.
    """
    async with bench() as made:
        made.record.open.clear()
        await made.take(taps(0))
        await until(lambda: made.producer.sent)
        await idle()

        made.give_away()
        made.record.open.set()
        await until(lambda: made.rows("record"))
        await idle()

        assert made.rows("cache") == []
        assert (made.debt.owed, made.announced) == (0, [])


async def test_what_comes_after_is_published_as_ever():
    """
    The same worker may get the same partitions back while its old bytes are still on the wire; a restore that began
    before they landed would take them for its own (PROTOCOL, P7b).
    """
    async with bench(held=True) as made:
        await made.take(taps(0))
        await until(lambda: made.producer.sent)
        made.give_away()
        taking_over = asyncio.create_task(made.own())
        await idle()
        assert not taking_over.done()

        made.acknowledge()
        await asyncio.wait_for(taking_over, timeout=5)
        made.producer.held = False
        again = taps(0)
        await made.take(again)
        await until(lambda: made.finished)

        assert made.finished == [again]
        assert await made.stored() == version(0, 0)


async def test_a_run_whose_table_goes_while_it_is_applied_is_not_waited_for():
    """
    It was noted for tables that nobody flushes any more, and its progress was published although its rows were not.
    """
    async with bench() as made:
        long = Run(TOPIC, 0, [record for n in range(20) for record in taps(n, *range(100)).value])
        taking = asyncio.create_task(made.take(long))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not taking.done()

        made.give_away()
        await taking
        await asyncio.wait_for(made.aggregator.settle(), timeout=5)

        assert not made.finished
        assert not made.rows("record")


async def test_a_partition_that_waits_for_room_for_its_ids_can_be_given_away():
    """
    It waited on and on, for a table that was not its own any more, and nothing else was ever applied.
    """
    async with bench() as made:
        taking = asyncio.create_task(made.take(clicks(0, *range(10_001))))
        await idle()
        await idle()
        assert not taking.done()

        made.give_away()
        await asyncio.wait_for(taking, timeout=5)
        await made.own()
        run = taps(1)
        await made.take(run)
        await until(lambda: made.finished)

        assert made.finished == [run]


async def test_a_run_of_a_partition_that_is_not_owned_is_left_to_its_owner():
    """
    It was delivered before the partition went, and is read again by whoever has it now.
    """
    async with bench() as made:
        await made.take(Run(TOPIC, 7, [Record(TOPIC, 7, 0, 0, None, b"not even looked at")]))
        await made.publisher.settle()

        assert not made.told


async def test_two_partitions_have_their_own_tables_and_one_flush():
    """
    Groups are flushed together in all partitions; a run is finished by what became of its own.
    """
    async with bench() as made:
        runs = [taps(4, 1), taps(9, 2, partition=1)]
        for run in runs:
            await made.take(run)
        await until(lambda: len(made.finished) == 2)

        assert await made.stored(1, FAST) == version(0, 4)
        assert await made.stored(2, FAST) == version(0, 9)
