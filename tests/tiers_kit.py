"""Rows whose one value is their version, stores that tell what they are asked, and reads through tiers."""

import asyncio
from collections.abc import Sequence

from typing_extensions import override

from core.definitions import ServingPolicy
from core.errors import StoreTimeoutError
from core.ports import RowKey, StoredRow
from core.rows import Row, pack_row, unpack_row
from core.windows import NEVER_MS, seconds
from serving.tiers.local import LocalCopies
from serving.tiers.wanted import Terms, Wanted
from stores.memory import MemoryStore
from tests.clock import ManualClock

USER = RowKey("user#i1", "spend@v1")
OTHER = RowKey("user#i2", "spend@v1")
NOBODY = RowKey("user#i2", "nothing@v1")
FAILURES_MAX = 5
SOFT_TTL_MS = NEGATIVE_TTL_MS = 30_000
REMOTE = ServingPolicy(soft_ttl=seconds(30), jitter=0)
DIRECT = ServingPolicy(tier="direct")
MEANING = bytes(8)


def stored(ver: int, key: RowKey = USER, *, padding: int = 0, fingerprint: bytes = MEANING) -> StoredRow:
    """A row whose one value is its version."""
    value = pack_row(
        ver=ver, fingerprint=fingerprint, as_of_ms=1, valid_from_ms=1, valid_until_ms=2, expires_at_ms=3, event_time_ms=1,
        values=[ver, "x" * padding], tail=[],
    )  # fmt: skip
    return StoredRow(key, ver, value)


def row(ver: int, key: RowKey = USER) -> Row:
    return unpack_row(stored(ver, key).value)


def version_of_copy(local: LocalCopies, key: RowKey) -> int | None:
    copy = local.get(key, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0)
    return copy.row.ver if copy is not None and copy.row is not None else None


class CountingStore(MemoryStore):
    """Counts what it is asked, and lets something happen before it answers."""

    def __init__(self, name: str, clock: ManualClock) -> None:
        super().__init__(clock)
        self.name = name
        self.asked: list[list[RowKey]] = []
        self.before_answer = lambda: None

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        self.asked.append(list(keys))
        found = await super().read(keys, deadline_ms=deadline_ms)
        self.before_answer()
        return found


class SlowStore:
    """Finds what there is at once, and tells it when it may."""

    def __init__(self, held: CountingStore) -> None:
        self.name = held.name
        self._held = held
        self.found: dict[RowKey, bytes] | None = None
        self.may = asyncio.Event()

    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        found = self.found = await self._held.read(keys, deadline_ms=deadline_ms)
        await self.may.wait()
        return found


def fail() -> None:
    raise StoreTimeoutError("cache: no answer within 150 ms")


async def values(reader, *keys: RowKey, policy: ServingPolicy = REMOTE, cached: bool = True) -> list[int | None]:
    rows = await reader.read([Wanted(key, Terms(policy, cached, MEANING)) for key in keys])
    return [rows[key].values[0] if key in rows else None for key in keys]


async def write(ver: int, *stores: MemoryStore, key: RowKey = USER) -> None:
    for store in stores:
        await store.write([stored(ver, key)], deadline_ms=100)
