"""An idempotent producer, one request at a time and partition, whose requests pass the real fence."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from core.ports import Clock
from tests.simulation.broker import Broker, Item
from tests.simulation.network import LostError, Network

_REQUEST_S = 3.0
_RETRY_S = 0.1
_BATCH_RECORDS = 40


class Metadata(NamedTuple):
    """What a producer tells of an acknowledged send."""

    offset: int


class Batch:
    """Records that are sent together."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.items: list[Item] = []

    def append(self, *, key: Any, value: Any, timestamp: int | None, headers: Any = ()) -> object | None:
        if len(self.items) >= _BATCH_RECORDS:
            return None
        assert timestamp is None
        self.items.append(Item(key, value, tuple(headers), self._clock.now_ms()))
        return self

    def record_count(self) -> int:
        return len(self.items)


class _Sender:
    """Writes requests; the fence stands before its one method, as before aiokafka's."""

    def __init__(self, broker: Broker, network: Network, number: int, on_send: Callable[[], None]) -> None:
        self._broker, self._network, self._number = broker, network, number
        self._on_send = on_send
        self.answers: dict[TopicPartition, int] = {}

    async def _send_produce_req(self, tp: TopicPartition, request: tuple[int, list[Item]]) -> None:
        sequence, items = request
        self._on_send()
        self.answers[tp] = await self._network.ask(
            "broker",
            lambda: self._broker.append(tp, items, producer=self._number, sequence=sequence),
            timeout_s=_REQUEST_S,
        )


class Producer:
    """What ``aiokafka.AIOKafkaProducer`` is to the pipeline."""

    def __init__(
        self, broker: Broker, network: Network, clock: Clock, number: int, *, on_send: Callable[[], None]
    ) -> None:
        self._clock = clock
        self.sender = _Sender(broker, network, number, on_send)
        self._waiting: defaultdict[TopicPartition, deque[tuple[list[Item], asyncio.Future[Metadata]]]]
        self._waiting = defaultdict(deque)
        self._sequences: defaultdict[TopicPartition, int] = defaultdict(int)
        self._draining: dict[TopicPartition, asyncio.Task[None]] = {}

    async def send(
        self, topic: str, *, value: Any = None, key: Any = None, partition: int = 0, headers: Any = None
    ) -> "asyncio.Future[Metadata]":
        return self._put(
            TopicPartition(topic, partition), [Item(key, value, tuple(headers or ()), self._clock.now_ms())]
        )

    def create_batch(self) -> Batch:
        return Batch(self._clock)

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> "asyncio.Future[Metadata]":
        return self._put(TopicPartition(topic, partition), batch.items)

    def _put(self, tp: TopicPartition, items: list[Item]) -> "asyncio.Future[Metadata]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Metadata] = loop.create_future()
        self._waiting[tp].append((items, future))
        if tp not in self._draining:
            self._draining[tp] = loop.create_task(self._drain(tp))
        return future

    async def _drain(self, tp: TopicPartition) -> None:
        queue = self._waiting[tp]
        while queue:
            items, future = queue[0]
            while True:
                try:
                    await self.sender._send_produce_req(tp, (self._sequences[tp], items))
                except LostError:
                    await asyncio.sleep(_RETRY_S)
                else:
                    break
            self._sequences[tp] += 1
            queue.popleft()
            if not future.done():
                future.set_result(Metadata(self.sender.answers[tp]))
        del self._draining[tp]
