"""What the pipeline tells of whole partitions: progress to readers, and to the next owner what the cache has.

Neither is ever ahead of the rows that it speaks of, and neither is written with every flush.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from agents.cache_debt import CacheDebt
from agents.record_writer import RecordWriter
from core.ports import StoredRow
from core.progress import cached_row, progress_row
from core.versions import version
from tables.table import TablePartition

_PROGRESS_EVERY_S = 0.25
_MARK_EVERY_S = 5.0
"""How much of the cache's rows are written to it once more after a take-over, at most."""


class Step(NamedTuple):
    """How far a partition has come: every row up to there is published.

    Attributes:
        offset: Of the last packed record, in the repartition topic.
        as_of_ms: Newest record timestamp up to and including it.
    """

    offset: int
    as_of_ms: int


class ProgressPublisher:
    """Publishes the steps of partitions."""

    def __init__(self, record: RecordWriter, cache: CacheDebt, *, wake: Callable[[], None]) -> None:
        """Begin without any.

        Args:
            record: Where progress and marks go.
            cache: Where progress goes too.
            wake: Called when a step that was held back is due: ``publish`` shall be called, with what there is.
        """
        self._record = record
        self._cache = cache
        self._wake = wake
        self._published_at: dict[TablePartition, float] = {}
        self._marked_at: dict[TablePartition, float] = {}
        self._held_back: dict[TablePartition, Step] = {}
        self._timer: asyncio.TimerHandle | None = None

    def given_away(self) -> None:
        """Forget everything: the partitions are somebody else's."""
        self._published_at.clear()
        self._marked_at.clear()
        self._held_back.clear()

    async def publish(self, steps: Mapping[TablePartition, Step]) -> None:
        """Publish steps, or hold them back for a moment where the last one is not long ago."""
        now, steps = asyncio.get_running_loop().time(), self._held_back | dict(steps)
        last = self._published_at
        due = {table: step for table, step in steps.items() if now - last.get(table, -math.inf) >= _PROGRESS_EVERY_S}
        self._held_back = {table: step for table, step in steps.items() if table not in due}
        if self._held_back and self._timer is None:
            # Nothing may come after: the last step before a silence must be published too. One timer is enough, and
            # one for each flush would make flushes that make timers, without end.
            self._timer = asyncio.get_running_loop().call_later(_PROGRESS_EVERY_S, self._on_timer)
        if not due:
            return
        self._published_at.update(dict.fromkeys(due, now))
        # Asked before anything is awaited: partitions that are given away meanwhile take their debts along.
        marks = self._take_marks(due, now) if self._cache.is_clear else []
        rows = [
            progress_row(table.entity, table.partition, ver=version(table.epoch, step.offset), as_of_ms=step.as_of_ms)
            for table, step in due.items()
        ]
        await self._record.write(rows + marks)
        await self._cache.write(rows)

    def _take_marks(self, steps: Mapping[TablePartition, Step], now: float) -> list[StoredRow]:
        due = [table for table in steps if now - self._marked_at.get(table, -math.inf) >= _MARK_EVERY_S]
        self._marked_at.update(dict.fromkeys(due, now))
        return [
            cached_row(table.entity, table.partition, ver=version(table.epoch, steps[table].offset)) for table in due
        ]

    def _on_timer(self) -> None:
        self._timer = None
        self._wake()
