"""A store in a dictionary: the fake of the tests, and the plainest statement of what every store does."""

from collections.abc import Sequence

from typing_extensions import override

from core.errors import StoreTimeoutError
from core.leases import NO_ROW
from core.ports import Cache, Clock, Filling, RowKey, StoredRow
from core.versions import VERSION_BYTES, version_of

_LOOKED_THROUGH_MIN = 10_000
_NO_VERSION = -1


class MemoryStore(Cache):
    """Rows in this process; they die with it.

    It is bounded by its caller: it keeps what it is given until that expires. Expired rows are dropped when they are
    read, and all of them whenever the rows have doubled since.
    """

    def __init__(self, clock: Clock) -> None:
        self.name = "memory"
        self._clock = clock
        self._rows: dict[RowKey, StoredRow] = {}
        self._full_at = _LOOKED_THROUGH_MIN

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        return self._held(keys, deadline_ms)

    def _held(self, keys: Sequence[RowKey], deadline_ms: int) -> dict[RowKey, bytes]:
        _require_time(deadline_ms)
        now_ms = self._clock.now_ms()
        found: dict[RowKey, bytes] = {}
        for key in keys:
            row = self._rows.get(key)
            if row is None:
                continue
            if _is_expired(row, now_ms):
                del self._rows[key]
            else:
                found[key] = row.value
        return found

    @override
    async def write(self, rows: Sequence[StoredRow], *, deadline_ms: int) -> int:
        _require_time(deadline_ms)
        now_ms = self._clock.now_ms()
        taken = 0
        for row in rows:
            held = self._rows.get(row.key)
            if held is None or row.ver > held.ver or _is_expired(held, now_ms):
                self._rows[row.key] = row
                taken += 1
        if len(self._rows) >= self._full_at:
            self._rows = {key: row for key, row in self._rows.items() if not _is_expired(row, now_ms)}
            self._full_at = max(2 * len(self._rows), _LOOKED_THROUGH_MIN)
        return taken

    @override
    async def lease(
        self, keys: Sequence[RowKey], *, token: bytes, lease_ms: int, deadline_ms: int
    ) -> dict[RowKey, bytes]:
        found = self._held(keys, deadline_ms)
        expires_at_ms = self._clock.now_ms() + lease_ms
        for key in keys:
            if key not in found:
                self._rows[key] = StoredRow(key, _NO_VERSION, token, expires_at_ms)
        return found

    @override
    async def fill(self, fillings: Sequence[Filling], *, token: bytes, deadline_ms: int) -> int:
        held = self._held([one.key for one in fillings], deadline_ms)
        taken = [one for one in fillings if held.get(one.key) == token]
        for one in taken:
            ver = version_of(one.value) if len(one.value) >= VERSION_BYTES else _NO_VERSION
            self._rows[one.key] = StoredRow(one.key, ver, one.value, one.expires_at_ms)
        return len(taken)

    @override
    async def renew(self, fillings: Sequence[Filling], *, deadline_ms: int) -> int:
        held = self._held([one.key for one in fillings], deadline_ms)
        taken = [one for one in fillings if held.get(one.key, NO_ROW)[:VERSION_BYTES] == one.value[:VERSION_BYTES]]
        for one in taken:
            self._rows[one.key] = self._rows[one.key]._replace(expires_at_ms=one.expires_at_ms)
        return len(taken)

    @override
    async def close(self) -> None:
        self._rows.clear()


def _is_expired(row: StoredRow, now_ms: int) -> bool:
    return row.expires_at_ms is not None and row.expires_at_ms <= now_ms


def _require_time(deadline_ms: int) -> None:
    # Nothing here waits, so the only deadline that can be missed is one that has passed already.
    if deadline_ms <= 0:
        raise StoreTimeoutError(f"memory: no answer within {deadline_ms} ms")
