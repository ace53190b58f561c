"""The changelog: every flushed row, acknowledged, and our own reader of it.

Faust's recovery reads 10,000 records a second and can hang when a worker joins; this reader is a plain loop. It keeps
the highest version per key, not the last record: bytes of a dead owner may arrive after the take-over (PROTOCOL, P7b).
For the same reason the writer watches where its own records land. A hole between them is somebody else's bytes: they
are read, and every row that they would set back is written again behind them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from core.errors import BrokerError, FormatError
from core.keys import partition_key
from core.packs import unpack
from core.ports import RowKey
from core.rows import unpack_change
from core.topics import changelog_topic, repartition_topic
from core.versions import version_of
from core.windows import to_ms
from tables.apply import judge
from tables.table import PackedRow, TablePartition

log = logging.getLogger(__name__)

_POLL_MS = 200
_YIELD_EVERY = 2000
_STALLED_S = 30.0


def change_key(key: RowKey) -> bytes:
    """Return the changelog key of a row.

    >>> change_key(RowKey("user#i1", "taste@v1"))
    b'user#i1 taste@v1'
    """
    return f"{key.pk} {key.sk}".encode()


class ChangelogWriter:
    """Writes rows of owned partitions and notices foreign bytes among them."""

    def __init__(self, producer: Callable[[], Any]) -> None:
        self._producer = producer
        self._next: dict[TopicPartition, int] = {}
        self._landed: dict[TopicPartition, list[tuple[int, int]]] = {}
        self._foreign: dict[TopicPartition, tuple[int, int]] = {}
        self._in_flight = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def begin(self, ends: Mapping[TopicPartition, int]) -> None:
        """Note where the changelogs of the partitions that were taken over end."""
        self._next.update(ends)

    def forget(self) -> None:
        """Forget everything: nothing is owned any more."""
        self._next.clear()
        self._landed.clear()
        self._foreign.clear()

    async def wait_quiet(self) -> None:
        """Wait until no write is in flight: what lands after a restore has read the end would pass for its own."""
        await self._quiet.wait()

    async def write(self, rows: Mapping[TopicPartition, Sequence[PackedRow]]) -> None:
        """Write rows and await the acknowledgement of every one; writes may overlap.

        Raises:
            BrokerError: A batch was refused for good; nothing of it counts as written.
        """
        self._in_flight += 1
        self._quiet.clear()
        try:
            await self._write(rows)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._compare()
                self._quiet.set()

    async def _write(self, rows: Mapping[TopicPartition, Sequence[PackedRow]]) -> None:
        sent = [await self._send(tp, batch) for tp, changed in rows.items() for batch in self._batches(changed)]
        for tp, records, acknowledgement in sent:
            try:
                metadata = await acknowledgement
            except Exception as error:
                raise BrokerError(f"changelog {tp.topic}[{tp.partition}] refused {records} records: {error}") from error
            # After a repeated send the broker may not say where the first one landed; the next end tells.
            if metadata.offset >= 0:
                self._landed.setdefault(tp, []).append((metadata.offset, metadata.offset + records))

    def take_foreign(self) -> dict[TopicPartition, tuple[int, int]]:
        """Return ranges ``[from, to)`` of changelog offsets that others wrote while we own them; each once."""
        foreign, self._foreign = self._foreign, {}
        return foreign

    def note_ends(self, ends: Mapping[TopicPartition, int]) -> None:
        """Compare the changelogs' ends with what we wrote: a surplus is foreign.

        While a write is in flight its own records may be the surplus, so nothing is noted; where they land tells.
        """
        if not self._in_flight:
            for tp, end in ends.items():
                self._reach(tp, end, end)

    def _compare(self) -> None:
        """Look for holes between our records; only while no more of them are on their way into the holes."""
        for tp, ranges in self._landed.items():
            for start, end in sorted(ranges):
                self._reach(tp, start, end)
        self._landed.clear()

    def _reach(self, tp: TopicPartition, start: int, end: int) -> None:
        expected = self._next.get(tp)
        if expected is None:
            return
        if start > expected:
            first, _ = self._foreign.get(tp, (expected, 0))
            self._foreign[tp] = (first, start)
        self._next[tp] = max(expected, end)

    def _batches(self, rows: Sequence[PackedRow]) -> list[Any]:
        producer = self._producer()
        batches = [producer.create_batch()]
        for row in rows:
            key = change_key(row.stored.key)
            if batches[-1].append(key=key, value=row.change, timestamp=None) is None:
                batches.append(producer.create_batch())
                if batches[-1].append(key=key, value=row.change, timestamp=None) is None:
                    raise BrokerError(
                        f"row {row.stored.key} of {len(row.change)} bytes is larger than a producer batch"
                    )
        return batches

    async def _send(self, tp: TopicPartition, batch: Any) -> tuple[TopicPartition, int, Any]:
        records = batch.record_count()
        acknowledgement = await self._producer().send_batch(batch, tp.topic, partition=tp.partition)
        return tp, records, acknowledgement


class ChangelogReader:
    """Reads changelogs and the recent past of repartition topics, outside of any consumer group."""

    def __init__(self, kafka: Mapping[str, Any]) -> None:
        self._kafka = dict(kafka)

    async def restore(self, tables: Sequence[TablePartition]) -> dict[TopicPartition, int]:
        """Fill tables from their changelogs.

        Returns:
            The end of each changelog: where our own records will begin.

        Raises:
            BrokerError: A record cannot be read; the message has its coordinates. Or a changelog has lost its
                beginning, or the broker gives nothing for 30 s.
        """
        by_tp = {TopicPartition(changelog_topic(table.entity), table.partition): table for table in tables}
        restored = 0
        async with self._reader(by_tp) as (consumer, ends):
            _refuse_loss(await consumer.beginning_offsets(list(by_tp)))
            async for tp, record in _records(consumer, dict.fromkeys(by_tp, 0), ends):
                self._restore_one(by_tp[tp], tp, record)
                restored += 1
        log.info("changelogs restored", extra={"partitions": len(by_tp), "records": restored})
        return ends

    async def read_range(self, tp: TopicPartition, start: int, end: int) -> AsyncIterator[tuple[bytes, bytes | None]]:
        """Yield key and value of the changelog records in ``[start, end)``."""
        async with self._reader([tp]) as (consumer, _):
            async for _, record in _records(consumer, {tp: start}, {tp: end}):
                yield record.key, record.value

    async def ends(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where changelogs end now."""
        async with self._reader(tps) as (_, ends):
            return ends

    async def warm_ids(self, tables: Mapping[TablePartition, int]) -> None:
        """Enter the event ids of the dedupe horizon before each table's committed offset, without applying anything.

        Args:
            tables: Offset, in its repartition topic, from which each table will read on.
        """
        by_tp = {TopicPartition(repartition_topic(table.entity), table.partition): table for table in tables}
        stops = {tp: tables[table] for tp, table in by_tp.items() if tables[table] > 0}
        if not stops:
            return
        async with self._reader(stops) as (consumer, _):
            starts = await self._horizon_starts(consumer, stops, by_tp)
            async for tp, record in _records(consumer, starts, stops):
                if record.offset < stops[tp]:
                    judge(by_tp[tp], unpack(record.value))

    @asynccontextmanager
    async def _reader(
        self, tps: Iterable[TopicPartition]
    ) -> AsyncIterator[tuple[AIOKafkaConsumer, dict[TopicPartition, int]]]:
        consumer = AIOKafkaConsumer(**self._kafka, group_id=None, enable_auto_commit=False, fetch_max_wait_ms=100)
        try:
            await consumer.start()
            consumer.assign(list(tps))
            ends = await consumer.end_offsets(list(tps))
            yield consumer, dict(ends)
        finally:
            await consumer.stop()

    @staticmethod
    async def _horizon_starts(
        consumer: AIOKafkaConsumer, stops: Mapping[TopicPartition, int], tables: Mapping[TopicPartition, TablePartition]
    ) -> dict[TopicPartition, int]:
        last = {}
        for tp, stop in stops.items():
            consumer.seek(tp, stop - 1)
            records = await asyncio.wait_for(consumer.getmany(tp, timeout_ms=5000), timeout=10)
            found = records.get(tp)
            last[tp] = found[0].timestamp if found else 0
        # One slice more than the horizon: slices are cut by time, the horizon's beginning lies within one.
        since = {tp: max(last[tp] - 2 * max(map(to_ms, tables[tp].horizons), default=0), 0) for tp in stops}
        starts = await consumer.offsets_for_times(since)
        return {tp: starts[tp].offset if starts[tp] is not None else 0 for tp in stops}

    @staticmethod
    def _restore_one(table: TablePartition, tp: TopicPartition, record: Any) -> None:
        try:
            pk, _, sk = record.key.decode().partition(" ")
            group = table.group(sk)
            if group is None or record.value is None:
                return
            value, _ = unpack_change(record.value)
            group.put_packed(pk.removeprefix(partition_key(table.entity, "")), record.value, version_of(value))
        except (AttributeError, FormatError, UnicodeDecodeError) as error:
            raise BrokerError(f"changelog {tp.topic}[{tp.partition}] offset {record.offset}: {error}") from error


