"""Mending the changelog: rows that a dead owner's late bytes would set back are written again (PROTOCOL, P7b).

Late bytes may also be ahead of us: the former owner had applied more than it committed, and we apply it again. Its
higher version is a state that we are about to reach, so it is let be. Whether another worker is alive in our partition
is not decided here: the coordinator knows (``agents.fence``). Only a version that no record of the input can have
given means that input and changelog do not belong together, and ends the worker.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.errors import BrokerError, FormatError
from core.rows import fingerprint_of, unpack_change
from core.topics import repartition_topic
from core.versions import version, version_of
from tables.changelog import ChangelogWriter, find_row
from tables.owned import OwnedTables
from tables.restore import ChangelogReader
from tables.table import GroupTable, TablePartition

log = logging.getLogger(__name__)

_EVERY_S = 5.0


@dataclass(slots=True)
class _Found:
    """What a look at foreign bytes found, for the log.

    Attributes:
        behind: Rows behind which something older, a tombstone or no row landed: they are written again.
        ahead: Rows whose former owner was further than we are yet.
        unreadable: Those of them behind which no row landed.
    """

    behind: int = 0
    ahead: int = 0
    unreadable: int = 0


class ChangelogMender:
    """Looks, every few seconds, for bytes in our changelogs that are not ours."""

    def __init__(
        self,
        tables: OwnedTables,
        writer: ChangelogWriter,
        reader: ChangelogReader,
        *,
        touched: Callable[[], None],
        die: Callable[[str], None],
    ) -> None:
        self._tables = tables
        self._writer = writer
        self._reader = reader
        self._touched = touched
        self._die = die

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.mend()
            except (KafkaError, BrokerError, OSError) as error:
                # The broker is away for a moment; what landed meanwhile is still there at the next look.
                log.warning("changelog not looked at: %s", error)

    async def mend(self) -> int:
        """Write every row again behind which a lower version, or something that is no row, landed; return how many."""
        if not (changelogs := self._by_changelog()):
            return 0
        self._writer.note_ends(await self._reader.ends(changelogs))
        # Asked for anew: during the question all may have been given away and restored, and these are other tables.
        tables = self._by_changelog()
        found = _Found()
        left = {tp: range(*span) for tp, span in self._writer.take_foreign().items() if tp in tables}
        try:
            for tp, offsets in list(left.items()):
                await self._mend_range(tables[tp], tp, offsets, found)
                del left[tp]
        finally:
            # A range is told once: forgotten, its rows would stay set back for ever.
            for tp, offsets in left.items():
                self._writer.give_back(tp, offsets)
            self._tell(found)
        return found.behind

    def _by_changelog(self) -> dict[TopicPartition, TablePartition]:
        return {table.changelog: table for table in self._tables}

    def _tell(self, found: _Found) -> None:
        if found.behind:
            self._touched()
        if found.behind or found.ahead or found.unreadable:
            log.warning(
                "foreign bytes in the changelog",
                extra={"written_again": found.behind, "ahead": found.ahead, "unreadable": found.unreadable},
            )

    async def _mend_range(self, table: TablePartition, tp: TopicPartition, offsets: range, found: _Found) -> None:
        highest = 0
        async for key, value in self._reader.read_range(tp, offsets.start, offsets.stop):
            place = find_row(table, key)
            if place is not None:
                highest = max(highest, self._mend_row(tp, *place, value, found))
        if highest:
            await self._refuse_impossible(table, tp, highest)

    def _mend_row(self, tp: TopicPartition, group: GroupTable, name: str, value: bytes | None, found: _Found) -> int:
        """Decide about a foreign row; return its version if it is higher than ours, else 0."""
        known = group.version(name)
        if known is None:
            # A row that was removed here and comes back by such bytes is past, and goes again after the next restore.
            return 0
        if value is None:
            # A former owner's tombstone, of whatever version: behind our row, it would let compaction remove it.
            group.touch(name)
            found.behind += 1
            return 0
        try:
            row, _ = unpack_change(value)
            fingerprint = fingerprint_of(row)
        except FormatError:
            # Compaction keeps the last record of a key: it would be one that no restore can read.
            group.touch(name)
            found.unreadable += 1
            found.behind += 1
            return 0
        if fingerprint != group.plan.fingerprint:
            self._die(
                f"changelog {tp.topic}[{tp.partition}]: somebody writes rows of {group.sk} with another definition; "
                f"see docs/how-to/recover.md"
            )
            return 0
        if version_of(row) < known:
            group.touch(name)
            found.behind += 1
        elif version_of(row) > known:
            found.ahead += 1
            return version_of(row)
        return 0

    async def _refuse_impossible(self, table: TablePartition, tp: TopicPartition, ver: int) -> None:
        source = TopicPartition(repartition_topic(table.entity), table.partition)
        end = (await self._reader.ends([source]))[source]
        if end <= 0 or ver > version(table.epoch, end - 1):
            self._die(
                f"changelog {tp.topic}[{tp.partition}] holds version {ver}, but {source.topic} ends at offset {end}: "
                f"the topics do not belong together; see docs/how-to/recover.md"
            )
