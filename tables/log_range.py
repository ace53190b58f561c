"""Reading ranges of logs to their ends, outside of any consumer group.

With librdkafka and not aiokafka: everybody waits for a restore, and it reads twice as many records in a second, part of
it on another core. It blocks, so it works in a thread of its own, one call at a time; what it has read is taken on the
event loop, some records at a time, so that features are read from this worker in between.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

from aiokafka import TopicPartition
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place
from typing_extensions import override

from core.errors import BrokerError
from tables.message import Message
from tables.warm_up import InputLog

RUN_RECORDS_MAX = 2_000
"""Records that are fetched at once; whoever takes them lets others work between."""

_SETTINGS = {
    # It joins no group and commits nothing, but librdkafka wants a name; grants for our groups cover this one.
    "group.id": "freshet-restore",
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    # As everywhere else; a stranger's open transaction must not hide rows.
    "isolation.level": "read_uncommitted",
    "enable.partition.eof": True,
    # With less it idles before it fetches again; the bound is in bytes.
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 32 << 10,
    "fetch.queue.backoff.ms": 2,
    "fetch.wait.max.ms": 10,
    # What it would write to stderr is in our own errors.
    "log_level": 0,
}
_POLL_S = 0.01
_REQUEST_S = 5.0
_RETRY_S = 0.1
_STALLED_S = 30.0

P = ParamSpec("P")
T = TypeVar("T")


class ReadableLog(InputLog, Protocol):
    """Partitions of topics, as they are on the broker. Every method raises ``BrokerError`` if it is silent for 30 s."""

    async def ends(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the offset that each partition's next record will have."""
        ...

    def records(
        self, starts: Mapping[TopicPartition, int], stops: Mapping[TopicPartition, int]
    ) -> "AsyncIterator[tuple[TopicPartition, LogRecord]]":
        """Yield the same one by one, as values."""
        ...


class LogRecord(NamedTuple):
    """A record of a log; ``timestamp`` in milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def record_of(message: Message) -> LogRecord:
    """Return what librdkafka has read as a value."""
    headers = message.headers() or []
    return LogRecord(message.offset(), message.timestamp()[1], message.key(), message.value(), headers)


@asynccontextmanager
async def open_log(kafka: Mapping[str, Any]) -> AsyncIterator[ReadableLog]:
    """Open a connection; ``kafka`` are librdkafka's settings."""
    log = Log(kafka)
    try:
        yield log
    finally:
        log.close()


class Log(ReadableLog):
    """A log that librdkafka reads."""

    def __init__(self, kafka: Mapping[str, Any]) -> None:
        # Told to this and not to us: a circle would be freed by Python's collector alone, hours later.
        self._last_error: deque[KafkaError] = deque(maxlen=1)
        self._client = Consumer({**_SETTINGS, **kafka, "error_cb": self._last_error.append})
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="freshet-log")

    def close(self) -> None:
        """Close the connection, after the call that may be under way and without waiting for it."""
        self._thread.submit(self._client.close)
        self._thread.shutdown(wait=False)

    @override
    async def beginnings(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._offsets(dict.fromkeys(tps, OFFSET_BEGINNING))

    @override
    async def ends(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._offsets(dict.fromkeys(tps, OFFSET_END))

    @override
    async def offsets_at(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {tp: max(offset, 0) for tp, offset in (await self._offsets(times)).items()}

    @override
    async def times_before(self, stops: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        times = dict.fromkeys(stops, 0)
        async for tp, record in self.records({tp: stop - 1 for tp, stop in stops.items()}, stops):
            times[tp] = record.timestamp
        return times

    @override
    async def records(
        self, starts: Mapping[TopicPartition, int], stops: Mapping[TopicPartition, int]
    ) -> AsyncIterator[tuple[TopicPartition, LogRecord]]:
        async for tp, run in self.runs(starts, stops):
            for message in run:
                yield tp, record_of(message)

    @override
    async def runs(
        self, starts: Mapping[TopicPartition, int], stops: Mapping[TopicPartition, int]
    ) -> AsyncIterator[tuple[TopicPartition, list[Message]]]:
        left = {tp: stop for tp, stop in stops.items() if starts[tp] < stop}
        if left:
            await self._call(self._client.assign, [_place(tp, starts[tp]) for tp in left])
        heard_at = asyncio.get_running_loop().time()
        while left:
            runs, reached = _sort(await self._call(self._client.consume, RUN_RECORDS_MAX, _POLL_S))
            if not runs and not reached:
                self._refuse_silence(heard_at, left)
                continue
            for tp, run in runs.items():
                reached[tp] = max(run[-1].offset() + 1, reached.get(tp, 0))
                wanted = _before(run, left.get(tp, 0))
                if wanted:
                    yield tp, wanted
            heard_at = asyncio.get_running_loop().time()
            done = [tp for tp, stop in left.items() if reached.get(tp, 0) >= stop]
            if done:
                await self._call(self._client.incremental_unassign, [_place(tp) for tp in done])
                left = {tp: stop for tp, stop in left.items() if tp not in done}

    def _refuse_silence(self, heard_at: float, tps: Iterable[TopicPartition]) -> None:
        if asyncio.get_running_loop().time() - heard_at > _STALLED_S:
            told = "".join(f"; it said: {error.str()}" for error in self._last_error)
            raise BrokerError(f"the broker has given nothing of {sorted(tps)} for {_STALLED_S:.0f} s{told}")

    async def _offsets(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        asked = [_place(tp, time) for tp, time in times.items()]
        deadline = asyncio.get_running_loop().time() + _STALLED_S
        while asked:
            try:
                found = await self._call(self._client.offsets_for_times, asked, timeout=_REQUEST_S)
                errors = [one.error for one in found if one.error is not None]
                if not errors:
                    return {TopicPartition(one.topic, one.partition): one.offset for one in found}
                error: Any = errors[0]
            except KafkaException as raised:
                error = raised.args[0]
            # Leaders move, and who has just moved does not know it yet.
            if asyncio.get_running_loop().time() > deadline:
                raise BrokerError(f"the broker does not tell the offsets of {sorted(times)}: {error.str()}")
            await asyncio.sleep(_RETRY_S)
        return {}

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))


def _place(tp: TopicPartition, offset: int = OFFSET_END) -> Place:
    return Place(tp.topic, tp.partition, offset)


def _before(run: list[Message], stop: int) -> list[Message]:
    """Return those messages of a run that are before an offset: mostly all."""
    if run[-1].offset() < stop:
        return run
    return [message for message in run if message.offset() < stop]


def _sort(messages: Iterable[Any]) -> tuple[dict[TopicPartition, list[Message]], dict[TopicPartition, int]]:
    """Return messages by partition, and where those partitions end whose end was reached."""
    runs: dict[tuple[str, int], list[Message]] = {}
    reached: dict[TopicPartition, int] = {}
    for message in messages:
        error = message.error()
        if error is None:
            place = (message.topic(), message.partition())
            run = runs.get(place)
            if run is None:
                run = runs[place] = []
            run.append(message)
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # its public name
            reached[TopicPartition(message.topic(), message.partition())] = message.offset()
    return {TopicPartition(*place): run for place, run in runs.items()}, reached
