"""Restoring tables: rows from the changelog, ids of events from the recent past of the input.

Faust's recovery reads 10,000 records a second and can hang when a worker joins; this reader is a plain loop. It keeps
the highest version per key, not the last record: bytes of a dead owner may arrive after the take-over (PROTOCOL, P7b).
Where the last record is another, the row is written again: compaction would leave that one alone.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka import TopicPartition

from core.errors import BrokerError, FormatError
from core.rows import begin_of_row, inspect_change, row_begins_at
from core.topics import repartition_topic
from core.versions import VERSION_BYTES, version_bytes, version_of
from tables.changelog import find_row, tombstone_version
from tables.cold import ColdRows
from tables.log_range import ReadableLog, open_log, record_of
from tables.message import Message
from tables.restore_progress import RestoreProgress
from tables.table import GroupTable, TablePartition
from tables.warm_up import warm_up

log = logging.getLogger(__name__)

_AT_ONCE = 200
"""Records that are taken before others may work: 0.5 ms of the event loop, on disk 3; a write there may wait longer."""
_AT_HAND_MIN = 10_000
"""Rows that a table has at hand, however many are restored together."""


class ChangelogReader:
    """Reads changelogs and the recent past of repartition topics, outside of any consumer group.

    Attributes:
        progress: How far it is.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        *,
        open_log: Callable[[Mapping[str, Any]], AbstractAsyncContextManager[ReadableLog]] = open_log,
    ) -> None:
        """Connect to nothing yet.

        Args:
            kafka: How the broker is reached, as librdkafka names it.
            open_log: Opens a connection, or what plays it.
        """
        self._kafka = dict(kafka)
        self._open_log = open_log
        self.progress = RestoreProgress()

    async def restore(self, tables: Sequence[TablePartition]) -> dict[TopicPartition, int]:
        """Fill tables from their changelogs.

        Returns:
            The end of each changelog: where our own records will begin.

        Raises:
            BrokerError: A record cannot be read, or holds a row of another definition than the group's; the message
                has its coordinates. Or a changelog has lost its beginning, or the broker gives nothing for 30 s.
        """
        by_tp = {table.changelog: table for table in tables}
        restoration = Restoration(by_tp)
        async with self._open_log(self._kafka) as kafka_log:
            _refuse_loss(await kafka_log.beginnings(by_tp))
            ends = dict(await kafka_log.ends(by_tp))
            with self.progress.reading("rows", offsets=sum(ends.values())):
                read = dict.fromkeys(by_tp, 0)
                async for tp, run in kafka_log.runs(read, ends):
                    for start in range(0, len(run), _AT_ONCE):
                        restoration.take_run(tp, run[start : start + _AT_ONCE])
                        await asyncio.sleep(0)
                    self.progress.read(records=len(run), offsets=run[-1].offset() + 1 - read[tp])
                    read[tp] = run[-1].offset() + 1
        restoration.refuse_unreadable()
        restoration.touch_set_back()
        restoration.drop_gone()
        return ends

    async def read_range(self, tp: TopicPartition, start: int, end: int) -> AsyncIterator[tuple[bytes, bytes | None]]:
        """Yield key and value of the changelog records in ``[start, end)``; a tombstone has no value."""
        async with self._open_log(self._kafka) as kafka_log:
            async for _, record in kafka_log.records({tp: start}, {tp: end}):
                yield record.key or b"", record.value

    async def ends(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where changelogs end now."""
        async with self._open_log(self._kafka) as kafka_log:
            return dict(await kafka_log.ends(tps))

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
        if stops:
            async with self._open_log(self._kafka) as kafka_log:
                await warm_up(kafka_log, stops, by_tp, self.progress)


class Restoration:
    """What the records of changelogs, in their order, leave of rows: the highest version, be it that of a tombstone."""

    def __init__(
        self,
        tables: Mapping[TopicPartition, TablePartition],
    ) -> None:
        self._tables = tables
        self._others = _Others()
        # No reference leads back from them to us: a cycle would keep all tables until Python's collector finds it.
        at_hand_max = _at_hand_each(tables.values())
        self._plain = {
            tp: _PlainRows(table, partial(self._others.has, tp), at_hand_max) for tp, table in tables.items()
        }

    def take(self, tp: TopicPartition, record: Any) -> None:
        """Take the next record."""
        if not self._plain[tp].take(record.key, record.value):
            self._take_other(tp, record)

    def take_run(self, tp: TopicPartition, run: Iterable[Message]) -> None:
        """Take the next records of a partition as librdkafka gives them."""
        take_plain = self._plain[tp].take
        for message in run:
            if not take_plain(message.key(), message.value()):
                self._take_other(tp, record_of(message))

    def refuse_unreadable(self) -> None:
        """Refuse rows of which the last record cannot be read: passed over, they would begin anew from nothing."""
        unreadable = self._others.unreadable
        if unreadable:
            first, more = next(iter(unreadable.values())), len(unreadable) - 1
            raise BrokerError(first + (f" (and {more} rows more)" if more else ""))

    def touch_set_back(self) -> None:
        """Let every row be written again whose last record is not its highest version.

        A dead owner's late bytes stand behind it, from whenever they came: compaction would leave them alone, and the
        next restore would find the older row (PROTOCOL, P7b).
        """
        set_back = self._others.set_back
        for group, name in set_back.values():
            group.touch(name)
        if set_back:
            log.warning("rows were set back by late bytes, writing them again", extra={"rows": len(set_back)})

    def drop_gone(self) -> None:
        """Drop the versions of tombstones: all is taken."""
        self._others.drop_gone()

    def _take_other(self, tp: TopicPartition, record: Any) -> None:
        place = find_row(self._tables[tp], record.key)
        if place is None:
            return
        self._plain[tp].forget(record.key)
        try:
            self._take_row((tp, record.key), *place, record)
        except FormatError as error:
            text = f"changelog {tp.topic}[{tp.partition}] offset {record.offset}: {error}"
            self._others.unreadable[tp, record.key] = text
        else:
            # Its owner has written the row once more behind what cannot be read, as ``tables.mend`` does.
            self._others.unreadable.pop((tp, record.key), None)

    def _take_row(self, key: tuple[TopicPartition, bytes], group: GroupTable, name: str, record: Any) -> None:
        others = self._others
        gone = others.gone_in(group, name)
        if record.value is None:
            ver = tombstone_version(record.headers)
            gone = max(ver, gone)
            others.note_gone(group, name, gone)
            group.forget(name, gone)
        else:
            ver, fingerprint = inspect_change(record.value)
            _refuse_other_meaning(group, fingerprint)
            if ver > gone:
                group.put_packed(name, record.value, ver)
        if ver < (group.version(name) or 0):
            others.set_back[key] = group, name
        else:
            others.set_back.pop(key, None)


class _Others:
    """What was found under keys besides rows in rising versions.

    Attributes:
        unreadable: Why a key's last record cannot be read.
        set_back: Rows whose last record is not their highest version.
    """

    def __init__(self) -> None:
        self.unreadable: dict[tuple[TopicPartition, bytes], str] = {}
        self.set_back: dict[tuple[TopicPartition, bytes], tuple[GroupTable, str]] = {}
        self._gone: dict[GroupTable, ColdRows] = {}

    def note_gone(self, group: GroupTable, name: str, ver: int) -> None:
        """Note the highest version of a row in which it is gone."""
        if group not in self._gone:
            self._gone[group] = group.engine.rows()
        self._gone[group][name] = version_bytes(ver)

    def gone_in(self, group: GroupTable, name: str) -> int:
        """Return the highest version of a row in which it is gone, or -1."""
        gone = self._gone.get(group)
        stone = gone.get(name) if gone is not None else None
        return version_of(stone) if stone is not None else -1

    def drop_gone(self) -> None:
        """Drop those versions."""
        for stones in self._gone.values():
            stones.clear()
        self._gone = {}

    def has(self, tp: TopicPartition, key: bytes, group: GroupTable, name: str) -> bool:
        """Return whether something else than rows in rising versions was found under a key."""
        if not (self.set_back or self.unreadable or self._gone):
            return False
        place = (tp, key)
        return place in self.set_back or place in self.unreadable or self.gone_in(group, name) >= 0


class _PlainRows:
    """The short way for what almost every record is: a row of ours, under a key without tombstones.

    Only a row's begin is looked at: to decode all would take longer than to read it. What is broken behind its begin is
    found when the row is touched. The rows met last are at hand; of others the table tells how far they are.
    """

    def __init__(
        self, table: TablePartition, is_other: Callable[[bytes, GroupTable, str], bool], at_hand_max: int
    ) -> None:
        self._table = table
        self._at_hand_max = at_hand_max
        self._is_other = is_other
        self._rows: dict[bytes, _PlainRow] = {}

    def forget(self, key: bytes) -> None:
        """Have a key no longer at hand: something else was found under it."""
        self._rows.pop(key, None)

    def take(self, key: bytes | None, value: bytes | None) -> bool:
        """Take a record and return True, or leave it."""
        if key is None or value is None:
            return False
        row = self._rows.get(key) or self._enter(key)
        if row is None:
            return False
        at = row_begins_at(value)
        if not value.startswith(row.begin, at + VERSION_BYTES) or not at:
            return False
        ver = value[at : at + VERSION_BYTES]
        if not row.ver:
            row.group.put_new(row.name, value)
            row.ver = ver
        elif ver > row.ver:
            row.rows[row.name] = value
            row.ver = ver
        # Something older behind it is not plain: a dead owner's late bytes.
        return ver == row.ver

    def _enter(self, key: bytes) -> "_PlainRow | None":
        place = find_row(self._table, key)
        if place is None or self._is_other(key, *place):
            return None
        if len(self._rows) >= self._at_hand_max:
            self._rows.clear()
        group, name = place
        known = group.version(name)
        ver = version_bytes(known) if known is not None else b""
        row = self._rows[key] = _PlainRow(group, name, begin_of_row(group.plan.fingerprint), group.cold(), ver)
        return row


@dataclass(slots=True)
class _PlainRow:
    """A row by its key in the changelog.

    Attributes:
        begin: What follows the version in every row of the group.
        rows: Where the group keeps its bytes.
        ver: Highest version so far, as stores compare it; nothing before the first.
    """

    group: GroupTable
    name: str
    begin: bytes
    rows: ColdRows
    ver: bytes


def _at_hand_each(tables: Collection[TablePartition]) -> int:
    """Return how many rows each of the tables may have at hand, so that all together have a bound."""
    together = min((group.engine.at_hand_max for table in tables for group in table.groups), default=0)
    return max(together // max(len(tables), 1), _AT_HAND_MIN)


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
