"""The record as the pipeline sees it: a write that fails is tried again until it does not, and the partition waits.

A record that is slow gets less at a time: what it cannot do within a deadline is work in vain, and asked for again it
is in the way of the next attempt. So the rows of a call are halved at each failure, and doubled while calls are fast.
"""

import asyncio
import logging
from collections.abc import Sequence

from agents.store_write import try_write
from core.metrics import Metrics
from core.ports import Store, StoredRow

log = logging.getLogger(__name__)

_DEADLINE_MS = 5_000
_FAST_S = 1.0
_ROWS_MIN, _ROWS_MAX = 25, 1_000
_RETRY_FIRST_S, _RETRY_LAST_S = 0.05, 5.0


class RecordWriter:
    """Writes rows to the record, however long it takes: nothing is finished before."""

    def __init__(self, record: Store, metrics: Metrics) -> None:
        self._record = record
        self._metrics = metrics
        self._rows_max = _ROWS_MAX

    async def write(self, rows: Sequence[StoredRow]) -> None:
        """Return when the record has the rows, or newer ones.

        Raises:
            RowTooLargeError: It can never have one of them; the worker must end, for the event is already applied.
        """
        left, pause_s = list(rows), _RETRY_FIRST_S
        while left:
            asked, left = left[: self._rows_max], left[self._rows_max :]
            failed = await self._try(asked)
            if failed:
                left = failed + left
                if len(failed) < len(asked):
                    pause_s = _RETRY_FIRST_S
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _RETRY_LAST_S)
            else:
                pause_s = _RETRY_FIRST_S

    async def _try(self, rows: list[StoredRow]) -> list[StoredRow]:
        """Write rows once; return those that the record did not surely take."""
        left, error, took_s = await try_write(self._record, rows, deadline_ms=_DEADLINE_MS, metrics=self._metrics)
        if error is not None:
            # Of what was asked here: several calls that fail side by side halve it once.
            self._rows_max = min(self._rows_max, max(len(rows) // 2, _ROWS_MIN))
            log.warning(
                "record write failed, trying again: %s", error, extra={"rows": len(left), "at_once": self._rows_max}
            )
        elif len(rows) == self._rows_max and took_s < _FAST_S:
            self._rows_max = min(self._rows_max * 2, _ROWS_MAX)
        return left
