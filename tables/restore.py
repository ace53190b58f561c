"""Restoring tables: rows from the changelog, ids of events from the recent past of the input.

Faust's recovery reads 10,000 records a second and can hang when a worker joins; this reader is a plain loop. It keeps
the highest version per key, not the last record: bytes of a dead owner may arrive after the take-over (PROTOCOL, P7b).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from typing_extensions import override

from core.errors import BrokerError, FormatError
from core.rows import fingerprint_of, unpack_change
from core.topics import changelog_topic, repartition_topic
from core.versions import version_of
from tables.changelog import find_row, tombstone_version
from tables.log_range import records
from tables.table import GroupTable, TablePartition
from tables.warm_up import InputLog, warm_up

log = logging.getLogger(__name__)

_STOP_S = 1.0


class ChangelogReader:
    """Reads changelogs and the recent past of repartition topics, outside of any consumer group."""

    def __init__(self, kafka: Mapping[str, Any], *, new_consumer: Callable[..., Any] = AIOKafkaConsumer) -> None:
        """Read nothing yet.

        Args:
            kafka: How the broker is reached.
            new_consumer: Makes aiokafka's consumer, or what plays it.
        """
        self._kafka = dict(kafka)
        self._new_consumer = new_consumer

    async def restore(self, tables: Sequence[TablePartition]) -> dict[TopicPartition, int]:
        """Fill tables from their changelogs.

        Returns:
            The end of each changelog: where our own records will begin.

        Raises:
            BrokerError: A record cannot be read, or holds a row of another definition than the group's; the message
                has its coordinates. Or a changelog has lost its beginning, or the broker gives nothing for 30 s.
        """
        by_tp = {TopicPartition(changelog_topic(table.entity), table.partition): table for table in tables}
        restoration = Restoration(by_tp)
        restored = 0
        async with self._reader(by_tp) as (consumer, ends):
            _refuse_loss(await consumer.beginning_offsets(list(by_tp)))
            async for tp, record in records(consumer, dict.fromkeys(by_tp, 0), ends):
                restoration.take(tp, record)
                restored += 1
        restoration.refuse_unreadable()
        log.info("changelogs restored", extra={"partitions": len(by_tp), "records": restored})
        return ends

    async def read_range(self, tp: TopicPartition, start: int, end: int) -> AsyncIterator[tuple[bytes, bytes | None]]:
        """Yield key and value of the changelog records in ``[start, end)``; a tombstone has no value."""
        async with self._reader([tp]) as (consumer, _):
            async for _, record in records(consumer, {tp: start}, {tp: end}):
                yield record.key, record.value

    async def ends(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where changelogs end now."""
        async with self._reader(tps) as (_, ends):
            return ends

    async def warm_ids(self, tables: Mapping[TablePartition, int]) -> None:
        """Enter the event ids of the dedupe horizon before each table's committed offset, without applying anything.

        Args:
            tables: Offset, in its repartition topic, from which each table will read on.

        Raises:
            NewerFormatError: A newer release has written the input.
            BrokerError: The broker gives nothing for 30 s.
        """
        by_tp = {TopicPartition(repartition_topic(table.entity), table.partition): table for table in tables}
        stops = {tp: tables[table] for tp, table in by_tp.items() if tables[table] > 0}
        if not stops:
            return
        async with self._reader(stops) as (consumer, _):
            await warm_up(_ConsumedLog(consumer), stops, by_tp)

    @asynccontextmanager
    async def _reader(
        self, tps: Iterable[TopicPartition]
    ) -> AsyncIterator[tuple[AIOKafkaConsumer, dict[TopicPartition, int]]]:
        consumer = self._new_consumer(**self._kafka, group_id=None, enable_auto_commit=False, fetch_max_wait_ms=100)
        try:
            await consumer.start()
            consumer.assign(list(tps))
            ends = await consumer.end_offsets(list(tps))
            yield consumer, dict(ends)
        finally:
            # A TLS connection may wait 30 s for the broker's goodbye; it is dropped without, nothing is on its way.
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await consumer.stop()


class _ConsumedLog(InputLog):
    """The input as a consumer without a group reads it."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    @override
    async def beginnings(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict(await self._consumer.beginning_offsets(list(tps)))

    @override
    async def times_before(self, stops: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        times = {}
        for tp, stop in stops.items():
            self._consumer.seek(tp, stop - 1)
            found = await asyncio.wait_for(self._consumer.getmany(tp, timeout_ms=5000), timeout=10)
            times[tp] = found[tp][0].timestamp if found.get(tp) else 0
        return times

    @override
    async def offsets_at(self, times: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        found = await self._consumer.offsets_for_times(dict(times))
        return {tp: found[tp].offset if found[tp] is not None else 0 for tp in times}

    @override
    def records(
        self, starts: Mapping[TopicPartition, int], stops: Mapping[TopicPartition, int]
    ) -> AsyncIterator[tuple[TopicPartition, Any]]:
        return records(self._consumer, starts, stops)


class Restoration:
    """What the records of changelogs, in their order, leave of rows: the highest version, be it that of a tombstone."""

    def __init__(self, tables: Mapping[TopicPartition, TablePartition]) -> None:
        self._tables = tables
        self._gone: dict[tuple[TopicPartition, bytes], int] = {}
        self._unreadable: dict[tuple[TopicPartition, bytes], str] = {}

    def take(self, tp: TopicPartition, record: Any) -> None:
        """Take the next record."""
        place = find_row(self._tables[tp], record.key)
        if place is None:
            return
        try:
            self._take_row((tp, record.key), *place, record)
        except FormatError as error:
            text = f"changelog {tp.topic}[{tp.partition}] offset {record.offset}: {error}"
            self._unreadable[tp, record.key] = text
        else:
            # Its owner has written the row once more behind what cannot be read, as ``tables.mend`` does.
            self._unreadable.pop((tp, record.key), None)

    def refuse_unreadable(self) -> None:
        """Refuse rows of which the last record cannot be read: passed over, they would begin anew from nothing."""
        if self._unreadable:
            first, more = next(iter(self._unreadable.values())), len(self._unreadable) - 1
            raise BrokerError(first + (f" (and {more} rows more)" if more else ""))

    def _take_row(self, key: tuple[TopicPartition, bytes], group: GroupTable, name: str, record: Any) -> None:
        gone = self._gone.get(key, -1)
        if record.value is None:
            self._gone[key] = max(tombstone_version(record.headers), gone)
            group.forget(name, self._gone[key])
            return
        row, _ = unpack_change(record.value)
        _refuse_other_meaning(group, fingerprint_of(row))
        if version_of(row) > gone:
            group.put_packed(name, record.value, version_of(row))


def _refuse_other_meaning(group: GroupTable, fingerprint: bytes) -> None:
    """Refuse a row of another definition: its tiles would be merged as if they were this one's.

    Raises:
        FormatError: It is one.
    """
    if fingerprint != group.plan.fingerprint:
        raise FormatError(
            f"the row {group.sk} was computed with definition {fingerprint.hex()}, here it is "
            f"{group.plan.fingerprint.hex()}: two meanings have one number; see docs/how-to/recover.md"
        )


def _refuse_loss(starts: Mapping[TopicPartition, int]) -> None:
    """Refuse a changelog whose beginning was deleted, as retention does and compaction never: rows are lost."""
    for tp, start in starts.items():
        if start > 0:
            raise BrokerError(
                f"changelog {tp.topic}[{tp.partition}] begins at offset {start}: the broker has deleted rows. It "
                f"must be kept with cleanup.policy=compact; the embedded broker keeps no more than 5 MB"
            )
