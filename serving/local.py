"""Local copies: rows that this process keeps, newest version wins, bounded in bytes and age.

Copies are kept only of keys whose changes are announced to this process. An announcement leaves the new version's
number even if there was no copy, so that a read that began before it cannot put an older row in afterwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from core.ports import RowKey, StoredRow
from core.rows import Row

_ENTRY_BYTES = 200


@dataclass(frozen=True, slots=True)
class _Copy:
    ver: int
    row: Row | None
    read_at_ms: int
    size: int


class LocalCopies:
    """A bounded cache of decoded rows."""

    def __init__(self, *, bytes_max: int, is_announced: Callable[[RowKey], bool]) -> None:
        self._is_announced = is_announced
        self._copies: LRUCache[RowKey, _Copy] = LRUCache(maxsize=bytes_max, getsizeof=lambda copy: copy.size)

    def get(self, key: RowKey, *, oldest_ms: int) -> Row | None:
        """Return a copy that was read from a store at or after an instant, or None."""
        copy = self._copies.get(key)
        if copy is None or copy.row is None or copy.read_at_ms < oldest_ms:
            return None
        return copy.row

    def put(self, key: RowKey, row: Row, *, size: int, read_at_ms: int) -> None:
        """Keep a row, unless a newer version of it was announced or its changes are not announced here."""
        known = self._copies.get(key)
        if self._is_announced(key) and (known is None or row.ver >= known.ver):
            self._keep(key, _Copy(row.ver, row, read_at_ms, size + _ENTRY_BYTES))

    def announce(self, rows: Sequence[StoredRow]) -> None:
        """Drop copies of rows that were written in a newer version."""
        for row in rows:
            known = self._copies.get(row.key)
            if known is None or row.ver > known.ver:
                self._keep(row.key, _Copy(row.ver, None, 0, _ENTRY_BYTES))

    def clear(self) -> None:
        """Drop everything: changes are not announced here any more."""
        self._copies.clear()

    def _keep(self, key: RowKey, copy: _Copy) -> None:
        if copy.size <= self._copies.maxsize:
            self._copies[key] = copy
