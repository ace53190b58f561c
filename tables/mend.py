"""Mending the changelog: rows that a dead owner's late bytes would set back are written again (PROTOCOL, P7b)."""

import asyncio
import logging
from collections.abc import Callable

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.errors import BrokerError
from core.keys import partition_key
from core.rows import unpack_change
from core.topics import changelog_topic
from core.versions import version_of
from tables.changelog import ChangelogWriter
from tables.owned import OwnedTables
from tables.restore import ChangelogReader
from tables.table import TablePartition

log = logging.getLogger(__name__)

_EVERY_S = 5.0


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
        """Write every row again behind which a lower version landed; return how many.

        Bytes of a higher version mean that another worker is ahead of us in our own partition: we are the past.
        """
        tables = {TopicPartition(changelog_topic(table.entity), table.partition): table for table in self._tables}
        if not tables:
            return 0
        self._writer.note_ends(await self._reader.ends(tables))
        mended = 0
        for tp, (start, end) in self._writer.take_foreign().items():
            table = tables.get(tp)
            if table is not None:
                mended += await self._mend_range(table, tp, start, end)
        if mended:
            log.warning("rows written again behind foreign bytes", extra={"rows": mended})
            self._touched()
        return mended

    async def _mend_range(self, table: TablePartition, tp: TopicPartition, start: int, end: int) -> int:
        mended = 0
        async for key, value in self._reader.read_range(tp, start, end):
            pk, _, sk = key.decode().partition(" ")
            name = pk.removeprefix(partition_key(table.entity, ""))
            group = table.group(sk)
            known = group.version(name) if group is not None else None
            if group is None or known is None or value is None:
                continue
            found = version_of(unpack_change(value)[0])
            if found > known:
                self._die(f"changelog {tp.topic}[{tp.partition}] holds version {found} of a row that is {known} here")
            if found < known:
                group.dirty[name] = group.row(name)
                mended += 1
        return mended
