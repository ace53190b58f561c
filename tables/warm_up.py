"""Warming up: event ids from the recent past of the input, so that a restart forgets no repetition (PROTOCOL, P3).

Ids age in the time of their own source partition, and the input is looked up by the time of its dispatch. The two are
the same while events are dispatched as they come. After a bulk load an hour of dispatching may hold a minute of the
source's time, or a month of it, so what was read decides: where it does not reach back far enough in the source's own
time, it is read again from twice as far back, at most from the log's beginning on.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from aiokafka import TopicPartition

from core.errors import FormatError, NewerFormatError
from core.packs import Pack, unpack
from tables.apply import remember
from tables.message import Message
from tables.restore_progress import RestoreProgress
from tables.table import TablePartition

log = logging.getLogger(__name__)

_FIRST_LOOK = 2
"""Horizons of dispatch time that are read at first: as many as it takes while events are dispatched as they come."""

_ENOUGH = 1.25
"""Horizons of source time that must be covered: their slices are an eighth of one, and records not quite in order."""

_STEP_RECORDS_MIN = 1_000

_AT_ONCE = 5
"""Packs that are entered before others may work: up to 500 ids in each, of 1.5 us, so 4 ms of the event loop."""

Place: TypeAlias = tuple[str, int]
"""Topic and partition of a source."""


class InputLog(Protocol):
    """Partitions of repartition topics, read outside of any consumer group."""

    async def beginnings(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the first offset that each partition still has."""
        ...

    async def times_before(self, stops: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """Return, per partition, the timestamp of the last record before an offset; 0 where none is found."""
        ...

    async def offsets_at(self, times: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """Return, per partition, the first offset at or after a timestamp; 0 where the broker does not tell."""
        ...

    def runs(
        self, starts: Mapping[TopicPartition, int], stops: Mapping[TopicPartition, int]
    ) -> AsyncIterator[tuple[TopicPartition, Sequence[Message]]]:
        """Yield all records of partitions between two offsets, in runs; a start below the log's begin means its begin.

        Messages are librdkafka's own: to make values of them all would take as long as to read them.
        """
        ...


@dataclass(slots=True)
class Reach:
    """How far back a reading of one table's input went, in the time of each source partition.

    Attributes:
        horizons: How long ids are remembered, milliseconds, by source topic.
        since_ms: When the first record that was read was dispatched; what was dispatched before is no younger.
        firsts: Newest record timestamp of the first pack of each source partition.
        newest: Newest record timestamp of each source partition.
    """

    horizons: Mapping[str, int]
    since_ms: int | None = None
    firsts: dict[Place, int] = field(default_factory=dict)
    newest: dict[Place, int] = field(default_factory=dict)

    def note(self, pack: Pack, dispatched_ms: int) -> None:
        """Note the next pack."""
        if self.since_ms is None:
            self.since_ms = dispatched_ms
        place, time_ms = (pack.source, pack.partition), max(pack.record_times, default=0)
        self.firsts.setdefault(place, time_ms)
        self.newest[place] = max(self.newest.get(place, 0), time_ms)

    def short(self) -> set[Place]:
        """Return the source partitions of which ids may be missing that are still remembered.

        A partition's first pack bounds what came before it, for a partition is dispatched in its order; and so does
        the time of dispatch, for an event is dispatched after it was written.
        """
        since_ms = self.since_ms or 0
        return {
            place
            for place, first_ms in self.firsts.items()
            if min(first_ms, since_ms) > self.newest[place] - self.horizons.get(place[0], 0) * _ENOUGH
            and place[0] in self.horizons
        }


async def warm_up(
    log_: InputLog,
    stops: Mapping[TopicPartition, int],
    tables: Mapping[TopicPartition, TablePartition],
    progress: RestoreProgress,
) -> None:
    """Enter the event ids that are still remembered at each partition's stop, without applying anything.

    A source partition of which nothing was dispatched for two horizons is not looked for.

    Raises:
        NewerFormatError: A newer release has written the input.
    """
    begins = await log_.beginnings(stops)
    starts = await _first_starts(log_, stops, tables)
    left = dict(stops)
    short: dict[TopicPartition, set[Place]] = {}
    count = 0
    while left:
        reaches = {tp: Reach(tables[tp].horizons) for tp in left}
        for tp in left:
            tables[tp].forget_ids()
        with progress.reading("event ids", offsets=sum(stop - starts[tp] for tp, stop in left.items())):
            async for tp, run in log_.runs(starts, left):
                count += len(run)
                progress.read(records=len(run), offsets=len(run))
                for start in range(0, len(run), _AT_ONCE):
                    _enter(tp, run[start : start + _AT_ONCE], tables[tp], reaches[tp])
                    await asyncio.sleep(0)
        short = {tp: reach.short() & short.get(tp, reach.short()) for tp, reach in reaches.items()}
        left = {tp: stop for tp, stop in left.items() if short[tp] and starts[tp] > begins[tp]}
        for tp, stop in left.items():
            back = max(2 * (stop - starts[tp]), _STEP_RECORDS_MIN)
            log.warning(
                "event ids looked for further back",
                extra={"topic": tp.topic, "partition": tp.partition, "offset": stop, "records": back},
            )
            starts[tp] = max(stop - back, begins[tp])
    log.info(
        "event ids entered",
        extra={
            "partitions": len(stops),
            "records": count,
            "ids": sum(tables[tp].ids for tp in stops),
            "records_back_max": max((stop - starts[tp] for tp, stop in stops.items()), default=0),
        },
    )


async def _first_starts(
    log_: InputLog, stops: Mapping[TopicPartition, int], tables: Mapping[TopicPartition, TablePartition]
) -> dict[TopicPartition, int]:
    last = await log_.times_before(stops)
    horizons = {tp: max(tables[tp].horizons.values(), default=0) for tp in stops}
    found = await log_.offsets_at({tp: max(last[tp] - _FIRST_LOOK * horizons[tp], 0) for tp in stops})
    return {tp: min(found[tp], stop) for tp, stop in stops.items()}


def _enter(tp: TopicPartition, run: Sequence[Message], table: TablePartition, reach: Reach) -> None:
    packs = []
    for message in run:
        pack = _pack(tp, message)
        if pack is not None:
            packs.append(pack)
            reach.note(pack, message.timestamp()[1])
    remember(table, packs)


def _pack(tp: TopicPartition, message: Message) -> Pack | None:
    """Return a record's pack, or None for one that is none: it was buried when its turn came."""
    try:
        return unpack(message.value())
    except NewerFormatError as error:
        raise NewerFormatError(f"{tp.topic}[{tp.partition}] offset {message.offset()}: {error}") from error
    except FormatError as error:
        log.warning(
            "no packed record: %s",
            error,
            extra={"topic": tp.topic, "partition": tp.partition, "offset": message.offset()},
        )
        return None
