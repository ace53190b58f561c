"""Fakes of the outside world: a broker's producer whose answers a test gives, a store that tells what it was asked."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from core.errors import BrokerError, StoreError
from stores.memory import MemoryStore
from tests.clock import ManualClock

REQUEST_BYTES_MAX = 1_000_000


class Record(NamedTuple):
    """A consumed record, as far as anybody looks at it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    timestamp_type: int = 0


@dataclass(eq=False)
class Run:
    """A run of records as the transport delivers it."""

    topic: str
    partition: int
    value: list[Record]

    @property
    def offset(self) -> int:
        return self.value[-1].offset


class Metadata(NamedTuple):
    """What a broker answers to a send."""

    offset: int


@dataclass(eq=False)
class Sent:
    """A record or a batch on its way; its offset was given when it was sent."""

    topic: str
    partition: int | None
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    rows: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    row_headers: list[Any] = field(default_factory=list)
    future: "asyncio.Future[Metadata]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def acknowledge(self, *, offset: int | None = None) -> None:
        self.future.set_result(Metadata(self.offset if offset is None else offset))

    def refuse(self, reason: str) -> None:
        self.fail(KafkaError(reason))

    def fail(self, error: Exception) -> None:
        self.future.set_exception(error)


class FakeBatch:
    """A producer's batch that is full after some records."""

    def __init__(self, records_max: int) -> None:
        self.rows: list[tuple[bytes, bytes | None]] = []
        self.headers: list[Any] = []
        self._records_max = records_max

    def append(self, *, key: bytes, value: bytes | None, timestamp: int | None, headers=()) -> object | None:
        assert timestamp is None
        if len(self.rows) >= self._records_max:
            return None
        self.rows.append((key, value))
        self.headers.append(headers)
        return object()

    def record_count(self) -> int:
        return len(self.rows)


class FakeProducer:
    """Keeps what it is given in logs with offsets; acknowledges at once, or when a test says so.

    Attributes:
        sent: Everything in the order in which it was sent.
        held: Whether acknowledgements wait for the test.
        full: How many sends find no room.
    """

    def __init__(
        self, *, held: bool = False, batch_records_max: int = 1_000, told: list[tuple[Any, ...]] | None = None
    ) -> None:
        self.told: list[tuple[Any, ...]] = [] if told is None else told
        self.sent: list[Sent] = []
        self.held = held
        self.full = 0
        self._batch_records_max = batch_records_max
        self._ends: defaultdict[tuple[str, int | None], int] = defaultdict(int)

    async def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> "asyncio.Future[Metadata]":
        size = sum(len(part) for part in (key or b"", value or b"")) + sum(
            len(name) + len(text) for name, text in headers or ()
        )
        if size > REQUEST_BYTES_MAX:
            raise MessageSizeTooLargeError(f"{size} bytes")
        self._find_room()
        return self._add(Sent(topic, partition, 0, key, value, list(headers or ())), 1)

    def create_batch(self) -> FakeBatch:
        return FakeBatch(self._batch_records_max)

    async def send_batch(self, batch: FakeBatch, topic: str, *, partition: int) -> "asyncio.Future[Metadata]":
        self._find_room()
        return self._add(
            Sent(topic, partition, 0, rows=list(batch.rows), row_headers=list(batch.headers)), batch.record_count()
        )

    def foreign(self, topic: str, partition: int, records: int) -> None:
        """Let somebody else write to a partition."""
        self._ends[topic, partition] += records

    def to(self, topic: str) -> list[Sent]:
        return [sent for sent in self.sent if sent.topic == topic]

    def _find_room(self) -> None:
        if self.full:
            self.full -= 1
            raise KafkaTimeoutError

    def _add(self, sent: Sent, records: int) -> "asyncio.Future[Metadata]":
        sent.offset = self._ends[sent.topic, sent.partition]
        self._ends[sent.topic, sent.partition] += records
        self.sent.append(sent)
        self.told.append((sent.topic, sent))
        if not self.held:
            sent.acknowledge()
        return sent.future


class ToldStore(MemoryStore):
    """A memory store that tells each write, fails as often as it is told to, and can be made to wait."""

    def __init__(self, name: str, told: list[tuple[Any, ...]] | None = None) -> None:
        super().__init__(ManualClock())
        self.name = name
        self.told: list[tuple[Any, ...]] = [] if told is None else told
        self.failures = 0
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, rows, *, deadline_ms):
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            self.told.append((f"{self.name} failed", tuple(rows)))
            raise StoreError(f"{self.name} is told to fail")
        taken = await super().write(rows, deadline_ms=deadline_ms)
        self.told.append((self.name, tuple(rows)))
        return taken


class ToldChangelogs:
    """A changelog reader over logs in memory.

    Attributes:
        logs: Key and value of each record, per topic and partition.
        during_ends: Called between the broker's answer and its arrival.
        failures: How many readings of a range fail.
    """

    def __init__(self) -> None:
        self.logs: defaultdict[Any, list[tuple[bytes | None, bytes | None]]] = defaultdict(list)
        self.during_ends: Callable[[], Awaitable[None]] | None = None
        self.failures = 0

    async def restore(self, tables):
        return {table.changelog: 0 for table in tables}

    async def warm_ids(self, tables):
        pass

    async def ends(self, tps):
        found = {tp: len(self.logs[tp]) for tp in tps}
        if self.during_ends is not None:
            await self.during_ends()
        return found

    async def read_range(self, tp, start, end):
        if self.failures:
            self.failures -= 1
            raise BrokerError("the broker is away")
        for key, value in self.logs[tp][start:end]:
            yield key, value


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks run until a condition holds; five seconds are for slow machines."""
    deadline = asyncio.get_running_loop().time() + 5
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen"
        await asyncio.sleep(0)


async def idle() -> None:
    """Let every task do what it can do now."""
    for _ in range(50):
        await asyncio.sleep(0)
