"""Aggregate: runs of packed records become changed rows; the publisher makes them durable.

A record that is no pack is a stranger's: it is buried and passed over, or it would end every worker that meets it. A
pack of a newer format is ours and holds events: it ends the worker, which must be upgraded first (PROTOCOL, P8).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka.errors import KafkaError

from agents.dead_letters import DeadLetter, bury
from agents.publish import Publisher
from core.dedupe import SeenIdsFullError
from core.errors import BrokerError, EventError, FormatError, NewerFormatError
from core.metrics import Metrics
from core.packs import Pack, unpack
from tables.apply import Applied, apply_pack
from tables.owned import OwnedTables
from tables.table import TablePartition

log = logging.getLogger(__name__)

_YIELD_UPDATES = 80
_FULL_RETRY_S = 5.0


class Aggregator:
    """Applies runs to the tables that this worker owns."""

    def __init__(
        self,
        tables: OwnedTables,
        publisher: Publisher,
        metrics: Metrics,
        *,
        producer: Callable[[], Any],
        full_retry_s: float = _FULL_RETRY_S,
    ) -> None:
        self._tables = tables
        self._publisher = publisher
        self._metrics = metrics
        self._producer = producer
        self._full_retry_s = full_retry_s
        self._working = asyncio.Lock()

    async def take(self, message: Any) -> None:
        """Apply one run; it is finished when everything it changed is published."""
        await self._publisher.wait_for_room()
        async with self._working:
            table = self._tables.get(message.topic, message.partition)
            if table is None:
                # Given away while the run waited in the queue: its next owner reads it again.
                return
            updates = await self._apply_run(table, message.value)
            if self._tables.owns(table):
                self._publisher.applied(table, message, updates=updates)

    async def settle(self) -> None:
        """Wait until the run in hand is applied and everything applied is published."""
        async with self._working:
            await self._publisher.settle()

    async def _apply_run(self, table: TablePartition, records: Sequence[Any]) -> int:
        counts: dict[str, Applied] = {}
        updates = since_yield = 0
        for record in records:
            pack = await self._unpack(record)
            if pack is None:
                continue
            counts.setdefault(pack.source, Applied()).add(await self._apply(table, pack, record.offset))
            updates += len(pack.offsets)
            since_yield += len(pack.offsets)
            if since_yield >= _YIELD_UPDATES:
                since_yield = 0
                await asyncio.sleep(0)
        for source, count in counts.items():
            self._metrics.updates(
                table.entity,
                source,
                applied=count.applied,
                duplicates=count.duplicates,
                conflicts=count.conflicts,
                replays=count.replays,
            )
        return updates

    async def _unpack(self, record: Any) -> Pack | None:
        """Return a record's pack, or None for one that is none and was buried."""
        try:
            return unpack(record.value)
        except NewerFormatError as error:
            raise NewerFormatError(f"{record.topic}[{record.partition}] offset {record.offset}: {error}") from error
        except FormatError as error:
            await self._bury(DeadLetter.of(record, EventError("unreadable", str(error)[:500])))
            return None

    async def _bury(self, letter: DeadLetter) -> None:
        try:
            await (await bury(letter, self._producer()))
        except KafkaError as error:
            raise BrokerError(f"the dead letter of {letter.place.decode()} was refused: {error}") from error
        self._metrics.buried(letter.topic, letter.reason)
        log.error(
            "record buried: %s",
            letter.detail,
            extra={"topic": letter.topic, "partition": letter.partition, "offset": letter.offset},
        )

    async def _apply(self, table: TablePartition, pack: Pack, offset: int) -> Applied:
        while self._tables.owns(table):
            try:
                return apply_pack(table, pack, offset)
            except SeenIdsFullError as error:
                log.error("worker waits: %s", error, extra={"entity": table.entity, "partition": table.partition})  # noqa: TRY400  # no trace needed
                await asyncio.sleep(self._full_retry_s)
        # Given away in the meantime, perhaps because it waited here; whoever waits for ever holds up what is owned now.
        return Applied()
