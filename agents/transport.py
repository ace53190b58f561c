"""The Faust transport that carries Freshet: runs instead of records, and offsets that are owned (PROTOCOL, P9).

Stock Faust delivers record by record (60 % of its time is spent in that), and loses or repeats events when a worker
joins. Here one Faust event is a whole fetched run of records of one partition, and what is read and committed is
decided by ``agents.owned_partitions``, which knows nothing of Faust.

Everything overridden is held by ``tests/contract/test_transport.py`` against the exactly pinned versions.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from typing_extensions import override

from agents.aiokafka_mends import tell_resets, wait_for_leaders
from agents.fence import Fence
from agents.fetch_pace import FETCH_WAIT_MS, paced
from agents.owned_partitions import GroupClient, OwnedPartitions, Ownership
from core.offsets import Delivery

_POLL_S = 0.02
_PREFETCH_BACKOFF_S = 0.005
_ENDS: tuple[type[BaseException], ...] = (asyncio.CancelledError, *driver.Consumer.consumer_stopped_errors)
"""How the delivery of runs may end at a stop."""


class RunMessage(ConsumerMessage):
    """A run of records as one Faust message; ``value`` is the list of records."""

    __slots__ = ("delivery",)
    delivery: Delivery[TP]


class RunSchema(faust.Schema[Any, Any]):
    """Leaves a run of records as it is: decoding is the agents' work."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> None:
        """Return no key: a run has none."""

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:  # Faust's
        """Return the records."""
        return message.value


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    transport: "Transport"

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust fixes 1,500 ms: a partition that was not part of the fetch in flight would wait as long for its turn.
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001  # Faust offers no setting
        return consumer

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Any:
        records = await super()._fetch_records(consumer, *args, **kwargs)
        # The next fetch is asked for when this one is taken, so it is the broker that has to wait: were we to wait
        # before we take it, it would hold what came first, and all else would wait for the one after it.
        fetcher = consumer._fetcher  # noqa: SLF001  # aiokafka's
        fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = paced(sum(map(len, records.values())))  # noqa: SLF001
        return records

    def leave_at_stop(self) -> None:
        """Let aiokafka leave the group when it stops, as it does for a member without a name."""
        if self._consumer is not None:
            self._consumer._coordinator._group_instance_id = None  # noqa: SLF001  # aiokafka has no other way

    async def on_start(self) -> None:
        await super().on_start()
        consumer = self._ensure_consumer()
        # What lies there of a partition that is not read at the moment would hold up all others for 0.1 s.
        consumer._fetcher._prefetch_backoff = _PREFETCH_BACKOFF_S  # noqa: SLF001  # aiokafka's
        tell_resets(consumer._client)  # noqa: SLF001  # aiokafka's
        self.transport.fence.watch_coordinator(consumer._coordinator)  # noqa: SLF001  # aiokafka's


class Consumer(driver.Consumer):
    """Faust's consumer, whose partitions are owned by ``agents.owned_partitions``."""

    transport: "Transport"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        conf = self.app.conf
        self.owned = OwnedPartitions(
            _Client(self),
            ownership=self.transport.ownership,
            fence=self.transport.fence,
            queue_max=conf.stream_buffer_maxsize,
            settle_s=conf.broker_rebalance_timeout / 2,
            die=self.transport.die,
        )
        self._has_waited = False

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def ready_partitions(self) -> frozenset[TP]:
        """Partitions that were taken over and are being read."""
        return frozenset(self.owned.ready)

    @property
    def committed_at(self) -> float:
        """When everything that was finished was last known to be committed, on the monotonic clock."""
        return self.owned.committed_at

    def finish(self, message: RunMessage) -> None:
        """Note that everything in a run is durable."""
        self.owned.finish(message.delivery)

    def join(self, first: RunMessage, second: RunMessage) -> None:
        """Make two neighbouring runs of a partition one: the first is finished with the second."""
        self.owned.join(first.delivery, second.delivery)

    def lag(self) -> dict[TP, int]:
        """Return per partition how many records are written and not yet finished.

        Before the first fetch of a partition nobody knows a newer end than that of its take-over.
        """
        return {
            tp: max((self.highwater(tp) or self.owned.ends[tp]) - self.owned.finished(tp), 0) for tp in self.owned.ready
        }

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                await self.owned.deliver_next()
        except _ENDS:
            # Faust takes a cancellation in the middle of a rebalance for a crash, also where it stops.
            if not self.app.should_stop:
                raise

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: FBT001, FBT002  # Faust's
        """Commit what is finished."""
        return await self.owned.commit()

    def ack(self, message: Any) -> bool:  # Faust's
        """Do nothing: agents finish runs themselves, when they are durable."""
        return False

    async def wait_empty(self) -> None:
        """Settle and commit, once for each time that partitions go."""
        if not self._has_waited:
            await self.owned.settle()

    async def perform_seek(self) -> None:
        """Do nothing: partitions are sought when they are taken over."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust's view of what is stuck does not know runs; the age of the last commit is a metric."""

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Settle and commit what runs, then let everything go."""
        await self.owned.release(revoked)
        # Faust waits once more; a second half of the rebalance time would be all of it, and we expelled.
        self._has_waited = True
        try:
            await super().on_partitions_revoked(revoked)
        finally:
            self._has_waited = False
        self.owned.released()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Let Faust know, then take the partitions over."""
        self.owned.forget()
        await super().on_partitions_assigned(assigned, generation_id)
        self.owned.assign(set(assigned), generation_id, stopping=self.should_stop)

    async def on_stop(self) -> None:
        """Take nothing over any more: the stores that it would read are closed next. Then leave, and stop.

        A static member would stay in its group, and its partitions stand still, until its session is over. Whoever is
        asked to stop has time to settle, so others can go on at once; kill -9 is what static members are for.
        """
        self.owned.stop_taking_over()
        cast("_ConsumerThread", self._thread).leave_at_stop()
        await super().on_stop()


