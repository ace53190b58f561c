"""What the pipeline tells of whole partitions: progress to readers, and to the next owner what the cache has.

Neither is ever ahead of the rows that it speaks of, and neither is written with every flush.
"""

import asyncio
import math
from collections.abc import Mapping
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

    def __init__(self, record: RecordWriter, cache: CacheDebt) -> None:
        """Begin without any.

        Args:
            record: Where progress and marks go.
            cache: Where progress goes too.
        """
        self._record = record
        self._cache = cache
        self._era = 0
        self._steps: dict[TablePartition, Step] = {}
        self._marked_at: dict[TablePartition, float] = {}
        self._more = asyncio.Event()

    def given_away(self) -> None:
        """Forget everything: the partitions are somebody else's."""
        self._era += 1
        self._steps.clear()
        self._marked_at.clear()

    def note(self, steps: Mapping[TablePartition, Step]) -> None:
        """Note steps to publish: every row up to them is written."""
        if steps:
            self._steps |= steps
            self._more.set()

    async def run(self) -> None:
        """Publish the newest steps, for ever: beside the next flush, and once in a while."""
        while True:
            await self._more.wait()
            self._more.clear()
            if self._steps:
                steps, self._steps = self._steps, {}
                await self._publish(steps)
                await asyncio.sleep(_PROGRESS_EVERY_S)

    async def _publish(self, steps: Mapping[TablePartition, Step]) -> None:
        era = self._era
        # Asked before anything is awaited: partitions that are given away meanwhile take their debts along.
        marks = self._take_marks(steps) if self._cache.is_clear else []
        rows = [
            progress_row(table.entity, table.partition, ver=version(table.epoch, step.offset), as_of_ms=step.as_of_ms)
            for table, step in steps.items()
        ]
        await self._record.write(rows + marks)
        if era == self._era:
            await self._cache.write(rows)

    def _take_marks(self, steps: Mapping[TablePartition, Step]) -> list[StoredRow]:
        now = asyncio.get_running_loop().time()
        due = [table for table in steps if now - self._marked_at.get(table, -math.inf) >= _MARK_EVERY_S]
        self._marked_at.update(dict.fromkeys(due, now))
        return [
            cached_row(table.entity, table.partition, ver=version(table.epoch, steps[table].offset)) for table in due
        ]