def _refuse_loss(starts: Mapping[TopicPartition, int]) -> None:
    """Refuse a changelog whose beginning was deleted, as retention does and compaction never: rows are lost."""
    for tp, start in starts.items():
        if start > 0:
            raise BrokerError(
                f"changelog {tp.topic}[{tp.partition}] begins at offset {start}: the broker has deleted rows. It "
                f"must be kept with cleanup.policy=compact; the embedded broker keeps no more than 5 MB"
            )


async def _records(
    consumer: AIOKafkaConsumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> AsyncIterator[tuple[TopicPartition, Any]]:
    """Yield all records of partitions between two offsets; a start below the log's beginning means its beginning."""
    first = await consumer.beginning_offsets(list(ends))
    for tp in ends:
        consumer.seek(tp, max(first[tp], starts[tp]))
    missing = await _unread(consumer, ends)
    count = 0
    while missing:
        for tp, records in (await _poll(consumer, missing)).items():
            for record in records:
                if record.offset < ends[tp]:
                    yield tp, record
                    count += 1
                    if count % _YIELD_EVERY == 0:
                        await asyncio.sleep(0)
        missing = await _unread(consumer, ends)


async def _unread(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> list[TopicPartition]:
    return [tp for tp, end in ends.items() if await consumer.position(tp) < end]


async def _poll(consumer: AIOKafkaConsumer, tps: Sequence[TopicPartition]) -> dict[TopicPartition, list[Any]]:
    deadline = asyncio.get_running_loop().time() + _STALLED_S
    while asyncio.get_running_loop().time() < deadline:
        polled: dict[TopicPartition, list[Any]] = await consumer.getmany(*tps, timeout_ms=_POLL_MS)
        if polled:
            return polled
    raise BrokerError(f"the broker has given nothing of {sorted(tps)} for {_STALLED_S:.0f} s")
