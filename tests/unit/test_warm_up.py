"""Warming up after a restart: that no repetition is taken for a first time, whatever the dispatch took."""

import asyncio
from itertools import pairwise

import pytest
from aiokafka import TopicPartition
from typing_extensions import override

from core.dedupe import Verdict
from core.errors import NewerFormatError
from core.packs import PACK_FORMAT, Pack, pack_bytes
from core.topics import repartition_topic
from core.windows import to_ms
from tables.apply import judge
from tables.message import Message
from tables.restore_progress import RestoreProgress
from tables.table import TablePartition
from tables.warm_up import InputLog, warm_up
from tests.aggregating import CLICKS, NOW_MS, TAPS

TP = TopicPartition(repartition_topic("user"), 0)
HORIZON_MS = to_ms(CLICKS.dedupe)
MINUTE_MS = 60_000


class Dispatched(Message):
    """A record of the input: when it was dispatched, and what it holds."""

    def __init__(self, offset: int, dispatched_ms: int, value: bytes | None) -> None:
        self.dispatched_ms = dispatched_ms
        self._offset, self._value = offset, value

    @override
    def offset(self) -> int:
        return self._offset

    @override
    def timestamp(self) -> tuple[int, int]:
        return 1, self.dispatched_ms

    @override
    def value(self) -> bytes | None:
        return self._value


class Input(InputLog):
    """An input of one partition in memory.

    Attributes:
        looks: From where it was read.
        begin: The first offset that retention has left.
    """

    def __init__(self) -> None:
        self.log: list[Dispatched] = []
        self.looks: list[int] = []
        self.begin = 0

    def dispatch(self, *, at_ms: int, value: bytes | None = None, **event: int) -> None:
        self.log.append(Dispatched(len(self.log), at_ms, value if value is not None else pack_bytes(click(**event))))

    @override
    async def beginnings(self, tps):
        return dict.fromkeys(tps, self.begin)

    @override
    async def times_before(self, stops):
        return {tp: self.log[stop - 1].dispatched_ms for tp, stop in stops.items()}

    @override
    async def offsets_at(self, times):
        return {
            tp: next(record.offset() for record in self.log[self.begin :] if record.dispatched_ms >= time_ms)
            for tp, time_ms in times.items()
        }

    @override
    async def runs(self, starts, stops):
        self.looks.append(starts[TP])
        if starts[TP] < stops[TP]:
            yield TP, self.log[starts[TP] : stops[TP]]


def click(*, number: int, time_ms: int, partition: int = 0) -> Pack:
    return Pack(
        PACK_FORMAT, CLICKS.topic, "", partition, [], [number], [time_ms], [time_ms], [f"e{partition}/{number}"], [0],
        ["i1"], [],
    )  # fmt: skip


def new_table() -> TablePartition:
    return TablePartition("user", 0, [], [CLICKS, TAPS])


async def warmed(log: Input, stop: int | None = None) -> TablePartition:
    table = new_table()
    await warm_up(log, {TP: len(log.log) if stop is None else stop}, {TP: table}, RestoreProgress())
    return table


def repeated(table: TablePartition, *, of: int, number: int, time_ms: int, partition: int = 0) -> Verdict:
    """What becomes of an event that its producer sends again, at another place."""
    again = click(number=number, time_ms=time_ms, partition=partition)
    again.event_ids[0] = f"e{partition}/{of}"
    (verdict,) = judge(table, again)
    return verdict


