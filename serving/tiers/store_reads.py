"""How the stores are asked: within deadlines, so many calls at a time, counted, and not while they give no answer."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from core.errors import StoreBusyError, StoreError
from core.metrics import Metrics
from core.ports import Cache, RowKey, Store
from serving.tiers.breaker import Breaker
from serving.tiers.hedges import Hedges

log = logging.getLogger(__name__)

CACHE_DEADLINE_MS = 50
RECORD_DEADLINE_MS = 1_000
RECORD_READS_MAX = 64
"""So many reads of the record are waited for at the same time; with the cache away, the others wait for their turn.

Calls that nobody waits for any more, and second ones, are beside these (decision 0056)."""


class StoreReads:
    """Asks the cache and the record."""

    def __init__(
        self,
        cache: Cache | None,
        record: Store,
        metrics: Metrics,
        *,
        monotonic: Callable[[], float],
        hedges: Hedges | None = None,
    ) -> None:
        self._cache = cache
        self._record = record
        self._metrics = metrics
        self._cache_breaker = new_breaker(cache.name if cache is not None else "", metrics, monotonic)
        self._record_breaker = new_breaker(record.name, metrics, monotonic)
        self._hedges = hedges or Hedges(share=0)
        self._slots = asyncio.Semaphore(RECORD_READS_MAX)

    async def ask_cache(self, keys: Sequence[RowKey]) -> dict[RowKey, bytes] | None:
        """Return what the cache has, or None if it is not asked or gives no answer."""
        if self._cache is None:
            return {}
        began_at = self._cache_breaker.begin()
        if began_at is None:
            return None
        try:
            values = await self._timed(self._cache, keys, CACHE_DEADLINE_MS)
        except StoreError as error:
            log.warning("cache read failed: %s", error)
            self._cache_breaker.failed(began_at)
            return None
        self._cache_breaker.succeeded()
        return values

    async def ask_record(self, keys: Sequence[RowKey]) -> dict[RowKey, bytes]:
        """Return what the record has.

        Raises:
            StoreBusyError: Too many others wait for it.
            StoreError: It gives no answer, or has given none several times.
        """
        began_at = self._record_breaker.begin()
        if began_at is None:
            # Whoever waited for it would wait for its whole deadline, and hold up what can be answered.
            raise StoreError(f"{self._record.name}: not asked, it has failed several times in a row")
        try:
            async with asyncio.timeout(RECORD_DEADLINE_MS / 1000):
                await self._slots.acquire()
        except TimeoutError:
            raise StoreBusyError(f"{self._record.name}: not asked within {RECORD_DEADLINE_MS} ms") from None
        try:
            values = await self._hedges.read(lambda: self._timed(self._record, keys, RECORD_DEADLINE_MS))
        except StoreError:
            self._record_breaker.failed(began_at)
            raise
        finally:
            self._slots.release()
        self._record_breaker.succeeded()
        self._metrics.tier(self._record.name, hits=len(values), misses=len(keys) - len(values))
        return values

    async def _timed(self, store: Store, keys: Sequence[RowKey], deadline_ms: int) -> dict[RowKey, bytes]:
        started = time.monotonic()
        try:
            values = await store.read(keys, deadline_ms=deadline_ms)
        except StoreError:
            self._metrics.store_call(store.name, "read", time.monotonic() - started, failed=True)
            self._metrics.tier(store.name, hits=0, misses=0, failed=len(keys))
            raise
        self._metrics.store_call(store.name, "read", time.monotonic() - started, failed=False)
        return values


def new_breaker(name: str, metrics: Metrics, monotonic: Callable[[], float]) -> Breaker:
    """Return a breaker that tells the metrics under a name whether it is open."""
    return Breaker(monotonic=monotonic, told=lambda is_open: metrics.breaker(name, is_open=is_open))
