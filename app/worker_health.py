"""What a worker knows about itself: whether it can read, and how far it is with what comes in."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from agents.cache_debt import CacheDebt
from agents.transport import Consumer
from app.settings import Role
from core.errors import StoreError
from core.metrics import Metrics
from core.ports import RowKey, Store
from serving.web.health import Health
from tables.owned import OwnedTables
from tables.restore_progress import RestoreProgress

_PROBE = RowKey("#probe", "#probe")
_PROBE_DEADLINE_MS = 500
_LAG_POLL_S = 0.2


class WorkerHealth(Health):
    """The health of one worker."""

    def __init__(
        self,
        role: Role,
        *,
        record: Store,
        tables: OwnedTables,
        progress: RestoreProgress,
        debt: CacheDebt,
        metrics: Metrics,
        consumer: Callable[[], Consumer],
    ) -> None:
        self._role = role
        self._record = record
        self._tables = tables
        self._progress = progress
        self._debt = debt
        self._metrics = metrics
        self._consumer = consumer
        self._lag: dict[str, int] = {}

    async def can_read(self) -> bool:
        """Whether the record answers; the cache may be down."""
        try:
            await self._record.read([_PROBE], deadline_ms=_PROBE_DEADLINE_MS)
        except StoreError:
            return False
        return True

    def ingest(self) -> dict[str, Any]:
        """Return the figures of ingestion and set their gauges."""
        consumer = self._consumer() if self._role.ingests else None
        ready = consumer.ready_partitions if consumer is not None else frozenset()
        age_s = time.monotonic() - consumer.committed_at if consumer is not None else 0.0
        rows = sum(len(group) for table in self._tables for group in table.groups)
        self._metrics.state(
            commit_age_s=age_s, owed=self._debt.owed, rows=rows, ids=sum(table.ids for table in self._tables)
        )
        self._metrics.lag(self._lag)
        restore = self._progress.state
        self._metrics.restore(records=restore.records, records_per_s=restore.records_per_s, left_s=restore.left_s)
        return {
            "ready": bool(ready) or not self._role.ingests,
            "role": self._role.value,
            "partitions": len(ready),
            "lag": sum(self._lag.values()),
            "commit_age_s": round(age_s, 3),
            "rows": rows,
            "cache_owed": self._debt.owed,
            "restore": asdict(restore) if restore.what else None,
        }

    async def watch_lag(self) -> None:
        """Measure the lag now and then, for ever: a request must not wait for it."""
        while self._role.ingests:
            lag: dict[str, int] = {}
            for tp, records in self._consumer().lag().items():
                lag[tp.topic] = lag.get(tp.topic, 0) + records
            self._lag = lag
            await asyncio.sleep(_LAG_POLL_S)
