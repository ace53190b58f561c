"""A broker: logs that grow in the order in which bytes arrive, with what its idempotence and its compaction do."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from aiokafka import TopicPartition


class Item(NamedTuple):
    """A record that is to be appended."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


class Entry(NamedTuple):
    """A record of a log, named as aiokafka and librdkafka name its parts."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_type: int = 0


class Log:
    """One partition.

    Attributes:
        entries: By offset, without what compaction has taken.
        end: Offset of the next record.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.end = 0

    def between(self, start: int, stop: int) -> list[Entry]:
        """Return the records in ``[start, stop)``."""
        if len(self.entries) == self.end:
            return self.entries[start:stop]
        return [entry for entry in self.entries if start <= entry.offset < stop]

    def compact(self) -> None:
        """Keep the last record of each key, as a broker does behind its active segment."""
        last = {entry.key: entry.offset for entry in self.entries}
        self.entries = [entry for entry in self.entries if last[entry.key] == entry.offset]


class Broker:
    """All logs. Whoever reads sees what is appended at once: only what every replica has is appended here."""

    def __init__(self) -> None:
        self.logs: defaultdict[TopicPartition, Log] = defaultdict(Log)
        self._sequences: dict[tuple[int, TopicPartition], tuple[int, int]] = {}
        self._waiting: dict[object, tuple[frozenset[TopicPartition], asyncio.Future[None]]] = {}

    def append(self, tp: TopicPartition, items: Sequence[Item], *, producer: int = -1, sequence: int = -1) -> int:
        """Append records; return the offset of the first, or -1 for a repeated send whose place is not told.

        Args:
            tp: Where.
            items: The records of one request.
            producer: Identity of an idempotent producer, or -1.
            sequence: Number of the request in its partition.
        """
        if producer >= 0:
            known = self._sequences.get((producer, tp), (-1, -1))
            if sequence <= known[0]:
                return known[1] if sequence == known[0] else -1
        log = self.logs[tp]
        first = log.end
        for item in items:
            log.entries.append(Entry(*tp, log.end, item.timestamp_ms, item.key, item.value, item.headers))
            log.end += 1
        if producer >= 0:
            self._sequences[producer, tp] = (sequence, first)
        for tps, future in self._waiting.values():
            if tp in tps:
                _wake(future)
        return first

    async def wait_for(self, reader: object, tps: frozenset[TopicPartition], timeout_s: float) -> None:
        """Wait until something is appended to one of the partitions, or the reader is woken, or for a moment."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting[reader] = (tps, future)
        timer = loop.call_later(timeout_s, _wake, future)
        try:
            await future
        finally:
            timer.cancel()
            if self._waiting.get(reader) == (tps, future):
                del self._waiting[reader]

    def wake(self, reader: object) -> None:
        """Let a reader wait no longer."""
        if reader in self._waiting:
            _wake(self._waiting[reader][1])


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
