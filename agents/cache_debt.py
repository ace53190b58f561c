"""The cache as the pipeline sees it: written after the record, never waited for longer than a moment.

While the cache is down, or a part of it, the record's acknowledgement suffices: the rows that the cache should have
are owed, newest version per key, bounded, and settled as soon as it takes them (PROTOCOL, section 2). A full debt makes
the writer wait. What is told of whole partitions is paid last: it must not be ahead of the rows that it speaks of.

A debt outlives its worker: the record keeps, per partition, up to which version the cache was given everything. Who
takes a partition over owes the rows above that mark, whoever had them to write (decision 0036). So whoever gives it
away owes nothing any more, and pays nothing: a cache that was emptied meanwhile would take its older rows.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from agents.store_write import try_write
from core.errors import PartialWriteError, StoreError
from core.metrics import Metrics
from core.ports import Clock, RowKey, Store, StoredRow
from core.progress import cached_key, progress_key
from core.versions import version_of
from tables.table import TablePartition
from tables.uncached import pages_between

log = logging.getLogger(__name__)

OWED_ROWS_MAX = 200_000
_DEADLINE_MS = 1_000
_RECORD_DEADLINE_MS = 1_000
_SETTLE_BATCH = 1_000
_SINGLY_MAX = 128
"""So few rows are offered one by one when they fail together: one that is refused for ever holds up no other."""
_RETRY_S = 0.5


@dataclass(slots=True)
class _Inherited:
    """A partition that was taken over, and what of it is not looked through yet.

    Attributes:
        until: Rows above this version are published again anyway.
        pages: The rows above the mark, once the mark is read.
    """

    table: TablePartition
    until: int
    pages: Iterator[list[StoredRow]] | None = None


async def _at_once() -> None: ...


class CacheDebt:
    """Writes rows to the cache, or owes them. Without a cache it does nothing."""

    def __init__(
        self,
        cache: Store | None,
        record: Store,
        metrics: Metrics,
        clock: Clock,
        *,
        lifetimes: Mapping[str, int],
        announce: Callable[[Sequence[StoredRow]], None] = lambda _rows: None,
        wait_owner: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        """Begin without debt.

        Args:
            cache: Where rows go, if there is one.
            record: Where the marks are read.
            metrics: Told of each call.
            clock: Tells when a copy is too old.
            lifetimes: How long the cache may serve a row, in milliseconds, by row name (``<group>@v<n>``). Rows of
                other groups are not cached; what is known of a whole partition is, without an end.
            announce: Told of rows that were paid late: who read the cache meanwhile may have kept older ones.
            wait_owner: Waits until it is sure that nobody else owns our partitions; asked before anything is written.
        """
        self._cache = cache
        self._record = record
        self._metrics = metrics
        self._clock = clock
        self._lifetimes = lifetimes
        self._announce = announce
        self._wait_owner = wait_owner
        self._era = 0
        self._owed: dict[RowKey, StoredRow] = {}
        self._steps_owed: dict[RowKey, StoredRow] = {}
        self._is_away, self._was_refused, self._in_vain = False, False, 0
        self._inherited: dict[tuple[str, int], _Inherited] = {}
        self._indebted = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def owed(self) -> int:
        """How many rows the cache has not taken yet; a partition that is not looked through counts for one."""
        return len(self._owed) + len(self._steps_owed) + len(self._inherited)

    @property
    def is_clear(self) -> bool:
        """Whether the cache has every row that was written here, and every older one of the same partitions."""
        return self._cache is not None and not (self._owed or self._steps_owed or self._inherited)

    def inherit(self, table: TablePartition, *, until: int) -> None:
        """Owe what a restored table's former owner may not have written.

        Args:
            table: The table.
            until: Version of the last record that is not applied again.
        """
        if self._cache is not None and until > 0:
            self._inherited[table.entity, table.partition] = _Inherited(table, until)
            self._indebted.set()

    def given_away(self) -> None:
        """Leave what is not paid to the next owner; the mark is where it was."""
        self._era += 1
        self._inherited.clear()
        self._owed.clear()
        self._steps_owed.clear()
        self._room.set()

    async def write(self, rows: Sequence[StoredRow]) -> None:
        """Write rows through, or owe them; waits only while the debt is full."""
        wanted = [row for row in rows if row.key.sk in self._lifetimes or row.key.sk.startswith("#")]
        if self._cache is None or not wanted:
            return
        era = self._era
        await self._wait_owner()
        if era != self._era:
            return
        left = wanted if not self.is_clear else await self._try(wanted)
        if left:
            if self.is_clear:
                log.warning("cache owed", extra={"rows": len(left)})
            await self._room.wait()
            if era == self._era:
                self._owe(left)

    async def settle(self) -> None:
        """Pay what is owed as soon as the cache takes it, for ever; what was inherited first, it is older.

        The half of the room is for what comes in: beyond it, nothing more is looked for.
        """
        while True:
            await self._indebted.wait()
            await self._wait_owner()
            if self._inherited and len(self._owed) < OWED_ROWS_MAX // 2:
                paid = await self._pay_inherited()
            elif self._owed:
                paid = await self._pay()
            else:
                paid = await self._pay_steps()
            if not paid:
                await asyncio.sleep(_RETRY_S)
            elif self.is_clear:
                self._indebted.clear()
                log.info("cache has everything")

    async def _pay(self) -> bool:
        """Offer the rows that wait longest; those that are refused wait behind all others.

        Returns:
            Whether it makes sense to offer the next ones at once.
        """
        singly = self._was_refused and len(self._owed) <= _SINGLY_MAX
        batch = list(islice(self._owed.values(), 1 if singly else _SETTLE_BATCH))
        left = await self._try(batch)
        refused = {row.key for row in left}
        for row in batch:
            if self._owed.get(row.key) is row:
                del self._owed[row.key]
                if row.key in refused:
                    self._owed[row.key] = row
        # Whoever read the cache meanwhile may have kept its older row.
        self._announce([row for row in batch if row.key not in refused])
        if len(self._owed) < OWED_ROWS_MAX:
            self._room.set()
        self._was_refused = bool(self._owed) and (bool(left) or singly)
        self._in_vain = self._in_vain + len(left) if left else 0
        if left and (self._is_away or self._in_vain >= len(self._owed)):
            self._in_vain = 0
            return False
        return True

    async def _pay_steps(self) -> bool:
        steps = list(self._steps_owed.values())
        left = {row.key for row in await self._try(steps)}
        for row in steps:
            if row.key not in left and self._steps_owed.get(row.key) is row:
                del self._steps_owed[row.key]
        return not left

    async def _pay_inherited(self) -> bool:
        place, inherited = next(iter(self._inherited.items()))
        try:
            if inherited.pages is None:
                inherited.pages = await self._above_mark(inherited)
            page = next(inherited.pages)
        except StoreError as error:
            log.warning("cached mark of %s[%d] cannot be read, trying again: %s", *place, error)
            return False
        except StopIteration:
            return await self._inherit_step(place, inherited)
        if not page:
            # Without a row that is owed; others want to work too.
            await asyncio.sleep(0)
            return True
        if self._inherited.get(place) is not inherited:
            # Given away while the mark was read.
            return True
        left = await self._try(page)
        if self._inherited.get(place) is inherited:
            self._owe(left)
        self._announce(page)
        return not left

    async def _inherit_step(self, place: tuple[str, int], inherited: _Inherited) -> bool:
        """Owe the partition's progress too, as the record has it, and be done with the partition."""
        key = progress_key(*place)
        try:
            found = await self._record.read([key], deadline_ms=_RECORD_DEADLINE_MS)
        except StoreError as error:
            log.warning("progress of %s[%d] cannot be read, trying again: %s", *place, error)
            return False
        if self._inherited.get(place) is inherited:
            del self._inherited[place]
            self._owe([StoredRow(key, version_of(value), value) for value in found.values()])
        return True

    async def _above_mark(self, inherited: _Inherited) -> Iterator[list[StoredRow]]:
        key = cached_key(inherited.table.entity, inherited.table.partition)
        found = await self._record.read([key], deadline_ms=_RECORD_DEADLINE_MS)
        mark = version_of(found[key]) if key in found else 0
        return pages_between(inherited.table, after=mark, until=inherited.until, groups=self._lifetimes)

    def _owe(self, rows: Sequence[StoredRow]) -> None:
        for row in rows:
            owed = self._steps_owed if row.key.sk.startswith("#") else self._owed
            known = owed.get(row.key)
            if known is None or known.ver <= row.ver:
                owed[row.key] = row
        if len(self._owed) >= OWED_ROWS_MAX:
            log.error("cache debt is full, partitions wait", extra={"rows": len(self._owed)})
            self._room.clear()
        if rows:
            self._indebted.set()

    async def _try(self, rows: Sequence[StoredRow]) -> Sequence[StoredRow]:
        """Write rows to the cache; return those that it did not surely take."""
        if self._cache is None or not rows:
            return ()
        bounded = self._bounded(rows)
        left, error, _ = await try_write(self._cache, bounded, deadline_ms=_DEADLINE_MS, metrics=self._metrics)
        self._is_away = error is not None and not isinstance(error, PartialWriteError)
        if error is not None:
            log.warning("cache write failed: %s", error)
        if not left:
            return ()
        refused = {row.key for row in left}
        # As they were owed: how long the cache may keep them begins with the attempt that succeeds.
        return [row for row in rows if row.key in refused]

    def _bounded(self, rows: Sequence[StoredRow]) -> list[StoredRow]:
        """Return rows that the cache forgets when they mean nothing, or when they are too old to be served."""
        now_ms = self._clock.now_ms()
        bounded = []
        for row in rows:
            lifetime_ms = self._lifetimes.get(row.key.sk)
            if lifetime_ms is not None:
                latest_ms = now_ms + lifetime_ms
                if row.expires_at_ms is None or latest_ms < row.expires_at_ms:
                    row = StoredRow(row.key, row.ver, row.value, latest_ms)  # noqa: PLW2901  # all else is the same
            bounded.append(row)
        return bounded