async def test_events_that_are_dispatched_as_they_come_are_read_once():
    """
    The usual restart must not pay for the unusual one.
    """
    log = Input()
    for number in range(120):
        log.dispatch(at_ms=NOW_MS + number * MINUTE_MS, number=number, time_ms=NOW_MS + number * MINUTE_MS)

    table = await warmed(log)

    assert log.looks == [119 - 2 * HORIZON_MS // MINUTE_MS]
    assert repeated(table, of=110, number=120, time_ms=NOW_MS + 120 * MINUTE_MS) is Verdict.DUPLICATE


async def test_others_work_while_ids_of_one_run_are_entered():
    """
    2,000 packs of 500 ids each at once, of 1.5 us an id, hold up everything in the worker for more than a second.
    """
    log, table = Input(), new_table()
    for number in range(120):
        log.dispatch(at_ms=NOW_MS, number=number, time_ms=NOW_MS)
    warming = asyncio.create_task(warm_up(log, {TP: 120}, {TP: table}, RestoreProgress()))
    seen = []
    while not warming.done():
        seen.append(table.ids)
        await asyncio.sleep(0)

    assert seen[-1] == 120
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 5


async def test_a_bulk_load_that_was_dispatched_slowly_is_looked_for_further_back():
    """
    Ten minutes of a source's time took two hours to dispatch, longer than twice the horizon of 15 minutes: after a
    restart in the middle, an event that its producer had sent twice within a minute counted twice.
    """
    log = Input()
    for number in range(5_000):
        log.dispatch(at_ms=NOW_MS + number * 1_500, number=number, time_ms=NOW_MS + number * 120)

    table = await warmed(log)

    assert log.looks[-1] == 0
    assert repeated(table, of=1, number=5_000, time_ms=NOW_MS + 600_000) is Verdict.DUPLICATE
    assert table.ids == 5_000


async def test_a_bulk_load_is_looked_for_no_further_than_its_own_time_demands():
    """
    Reading a week's log at each restart would be as bad as forgetting; every look costs twice the one before.
    """
    log = Input()
    for number in range(40_000):
        log.dispatch(at_ms=NOW_MS + number * 1_000, number=number, time_ms=NOW_MS + number * 500)

    table = await warmed(log)

    first = log.looks[-1]
    horizon = HORIZON_MS // 500
    assert 40_000 - 4 * horizon <= first <= 40_000 - horizon
    assert repeated(table, of=40_000 - horizon + 1, number=40_000, time_ms=NOW_MS + 40_000 * 500) is Verdict.DUPLICATE


async def test_a_partition_that_became_quiet_is_looked_for_by_its_own_time():
    """
    Its clock stands still while the others' go on, so its ids are remembered, also beyond twice the horizon.
    """
    log = Input()
    for number in range(120):
        time_ms = NOW_MS + number * MINUTE_MS
        log.dispatch(at_ms=time_ms, number=number, time_ms=time_ms)
        if number in (82, 95):
            log.dispatch(at_ms=time_ms, number=number, time_ms=time_ms, partition=1)

    table = await warmed(log)

    assert repeated(table, of=82, number=200, time_ms=NOW_MS + 95 * MINUTE_MS, partition=1) is Verdict.DUPLICATE


async def test_the_look_back_ends_where_the_log_begins():
    """
    What retention has deleted cannot be read, and nobody may wait for it.
    """
    log = Input()
    for number in range(5_000):
        log.dispatch(at_ms=NOW_MS + number * 1_500, number=number, time_ms=NOW_MS)
    log.begin = 700

    table = await warmed(log)

    assert log.looks[-1] == 700
    assert table.ids == 4_300


async def test_nothing_at_or_after_the_stop_is_entered():
    """
    What will be applied is judged then; entered before, it would only be a replay of itself, but its time would count.
    """
    log = Input()
    for number in range(10):
        log.dispatch(at_ms=NOW_MS + number, number=number, time_ms=NOW_MS + number)

    table = await warmed(log, stop=4)

    assert table.ids == 4


async def test_a_strangers_record_is_passed_over():
    """
    It was buried when its turn came; a restart must not end at it.
    """
    log = Input()
    log.dispatch(at_ms=NOW_MS, number=0, time_ms=NOW_MS)
    log.dispatch(at_ms=NOW_MS, value=b"garbage")

    assert (await warmed(log)).ids == 1


async def test_a_newer_format_ends_the_take_over_with_its_place():
    """
    Ids that cannot be read are repetitions that will be counted.
    """
    log = Input()
    log.dispatch(at_ms=NOW_MS, value=b"\x92\x02\xa6clicks")

    with pytest.raises(NewerFormatError, match=r"freshet.user\[0\] offset 0: pack format 2"):
        await warmed(log)