class _Client(GroupClient):
    """Faust's consumer as the owner of partitions sees it."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    @property
    @override
    def generation(self) -> int:
        return int(self._consumer.app.consumer_generation_id)

    @property
    @override
    def is_flowing(self) -> bool:
        return bool(self._consumer.flow_active)

    @override
    async def wait_flowing(self) -> None:
        await self._consumer.wait(self._consumer.can_resume_flow.wait())

    @override
    def stop_flow(self) -> None:
        self._consumer.stop_flow()
        self._consumer.app.flow_control.suspend()
        self._consumer.app.flow_control.clear()

    @override
    async def fetch(self, partitions: set[TP]) -> Mapping[TP, Sequence[Any]]:
        return await self._consumer._getmany(active_partitions=partitions, timeout=_POLL_S) or {}  # noqa: SLF001  # Faust's

    @override
    async def hand_on(self, delivery: Delivery[TP], run: Sequence[Any], generation: int) -> None:
        tp, last, records = delivery.partition, run[-1], cast("Any", run)
        message = RunMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type,
            [], None, records, None, 0, 0, tp, generation_id=generation,
        )  # fmt: skip
        message.delivery = delivery
        # Faust's own way makes four tasks for it. With the flow active nothing here waits: the queue is never full.
        await self._consumer.callback(message)

    @override
    async def starts(self, partitions: Collection[TP]) -> Mapping[TP, int]:
        found: Mapping[TP, int] = await self._consumer.earliest_offsets(*partitions)
        return found

    @override
    async def ends(self, partitions: Collection[TP]) -> Mapping[TP, int]:
        found: Mapping[TP, int] = await self._consumer.highwaters(*partitions)
        return found

    @override
    async def committed(self, partitions: Collection[TP]) -> Mapping[TP, int]:
        thread = self._consumer._thread  # noqa: SLF001  # the only way to the group's offsets
        consumer = thread._ensure_consumer()  # noqa: SLF001  # the thread's own way to its consumer
        found = {}
        for tp in partitions:
            offset = await thread.call_thread(consumer.committed, driver.ensure_aiokafka_TP(tp))
            if offset is not None:
                found[tp] = offset
        return found

    @override
    async def commit(self, positions: dict[TP, int]) -> bool:
        return bool(await self._consumer._commit(positions))  # noqa: SLF001  # Faust's

    @override
    def seek(self, partition: TP, offset: int) -> None:
        self._consumer._thread.seek(driver.ensure_aiokafka_TP(partition), offset)  # noqa: SLF001  # see committed


class Producer(driver.Producer):
    """Idempotent, with every acknowledgement, and fenced."""

    transport: "Transport"

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    async def flush(self) -> None:
        """Do nothing: whoever needs an acknowledgement has awaited it.

        Faust flushes once more when partitions are given away. An idempotent send is tried as long as the broker is
        away, and while it is, the member would not join: it would be expelled with everything that it owns.
        """

    async def on_start(self) -> None:
        """Start and guard every request that is written."""
        await super().on_start()
        producer: Any = self._producer
        tell_resets(producer.client)
        wait_for_leaders(producer)
        self.transport.fence.guard_sends(producer._sender)  # noqa: SLF001  # aiokafka's


class Transport(driver.Transport):
    """Faust's Kafka transport with our consumer and producer."""

    Consumer = Consumer
    Producer = Producer

    def __init__(self, *args: Any, fence: Fence, ownership: Ownership, die: Callable[[str], None]) -> None:
        super().__init__(*args)
        self.fence = fence
        self.ownership = ownership
        self.die = die
