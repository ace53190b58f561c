"""A sample of what is read and written, as the lines that ``freshet cache simulate`` takes.

Keys are sampled, not reads: of a key in the sample everything is there, so that the model meets its copies as the
worker does. A key stands there as a hash: the log tells nobody who was asked for.
"""

import csv
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from xxhash import xxh3_64_intdigest

from core.ports import Clock, RowKey, StoredRow

log = logging.getLogger(__name__)

FIELDS = ("time_ms", "op", "group", "key", "bytes")
_BYTES_MAX = 256 << 20
_BUFFER_BYTES = 1 << 16


class ReadsLog:
    """Writes a log, until it is as large as it may be."""

    def __init__(self, path: Path, *, share: float, clock: Clock, bytes_max: int = _BYTES_MAX) -> None:
        """Open it; what it has from before stays.

        Args:
            path: A CSV file.
            share: Of the keys, 0 < share <= 1.
            clock: Tells the time.
            bytes_max: At which size nothing more is written.
        """
        self._below = int(share * (1 << 64))
        self._clock = clock
        self._file = path.open("a", newline="", buffering=_BUFFER_BYTES)
        self._left = bytes_max - path.stat().st_size
        self._writer = csv.writer(self._file)
        if path.stat().st_size == 0:
            self._writer.writerow(FIELDS)

    def reads(self, keys: Iterable[RowKey]) -> None:
        """Note that rows are asked for."""
        self._note("read", ((key, "") for key in keys))

    def writes(self, rows: Sequence[StoredRow]) -> None:
        """Note that rows were written."""
        self._note("write", ((row.key, len(row.value)) for row in rows))

    def close(self) -> None:
        """Write what is left to be written."""
        self._file.close()

    def _note(self, op: str, keys: Iterable[tuple[RowKey, int | str]]) -> None:
        if self._left <= 0:
            return
        now_ms = self._clock.now_ms()
        for key, size in keys:
            hashed = xxh3_64_intdigest(key.pk.encode())
            if hashed < self._below:
                row = (now_ms, op, key.sk.partition("@")[0], f"{hashed:016x}", size)
                self._left -= self._writer.writerow(row)
        if self._left <= 0:
            self._file.flush()
            log.warning("log of reads is full", extra={"file": self._file.name})
