"""The cache as the pipeline sees it: written after the record, never waited for longer than a moment.

While the cache is down, the record's acknowledgement suffices: the rows that the cache should have are owed, newest
version per key, bounded, and settled as soon as it answers again (PROTOCOL, section 2). A full debt makes the writer
wait.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from core.errors import StoreError
from core.metrics import Metrics
from core.ports import RowKey, Store, StoredRow

log = logging.getLogger(__name__)

OWED_ROWS_MAX = 200_000
_DEADLINE_MS = 1_000
_SETTLE_BATCH = 1_000
_RETRY_S = 0.5


class CacheDebt:
    """Writes rows to the cache, or owes them. Without a cache it does nothing."""

    def __init__(
        self,
        cache: Store | None,
        metrics: Metrics,
        *,
        uncached: frozenset[str] = frozenset(),
        announce: Callable[[Sequence[StoredRow]], None] = lambda _rows: None,
    ) -> None:
        self._cache = cache
        self._metrics = metrics
        self._uncached = uncached
        self._announce = announce
        self._owed: dict[RowKey, StoredRow] = {}
        self._indebted = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def owed(self) -> int:
        """How many rows the cache has not taken yet."""
        return len(self._owed)

    async def write(self, rows: Sequence[StoredRow]) -> None:
        """Write rows through, or owe them; waits only while the debt is full."""
        wanted = [row for row in rows if row.key.sk not in self._uncached]
        if self._cache is None or not wanted:
            return
        if self._owed or not await self._try(wanted):
            await self._owe(wanted)

    async def settle(self) -> None:
        """Pay what is owed as soon as the cache takes it, for ever."""
        while True:
            await self._indebted.wait()
            batch = [self._owed[key] for key in list(self._owed)[:_SETTLE_BATCH]]
            if await self._try(batch):
                self._paid(batch)
            else:
                await asyncio.sleep(_RETRY_S)

    def _paid(self, batch: Sequence[StoredRow]) -> None:
        # Whoever read the cache meanwhile may have kept its older row.
        self._announce(batch)
        for row in batch:
            if self._owed.get(row.key) is row:
                del self._owed[row.key]
        if len(self._owed) < OWED_ROWS_MAX:
            self._room.set()
        if not self._owed:
            self._indebted.clear()
            log.info("cache has everything again")

    async def _owe(self, rows: Sequence[StoredRow]) -> None:
        await self._room.wait()
        if not self._owed:
            log.warning("cache owed", extra={"rows": len(rows)})
        for row in rows:
            known = self._owed.get(row.key)
            if known is None or known.ver <= row.ver:
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
            await self._cache.write(rows, deadline_ms=_DEADLINE_MS)
        except StoreError as error:
            self._metrics.store_call(self._cache.name, "write", time.monotonic() - started, failed=True)
            log.warning("cache write failed: %s", error)
            return False
        self._metrics.store_call(self._cache.name, "write", time.monotonic() - started, failed=False)
        return True
