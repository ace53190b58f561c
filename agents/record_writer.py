"""The record as the pipeline sees it: a write that fails is tried again until it does not, and the partition waits."""

import asyncio
import logging
import time
from collections.abc import Sequence

from core.errors import PartialWriteError, StoreError
from core.metrics import Metrics
from core.ports import Store, StoredRow

log = logging.getLogger(__name__)

_DEADLINE_MS = 5_000
_RETRY_FIRST_S, _RETRY_LAST_S = 0.05, 5.0


class RecordWriter:
    """Writes rows to the record, however long it takes: nothing is finished before."""

    def __init__(self, record: Store, metrics: Metrics) -> None:
        self._record = record
        self._metrics = metrics

    async def write(self, rows: Sequence[StoredRow]) -> None:
        """Return when the record has the rows, or newer ones.

        Raises:
            RowTooLargeError: It can never have one of them; the worker must end, for the event is already applied.
        """
        pause_s = _RETRY_FIRST_S
        while True:
            started = time.monotonic()
            try:
                await self._record.write(rows, deadline_ms=_DEADLINE_MS)
            except StoreError as error:
                self._metrics.store_call(self._record.name, "write", time.monotonic() - started, failed=True)
                log.warning(
                    "record write failed, trying again: %s", error, extra={"rows": len(rows), "pause_s": pause_s}
                )
                if isinstance(error, PartialWriteError):
                    rows, pause_s = [row for row in rows if row.key in error.failed], _RETRY_FIRST_S
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _RETRY_LAST_S)
            else:
                self._metrics.store_call(self._record.name, "write", time.monotonic() - started, failed=False)
                return
