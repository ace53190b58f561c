"""Decoded rows: what packed bytes were decoded to, so that bytes which come again are not decoded again.

Most reads of a store bring the bytes that were there before. The same bytes give the very same row, and whatever was
made of it (``serving.answers.ready``) is still good.
"""

from core.ports import RowKey
from core.rows import Row

BYTES_MAX = 64 << 20
_ENTRY_BYTES = 600


class DecodedRows:
    """The rows that were decoded last, bounded in bytes."""

    def __init__(self, *, bytes_max: int = BYTES_MAX) -> None:
        self._rows: dict[RowKey, tuple[bytes, Row]] = {}
        self._bytes_max = bytes_max
        self._bytes = 0

    def get(self, key: RowKey, value: bytes) -> Row | None:
        """Return what these bytes were decoded to, or None if that is not known."""
        known = self._rows.get(key)
        return known[1] if known is not None and known[0] == value else None

    def put(self, key: RowKey, value: bytes, row: Row) -> None:
        """Remember a row in place of an older one of its key; those that came first go."""
        before = self._rows.pop(key, None)
        if before is not None:
            self._bytes -= len(before[0]) + _ENTRY_BYTES
        self._rows[key] = (value, row)
        self._bytes += len(value) + _ENTRY_BYTES
        while self._bytes > self._bytes_max:
            oldest = next(iter(self._rows))
            self._bytes -= len(self._rows.pop(oldest)[0]) + _ENTRY_BYTES
