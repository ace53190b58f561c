"""Publish: changed rows go to the changelog, the record and the cache, in this order, and only then are runs finished.

One flush is in flight at a time; meanwhile the next runs are applied. When a group is due, ``agents.flush_times``
says. A run is finished (its offsets may be committed) when every group that it changed was flushed (PROTOCOL, P6).
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition

from agents.cache_debt import CacheDebt
from agents.flush_order import Taken, in_key_order
from agents.flush_times import FlushTimes
from agents.progress import ProgressPublisher, Step
from agents.record_writer import RecordWriter
from core.metrics import Metrics
from core.ports import Clock, Store, StoredRow
from core.versions import version_bytes
from tables.changelog import ChangelogWriter
from tables.owned import OwnedTables
from tables.remove import take_past
from tables.table import PackedRow, TablePartition, freeze

log = logging.getLogger(__name__)

UPDATES_WAITING_MAX = 300_000
_ROWS_PER_CALL = 1_000
_PARTS_IN_FLIGHT = 4
_YIELD_EVERY = 100
"""Takes as long as what the dispatcher does at a time: a flush that gets less of a full core finds ever more to do."""
_REMOVED_MIN = 1_000


@dataclass(slots=True)
class _Waiting:
    """A run that was applied, or several that wait for the same: for some groups to be flushed."""

    sequence: int
    message: Any
    table: TablePartition
    updates: int
    as_of_ms: int
    groups: set[str] = field(default_factory=set)

    def go_on_to(self, run: "_Waiting") -> None:
        """Take in the next run of the table."""
        self.sequence, self.message, self.as_of_ms = run.sequence, run.message, run.as_of_ms
        self.updates += run.updates


class Publisher:
    """Flushes the dirty rows of all owned tables."""

    def __init__(
        self,
        tables: OwnedTables,
        *,
        changelog: ChangelogWriter,
        record: Store,
        cache: CacheDebt,
        finish: Callable[[Any], None],
        join: Callable[[Any, Any], None],
        announce: Callable[[Sequence[StoredRow]], None],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._tables = tables
        self._clock = clock
        self._changelog = changelog
        self._record = RecordWriter(record, metrics)
        self._cache = cache
        self._finish = finish
        self._join = join
        self._announce = announce
        self._metrics = metrics
        self._waiting: deque[_Waiting] = deque()
        self._updates = 0
        self._sequence = 0
        self._times = FlushTimes()
        self._wake = asyncio.Event()
        self._progress = ProgressPublisher(self._record, cache)
        self._room = asyncio.Event()
        self._room.set()
        self._flushed = asyncio.Condition()
        self._settling = 0
        self._era = 0

    def applied(self, table: TablePartition, message: Any, *, updates: int) -> None:
        """Note a run that was applied to a table."""
        self._sequence += 1
        self._times.applied(asyncio.get_running_loop().time(), as_of_ms=table.as_of_ms, caught_up=not self._waiting)
        dirty = {group.sk for group in table.groups if group.dirty}
        self._waiting.append(_Waiting(self._sequence, message, table, updates, table.as_of_ms, dirty))
        self._updates += updates
        if self._updates >= UPDATES_WAITING_MAX:
            self._room.clear()
        self._wake.set()

    def touch(self) -> None:
        """Note rows that were made dirty without a run: they are written again."""
        self._wake.set()

    async def wait_for_room(self) -> None:
        """Wait while too much is applied and not yet published."""
        await self._room.wait()

    async def settle(self) -> None:
        """Publish everything that was applied, whatever the intervals, and wait for it."""
        self._settling += 1
        self._wake.set()
        try:
            async with self._flushed:
                await self._flushed.wait_for(lambda: not self._waiting)
        finally:
            self._settling -= 1

    def given_away(self) -> None:
        """Forget what waits and write nothing more of it: the partitions are somebody else's."""
        self._era += 1
        self._waiting.clear()
        self._progress.given_away()
        self._updates = 0
        self._room.set()

    async def run(self) -> None:
        """Flush whenever something is due and tell of progress, for ever."""
        await asyncio.gather(self._progress.run(), self._flush_what_is_due())

    async def _flush_what_is_due(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (delay_s := self._delay_s()) > 0:
                await self._sleep_or_wake(delay_s)
            await self._flush()

    def _delay_s(self) -> float:
        """Return how long until the first dirty group is due, or new rows may go out alone."""
        if self._is_hurried():
            return 0
        now, now_ms = asyncio.get_running_loop().time(), self._clock.now_ms()
        dirty = [group for table in self._tables for group in table.groups if group.dirty]
        delay_s = self._times.delay_s(dirty, now, now_ms=now_ms)
        alone_s = self._times.alone_in_s(now, now_ms=now_ms)
        return alone_s if alone_s < delay_s and any(map(self._times.goes_alone, dirty)) else delay_s

    def _is_hurried(self) -> bool:
        """Whether all is flushed at once: before there is no room any more, or nothing would be applied meanwhile."""
        return bool(self._settling) or self._updates >= UPDATES_WAITING_MAX / 2

    async def _sleep_or_wake(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        self._wake.clear()

    async def _flush(self) -> None:
        started, era = asyncio.get_running_loop().time(), self._era
        sequence, taken = self._sequence, self._take(started)
        rows = await self._write_groups(taken, era)
        if era != self._era:
            # What is owned now has its own runs, and its groups may have changed while we wrote.
            self._wake.set()
            return
        if rows:
            took_s = asyncio.get_running_loop().time() - started
            self._metrics.flushed(rows, took_s)
            self._times.flushed((one.group for one in taken if one.is_due), began=started, took_s=took_s)
        await self._finish_runs(sequence, {(one.table, one.group.sk) for one in taken if one.is_all})
        for one in taken:
            for _ in one.group.cool():
                await asyncio.sleep(0)
        await self._remove_past(rows, era)
        if any(group.dirty for table in self._tables for group in table.groups):
            self._wake.set()

    async def _remove_past(self, rows: int, era: int) -> None:
        """Remove rows that are past, more of them than were just written, so that they cannot pile up.

        Their tombstones are acknowledged before anything else is flushed: behind a newer row of its key, one would let
        compaction remove that row.
        """
        if era != self._era:
            return
        gone = await take_past(self._tables, limit=rows + _REMOVED_MIN, now_ms=self._clock.now_ms())
        if gone and era == self._era:
            await self._changelog.write(gone)
            stones = [stone for of_table in gone.values() for stone in of_table]
            # Copies of what is gone are of no use to anybody.
            self._announce([StoredRow(stone.key, stone.ver, version_bytes(stone.ver)) for stone in stones])
            self._metrics.removed(len(stones))
            # There may be more of them, although nothing else is due.
            self._wake.set()

    async def _write_groups(self, taken: Sequence[Taken], era: int) -> int:
        """Pack and write rows, some at a time: while some are being written, the next are packed.

        Each row is in one part alone, so parts may overtake each other; within a part the order of stores is kept.
        """
        writing: deque[asyncio.Task[None]] = deque()
        total = 0
        async for rows in self._freeze(taken):
            if era != self._era:
                break
            total += sum(map(len, rows.values()))
            writing.append(asyncio.create_task(self._write(rows, era)))
            if len(writing) >= _PARTS_IN_FLIGHT:
                await writing.popleft()
        await asyncio.gather(*writing)
        return total

    def _take(self, now: float) -> list[Taken]:
        hurry, now_ms = self._is_hurried(), self._clock.now_ms()
        may_go_alone = self._times.alone_in_s(now, now_ms=now_ms) <= 0
        taken = []
        for table in self._tables:
            for group in table.groups:
                if not group.dirty:
                    continue
                if hurry or self._times.comes_along(group, now, now_ms=now_ms):
                    taken.append(Taken(table, group, group.take_dirty(), is_due=True, is_all=True))
                elif may_go_alone and self._times.goes_alone(group):
                    taken.append(Taken(table, group, group.take_new(), is_due=False, is_all=not group.dirty))
        return taken

    async def _freeze(self, taken: Sequence[Taken]) -> AsyncIterator[dict[TopicPartition, list[PackedRow]]]:
        rows: dict[TopicPartition, list[PackedRow]] = {}
        places = {one.table: one.table.changelog for one in taken}
        for count, (one, key, row) in enumerate(await in_key_order(taken), 1):
            rows.setdefault(places[one.table], []).append(freeze(one.group, key, row))
            if count % _ROWS_PER_CALL == 0:
                yield rows
                rows = {}
            elif count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        if rows:
            yield rows

    async def _write(self, rows: dict[TopicPartition, list[PackedRow]], era: int) -> None:
        if era != self._era:
            return
        await self._changelog.write(rows)
        stored = [row.stored for changed in rows.values() for row in changed]
        await self._record.write(stored)
        if era != self._era:
            # The next owner applies the same again, and owes the cache what we would write over its newer rows.
            return
        await self._cache.write(stored)
        if era == self._era:
            self._announce(stored)

    async def _finish_runs(self, sequence: int, flushed: Collection[tuple[TablePartition, str]]) -> None:
        """Finish, in order, the runs up to a sequence of which every group was flushed since, with all its rows."""
        steps: dict[TablePartition, Step] = {}
        blocking: dict[TablePartition, _Waiting] = {}
        left: deque[_Waiting] = deque()
        while self._waiting and self._waiting[0].sequence <= sequence:
            run = self._waiting.popleft()
            run.groups = {sk for sk in run.groups if (run.table, sk) not in flushed}
            before = blocking.get(run.table)
            if before is not None and before.groups == run.groups:
                # A group that is flushed once an hour would leave a hundred thousand of them.
                self._join(before.message, run.message)
                before.go_on_to(run)
                continue
            if run.groups or before is not None:
                blocking[run.table] = run
                left.append(run)
                continue
            self._finish(run.message)
            self._updates -= run.updates
            steps[run.table] = Step(run.message.offset, run.as_of_ms)
        self._waiting.extendleft(reversed(left))
        if self._updates < UPDATES_WAITING_MAX:
            self._room.set()
        self._progress.note(steps)
        async with self._flushed:
            self._flushed.notify_all()
