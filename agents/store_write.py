"""One attempt to write rows to a store, timed and counted: what the record and the cache are each asked."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from core.errors import PartialWriteError, StoreError
from core.metrics import Metrics
from core.ports import Store, StoredRow


class Attempt(NamedTuple):
    """How a write ended.

    Attributes:
        left: The rows that the store did not surely take.
        error: Why, or None if it took all.
        took_s: Seconds.
    """

    left: list[StoredRow]
    error: StoreError | None
    took_s: float


async def try_write(store: Store, rows: Sequence[StoredRow], *, deadline_ms: int, metrics: Metrics) -> Attempt:
    """Write rows once; a failure is told in the answer, whoever asks has a use for what was taken all the same."""
    started = asyncio.get_running_loop().time()
    left: list[StoredRow] = []
    failed: StoreError | None = None
    try:
        await store.write(rows, deadline_ms=deadline_ms)
    except PartialWriteError as error:
        left, failed = [row for row in rows if row.key in error.failed], error
    except StoreError as error:
        left, failed = list(rows), error
    took_s = asyncio.get_running_loop().time() - started
    metrics.store_call(store.name, "write", took_s, failed=failed is not None)
    return Attempt(left, failed, took_s)
