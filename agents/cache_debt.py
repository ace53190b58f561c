"""The cache as the pipeline sees it: written after the record, never waited for longer than a moment.

While the cache is down, the record's acknowledgement suffices: the rows that the cache should have are owed, newest
version per key, bounded, and settled as soon as it answers again (PROTOCOL, section 2). A full debt makes the writer
wait.

A debt outlives its worker: the record keeps, per partition, up to which version the cache was given everything. Who
takes a partition over owes the rows above that mark, whoever had them to write (decision 0036).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from core.errors import StoreError
from core.metrics import Metrics
from core.ports import Clock, RowKey, Store, StoredRow
from core.progress import cached_key
from core.versions import version_of
from tables.table import TablePartition
from tables.uncached import rows_between

log = logging.getLogger(__name__)

OWED_ROWS_MAX = 200_000
_DEADLINE_MS = 1_000
_MARK_DEADLINE_MS = 1_000
_SETTLE_BATCH = 1_000
_RETRY_S = 0.5


@dataclass(slots=True)
class _Inherited:
    """A partition that was taken over, and what of it is not looked through yet.

    Attributes:
        until: Rows above this version are published again anyway.
        rows: The rows above the mark, once the mark is read.
        batch: Those of them that the cache is being given.
    """

    table: TablePartition
    until: int
    rows: Iterator[StoredRow] | None = None
    batch: list[StoredRow] = field(default_factory=list)


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
        """
        self._cache = cache
        self._record = record
        self._metrics = metrics
        self._clock = clock
        self._lifetimes = lifetimes
        self._announce = announce
        self._owed: dict[RowKey, StoredRow] = {}
        self._inherited: dict[tuple[str, int], _Inherited] = {}
        self._indebted = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def owed(self) -> int:
        """How many rows the cache has not taken yet; a partition that is not looked through counts for one."""
        return len(self._owed) + sum(max(len(inherited.batch), 1) for inherited in self._inherited.values())

    @property
    def is_clear(self) -> bool:
        """Whether the cache has every row that was written here, and every older one of the same partitions."""
        return self._cache is not None and not self._owed and not self._inherited

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
        """Leave what was inherited and not paid to the next owner; the mark is where it was."""
        self._inherited.clear()

    async def write(self, rows: Sequence[StoredRow]) -> None:
        """Write rows through, or owe them; waits only while the debt is full."""
        wanted = [row for row in rows if row.key.sk in self._lifetimes or row.key.sk.startswith("#")]
        if self._cache is None or not wanted:
            return
        if not self.is_clear or not await self._try(wanted):
            await self._owe(wanted)

    async def settle(self) -> None:
        """Pay what is owed as soon as the cache takes it, for ever; what was inherited first, it is older."""
        while True:
            await self._indebted.wait()
            paid = await (self._pay_inherited() if self._inherited else self._pay())
            if not paid:
                await asyncio.sleep(_RETRY_S)
            elif self.is_clear:
                self._indebted.clear()
                log.info("cache has everything")

    async def _pay(self) -> bool:
        batch = [self._owed[key] for key in list(self._owed)[:_SETTLE_BATCH]]
        if not await self._try(batch):
            return False
        # Whoever read the cache meanwhile may have kept its older row.
        self._announce(batch)
        for row in batch:
            if self._owed.get(row.key) is row:
                del self._owed[row.key]
        if len(self._owed) < OWED_ROWS_MAX:
            self._room.set()
        return True

    async def _pay_inherited(self) -> bool:
        place, inherited = next(iter(self._inherited.items()))
        try:
            rows = inherited.rows or await self._above_mark(inherited)
        except StoreError as error:
            log.warning("cached mark of %s[%d] cannot be read, trying again: %s", *place, error)
            return False
        inherited.rows = rows
        inherited.batch = inherited.batch or list(islice(rows, _SETTLE_BATCH))
        if inherited.batch:
            if not await self._try(inherited.batch):
                return False
            self._announce(inherited.batch)
            inherited.batch = []
        elif self._inherited.get(place) is inherited:
            del self._inherited[place]
        return True

    async def _above_mark(self, inherited: _Inherited) -> Iterator[StoredRow]:
        key = cached_key(inherited.table.entity, inherited.table.partition)
        found = await self._record.read([key], deadline_ms=_MARK_DEADLINE_MS)
        mark = version_of(found[key]) if key in found else 0
        return rows_between(inherited.table, after=mark, until=inherited.until, groups=self._lifetimes)

    async def _owe(self, rows: Sequence[StoredRow]) -> None:
        await self._room.wait()
        if not self._owed:
            log.warning("cache owed", extra={"rows": len(rows)})
        for row in rows:
            known = self._owed.get(row.key)
            if known is None or known.ver <= row.ver:
                # To the end: a partition's progress must not be paid before the rows that it speaks of.
                self._owed.pop(row.key, None)
                self._owed[row.key] = row
        if len(self._owed) >= OWED_ROWS_MAX:
            log.error("cache debt is full, partitions wait", extra={"rows": len(self._owed)})
            self._room.clear()
        self._indebted.set()

    async def _try(self, rows: Sequence[StoredRow]) -> bool:
        if self._cache is None:
            return True
        started = time.monotonic()
        try:
            await self._cache.write(self._bounded(rows), deadline_ms=_DEADLINE_MS)
        except StoreError as error:
            self._metrics.store_call(self._cache.name, "write", time.monotonic() - started, failed=True)
            log.warning("cache write failed: %s", error)
            return False
        self._metrics.store_call(self._cache.name, "write", time.monotonic() - started, failed=False)
        return True

    def _bounded(self, rows: Sequence[StoredRow]) -> list[StoredRow]:
        """Return rows that the cache forgets when they mean nothing, or when they are too old to be served."""
        now_ms = self._clock.now_ms()
        bounded = []
        for row in rows:
            lifetime_ms = self._lifetimes.get(row.key.sk)
            if lifetime_ms is not None:
                latest_ms = now_ms + lifetime_ms
                if row.expires_at_ms is None or latest_ms < row.expires_at_ms:
                    row = row._replace(expires_at_ms=latest_ms)  # noqa: PLW2901  # all else is the same
            bounded.append(row)
        return bounded
