"""Writing the changelog: every flushed row, acknowledged.

The writer also watches where its own records land. A hole between them is somebody else's bytes, as of a dead owner
that arrive after the take-over (PROTOCOL, P7b): ``tables.mend`` reads them and writes every row again that they would
set back.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.errors import BrokerError, FormatError, RowTooLargeError
from core.keys import partition_key
from core.ports import RowKey
from core.versions import version_bytes, version_of
from tables.table import GroupTable, PackedRow, TablePartition
from tables.waiting_sends import when_room

_VERSION_HEADER = "ver"


class Tombstone(NamedTuple):
    """A row that is removed: nothing under its key, and in a header the version that is gone."""

    key: RowKey
    ver: int


def change_key(key: RowKey) -> bytes:
    """Return the changelog key of a row.

    >>> change_key(RowKey("user#i1", "taste@v1"))
    b'user#i1 taste@v1'
    """
    return f"{key.pk} {key.sk}".encode()


def find_row(table: TablePartition, key: bytes | None) -> tuple[GroupTable, str] | None:
    """Return the group and the encoded entity key that a changelog key names, or None if it names none of the table's.

    A stranger's key, or one of a version that is not served any more, cannot stand for one of our rows.
    """
    try:
        pk, _, sk = (key or b"").decode().partition(" ")
    except UnicodeDecodeError:
        return None
    group, prefix = table.group(sk), partition_key(table.entity, "")
    return (group, pk.removeprefix(prefix)) if group is not None and pk.startswith(prefix) else None


def tombstone_version(headers: Sequence[tuple[str, bytes]]) -> int:
    """Return the version of the row that a tombstone removes.

    Raises:
        FormatError: It has none, so nobody can tell whether it is older than the rows around it.
    """
    for name, value in headers:
        if name == _VERSION_HEADER:
            return version_of(value)
    raise FormatError("a tombstone without a version")


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

    async def write(self, rows: Mapping[TopicPartition, Sequence[PackedRow | Tombstone]]) -> None:
        """Write rows and tombstones and await the acknowledgement of every one; writes may overlap.

        Raises:
            BrokerError: A batch was refused for good; nothing of it counts as written.
            RowTooLargeError: A row fits no batch.
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

    async def _write(self, rows: Mapping[TopicPartition, Sequence[PackedRow | Tombstone]]) -> None:
        sent = [await self._send(tp, batch) for tp, changed in rows.items() for batch in self._batches(changed)]
        for tp, records, acknowledgement in sent:
            try:
                metadata = await acknowledgement
            except KafkaError as error:
                raise BrokerError(f"changelog {tp.topic}[{tp.partition}] refused {records} records: {error}") from error
            # After a repeated send the broker may not say where the first one landed; the next end tells.
            if metadata.offset >= 0:
                self._landed.setdefault(tp, []).append((metadata.offset, metadata.offset + records))

    def take_foreign(self) -> dict[TopicPartition, tuple[int, int]]:
        """Return ranges ``[from, to)`` of changelog offsets that others wrote while we own them; each once."""
        foreign, self._foreign = self._foreign, {}
        return foreign

    def give_back(self, tp: TopicPartition, offsets: range) -> None:
        """Take a foreign range back that could not be read; it is returned again."""
        start, end = self._foreign.get(tp, (offsets.start, offsets.stop))
        self._foreign[tp] = (min(start, offsets.start), max(end, offsets.stop))

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

    def _batches(self, rows: Sequence[PackedRow | Tombstone]) -> list[Any]:
        producer = self._producer()
        batches = [producer.create_batch()]
        for row in rows:
            record = _record_of(row)
            if batches[-1].append(**record) is None:
                batches.append(producer.create_batch())
                if batches[-1].append(**record) is None:
                    # A tombstone always fits.
                    key, size = (row.key, 0) if isinstance(row, Tombstone) else (row.stored.key, len(row.change))
                    raise RowTooLargeError(*key, row_bytes=size, limit="more than a batch of the changelog's producer")
        return batches

    async def _send(self, tp: TopicPartition, batch: Any) -> tuple[TopicPartition, int, Any]:
        records = batch.record_count()
        acknowledgement = await when_room(self._producer().send_batch, batch, topic=tp.topic, partition=tp.partition)
        return tp, records, acknowledgement


def _record_of(row: PackedRow | Tombstone) -> dict[str, Any]:
    if isinstance(row, Tombstone):
        headers = [(_VERSION_HEADER, version_bytes(row.ver))]
        return {"key": change_key(row.key), "value": None, "timestamp": None, "headers": headers}
    return {"key": change_key(row.stored.key), "value": row.change, "timestamp": None}
