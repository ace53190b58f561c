"""A sample of what is read and written, as the lines that ``freshet cache simulate`` takes.

Keys are sampled, not reads: of a key in the sample everything is there, so that the model meets its copies as the
worker does. A key stands there as a hash: the log tells nobody who was asked for.
"""

import asyncio
import csv
import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from xxhash import xxh3_64_intdigest

from core.errors import ConfigurationError
from core.ports import Clock, RowKey, StoredRow

log = logging.getLogger(__name__)

FIELDS = ("time_ms", "op", "group", "key", "bytes")
_BYTES_MAX = 256 << 20
_BUFFER_BYTES = 1 << 16
_FLUSH_S = 5.0


class ReadsLog:
    """Writes a log, until it is as large as it may be. Workers of one machine may share a file."""

    def __init__(
        self, path: Path, *, share: float, clock: Clock, bytes_max: int = _BYTES_MAX, flush_s: float = _FLUSH_S
    ) -> None:
        """Open it; what it has from before stays.

        Args:
            path: A CSV file.
            share: Of the keys, 0 < share <= 1.
            clock: Tells the time.
            bytes_max: At which size of the file nothing more is written.
            flush_s: How long a line waits to be written, at most.

        Raises:
            ConfigurationError: No such file can be written.
        """
        self._below = int(share * (1 << 64))
        self._clock = clock
        self._bytes_max = self._left = bytes_max
        self._flush_s = flush_s
        self._lines = io.StringIO()
        self._writer = csv.writer(self._lines)
        try:
            # At the end and without a buffer: each write adds whole lines, between those of other workers.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise ConfigurationError(f"FRESHET_READS_LOG: {path} cannot be written: {error.strerror}") from None
        if self._file.tell() == 0:
            self._writer.writerow(FIELDS)
        self._write()

    def reads(self, keys: Iterable[RowKey]) -> None:
        """Note that rows are asked for."""
        self._note("read", ((key, "") for key in keys))

    def writes(self, rows: Sequence[StoredRow]) -> None:
        """Note that rows were written."""
        self._note("write", ((row.key, len(row.value)) for row in rows))

    async def run(self) -> None:
        """Write every few seconds what was noted, for ever: at a small share it would wait for hours, or be lost."""
        while True:
            await asyncio.sleep(self._flush_s)
            self._write()

    def close(self) -> None:
        """Write what is left to be written."""
        self._write()
        self._left = 0
        self._file.close()

    def _note(self, op: str, keys: Iterable[tuple[RowKey, int | str]]) -> None:
        if self._left <= 0:
            return
        now_ms = self._clock.now_ms()
        for key, size in keys:
            hashed = xxh3_64_intdigest(key.pk.encode())
            if hashed < self._below:
                self._writer.writerow((now_ms, op, key.sk.partition("@")[0], f"{hashed:016x}", size))
        if self._lines.tell() >= min(self._left, _BUFFER_BYTES):
            self._write()

    def _write(self) -> None:
        if self._left <= 0:
            return
        lines = self._lines.getvalue().encode()
        self._lines.seek(0)
        self._lines.truncate()
        try:
            while lines:
                lines = lines[self._file.write(lines) :]
        except OSError as error:
            self._left = 0
            log.warning("log of reads cannot be written", extra={"file": self._file.name, "reason": str(error)})
            return
        self._left = self._bytes_max - self._file.tell()
        if self._left <= 0:
            log.warning("log of reads is full", extra={"file": self._file.name, "bytes_max": self._bytes_max})
