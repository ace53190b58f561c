"""Reading logs outside of the group, as ``tables.log_range`` does it with librdkafka."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition
from typing_extensions import override

from tables.log_range import ReadableLog
from tables.message import Message
from tests.simulation.broker import Broker, Entry
from tests.simulation.network import LostError, Network

_REQUEST_S = 5.0
_RUN_RECORDS = 20


class _Message(Message):
    """A record as librdkafka gives it."""

    __slots__ = ("_entry",)

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def offset(self) -> int:
        return self._entry.offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self._entry.timestamp

    def key(self) -> bytes | None:
        return self._entry.key

    def value(self) -> bytes | None:
        return self._entry.value

    def headers(self) -> list[tuple[str, bytes]] | None:
        return list(self._entry.headers)


class LogReader(ReadableLog):
    """All logs of the broker, over the network."""

    def __init__(self, broker: Broker, network: Network) -> None:
        self._broker, self._network = broker, network

    async def _ask(self, serve: Callable[[], Any]) -> Any:
        while True:
            try:
                return await self._network.ask("broker", serve, timeout_s=_REQUEST_S)
            except LostError:
                continue

    @override
    async def beginnings(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(tps, 0)

    @override
    async def ends(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        wanted = list(tps)
        found: Mapping[TopicPartition, int] = await self._ask(lambda: {tp: self._broker.logs[tp].end for tp in wanted})
        return found

    @override
    async def times_before(self, stops: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        found: Mapping[TopicPartition, int] = await self._ask(
            lambda: {
                tp: max((entry.timestamp for entry in self._broker.logs[tp].between(stop - 1, stop)), default=0)
                for tp, stop in stops.items()
            }
        )
        return found

    @override
    async def offsets_at(self, times: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        found: Mapping[TopicPartition, int] = await self._ask(
            lambda: {
                tp: next((entry.offset for entry in self._broker.logs[tp].entries if entry.timestamp >= time), 0)
                for tp, time in times.items()
            }
        )
        return found

    @override
    async def records(
        self, starts: Mapping[TopicPartition, int], stops: Mapping[TopicPartition, int]
    ) -> AsyncIterator[tuple[TopicPartition, Any]]:
        for tp, stop in stops.items():
            for entry in await self._ask(lambda tp=tp, stop=stop: self._broker.logs[tp].between(starts[tp], stop)):
                yield tp, entry

    @override
    async def runs(
        self, starts: Mapping[TopicPartition, int], stops: Mapping[TopicPartition, int]
    ) -> AsyncIterator[tuple[TopicPartition, Sequence[Message]]]:
        for tp, stop in stops.items():
            read = starts[tp]
            while read < stop:
                run = await self._ask(
                    lambda tp=tp, read=read, stop=stop: self._broker.logs[tp].between(read, stop)[:_RUN_RECORDS]
                )
                if not run:
                    break
                yield tp, [_Message(entry) for entry in run]
                read = run[-1].offset + 1


def opener(broker: Broker, network: Network) -> Any:
    """Return what opens a log for a ``ChangelogReader``."""

    @asynccontextmanager
    async def open_log(_kafka: Mapping[str, Any]) -> AsyncIterator[ReadableLog]:
        yield LogReader(broker, network)

    return open_log
