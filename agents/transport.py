"""The Faust transport that carries Freshet: runs instead of records, and offsets that are owned (PROTOCOL, P9).

Stock Faust delivers record by record (60 % of its time is spent in that), and loses or repeats events when a worker
joins. Here one Faust event is a whole fetched run of records of one partition, and:

1. A partition is read only after it was taken over: its state restored and its committed offset sought, by us.
2. Seeks and fetches exclude each other; what a fetch returns after a change of generation is dropped whole.
3. The commit position follows a queue of deliveries (``core.offsets``).
4. Before partitions are given away, running work settles and is committed, within half of the rebalance time.

Everything overridden is held by ``tests/contract/test_transport.py`` against the exactly pinned versions.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from agents.fence import Fence
from agents.guard import guarded
from core.offsets import Delivery, OwnedOffsets

log = logging.getLogger(__name__)

RUNS_PER_PARTITION = 128
"""Runs of a partition that may be handed out and unfinished: then it is not polled, so that runs grow instead.

Many, because runs wait together for one flush and are no queue, and because a broker may give few records at a time;
what waits to be published is bounded by the publisher, in updates."""

_POLL_S = 0.02
_BLOCKED_S = 0.002
_FETCH_WAIT_MS = 10


class Ownership(Protocol):
    """What happens to a worker's state when partitions come and go."""

    async def settle(self) -> None:
        """Finish everything that was taken from a run, durably. Called before partitions are given away and at stop."""
        ...

    def given_away(self) -> None:
        """Drop all state: nothing is owned from here on."""
        ...

    async def take_over(self, committed: Mapping[TP, int], assigned: set[TP]) -> None:
        """Restore the state of assigned partitions; they are read from the committed offsets on when this returns."""
        ...


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
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # noqa: SLF001  # Faust offers no setting
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        self.transport.fence.watch_coordinator(self._ensure_consumer()._coordinator)  # noqa: SLF001  # aiokafka's


class Consumer(driver.Consumer):
    """Delivers runs and owns their offsets."""

    transport: "Transport"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.owned = OwnedOffsets[TP]()
        self.committed_at = time.monotonic()
        self._sought: set[TP] = set()
        self._expected: dict[TP, int] = {}
        self._ends: dict[TP, int] = {}
        self._io = asyncio.Lock()
        self._committing = asyncio.Lock()
        self._has_waited = False
        self._taking_over: asyncio.Task[None] | None = None

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def ready_partitions(self) -> frozenset[TP]:
        """Partitions that were taken over and are being read."""
        return frozenset(self._sought)

    def finish(self, message: RunMessage) -> None:
        """Note that everything in a run is durable."""
        self.owned.finish(message.delivery)

    def lag(self) -> dict[TP, int]:
        """Return per partition how many records are written and not yet finished.

        Before the first fetch of a partition nobody knows a newer end than that of its take-over.
        """
        return {tp: max((self.highwater(tp) or self._ends[tp]) - self._finished(tp), 0) for tp in self._sought}

    def _finished(self, tp: TP) -> int:
        return self.owned.finished(tp, default=self._expected.get(tp, 0))

    # -- delivery

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                await self._deliver_next()
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise

    async def _deliver_next(self) -> None:
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
            return
        runs_max = self._runs_max()
        wanted = {tp for tp in self._sought if self.owned.outstanding(tp) < runs_max}
        if not wanted:
            await asyncio.sleep(_BLOCKED_S)
            return
        generation = self.app.consumer_generation_id
        async with self._io:
            runs = await self._getmany(active_partitions=wanted, timeout=_POLL_S)
        for tp, run in (runs or {}).items():
            if generation != self.app.consumer_generation_id or not self.flow_active:
                return
            if run and tp in self._sought:
                await self._deliver(tp, run, generation)
        await asyncio.sleep(0)

    def _runs_max(self) -> int:
        """Return how many runs of a partition fit into a stream's queue beside those of all others.

        A queue that is full would block the delivery, and Faust's way to empty it at a rebalance wakes nobody up.
        """
        return max(min(RUNS_PER_PARTITION, self.app.conf.stream_buffer_maxsize // max(len(self._sought), 1)), 1)

    async def _deliver(self, tp: TP, run: list[Any], generation: int) -> None:
        last = run[-1]
        if run[0].offset < self._expected[tp]:
            # aiokafka begins anew where an offset is out of range; the rows' stamps would take all of it for a replay.
            self.transport.die(
                f"{tp.topic}[{tp.partition}] was read up to offset {self._expected[tp]} and goes on at {run[0].offset}"
                f": the topic was made anew, or its tail is lost; see docs/how-to/recover.md"
            )
        if run[0].offset > self._expected[tp]:
            await self._explain_gap(tp, run[0].offset)
            if generation != self.app.consumer_generation_id or tp not in self._sought:
                # Given away during the question; a delivery noted now would never be finished, nor any after it.
                return
        self._expected[tp] = last.offset + 1
        records: Any = run
        message = RunMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type,
            [], None, records, None, 0, 0, tp, generation_id=generation,
        )  # fmt: skip
        message.delivery = self.owned.deliver(tp, last.offset + 1, len(run))
        # Faust's own way makes four tasks for it. With the flow active nothing here waits: the queue is never full.
        await self.callback(message)

    async def _explain_gap(self, tp: TP, found: int) -> None:
        """Tell holes that a log may have (compaction, transactions) from records that were deleted unread."""
        start = (await self.earliest_offsets(tp))[tp]
        if start > self._expected[tp]:
            self.transport.die(
                f"{tp.topic}[{tp.partition}] was read up to offset {self._expected[tp]}, but the broker has deleted "
                f"everything before {start}: events are lost; read on from {found} only after you know which"
            )

    # -- offsets

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: FBT001, FBT002  # Faust's
        """Commit what is finished; a commit that fails moves nothing and is tried again."""
        async with self._committing:
            positions = self.owned.positions()
            if not positions:
                if not self.owned.any_outstanding:
                    self.committed_at = time.monotonic()
                return False
            if await self._commit(positions):
                self.owned.committed(positions)
                self.committed_at = time.monotonic()
                return True
            log.warning("commit refused", extra={"partitions": len(positions)})
            return False

    def ack(self, message: Any) -> bool:  # Faust's
        """Do nothing: agents finish runs themselves, when they are durable."""
        return False

    async def wait_empty(self) -> None:
        """Settle and commit, as far as half of the rebalance time allows: a store may be down."""
        if self._has_waited:
            return
        allowed_s = self.app.conf.broker_rebalance_timeout / 2
        try:
            async with asyncio.timeout(allowed_s):
                await self.transport.ownership.settle()
                await self.commit()
        except TimeoutError:
            log.warning("partitions given away uncommitted", extra={"waited_s": allowed_s})

    async def perform_seek(self) -> None:
        """Do nothing: partitions are sought when they are taken over."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust's view of what is stuck does not know runs; the age of the last commit is a metric."""

    # -- coming and going

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Settle and commit what runs, then let everything go."""
        self._stop_taking_over()
        self._sought.clear()
        if revoked:
            self.stop_flow()
            self.app.flow_control.suspend()
            self.app.flow_control.clear()
            await self.wait_empty()
        # Faust waits once more; a second half of the rebalance time would be all of it, and we expelled.
        self._has_waited = True
        try:
            await super().on_partitions_revoked(revoked)
        finally:
            self._has_waited = False
        self.owned.forget()
        self.transport.fence.owns(anything=False)
        self.transport.ownership.given_away()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Let Faust know, then take the partitions over beside the group protocol, which must not wait for us."""
        self._stop_taking_over()
        self._sought.clear()
        self.owned.forget()
        await super().on_partitions_assigned(assigned, generation_id)
        self.transport.fence.owns(anything=bool(assigned))
        if assigned and not self.should_stop:
            work = guarded(self._take_over(set(assigned), generation_id), what="take-over of partitions")
            self._taking_over = asyncio.get_running_loop().create_task(work)

    async def on_stop(self) -> None:
        """Take nothing over any more: the stores that it would read are closed next. Then stop as Faust does."""
        self._stop_taking_over()
        await super().on_stop()

    def _stop_taking_over(self) -> None:
        if self._taking_over is not None:
            self._taking_over.cancel()
            self._taking_over = None

    async def _take_over(self, assigned: set[TP], generation: int) -> None:
        starts, ends = await self.earliest_offsets(*assigned), await self.highwaters(*assigned)
        committed = await self._committed(assigned)
        for tp, offset in committed.items():
            if offset < starts[tp]:
                self.transport.die(
                    f"{tp.topic}[{tp.partition}] was committed at offset {offset}, but the broker's log starts at "
                    f"{starts[tp]}: events are lost, or the topic was made anew; see docs/how-to/recover.md"
                )
            if offset > ends[tp]:
                self.transport.die(
                    f"{tp.topic}[{tp.partition}] was committed at offset {offset}, but the broker's log ends at "
                    f"{ends[tp]}: the topic was made anew, or its tail is lost; see docs/how-to/recover.md"
                )
        await self.transport.ownership.take_over(committed, assigned)
        begin = {tp: committed.get(tp, starts[tp]) for tp in assigned}
        async with self._io:
            if generation != self.app.consumer_generation_id:
                return
            for tp, offset in begin.items():
                self._thread.seek(driver.ensure_aiokafka_TP(tp), offset)
            self._expected, self._ends = dict(begin), dict(ends)
            self._sought = set(assigned)
        log.info("partitions taken over", extra={"partitions": len(assigned), "generation": generation})

    async def _committed(self, tps: Iterable[TP]) -> dict[TP, int]:
        consumer = self._thread._ensure_consumer()  # noqa: SLF001  # the thread's own way to its consumer
        found = {}
        for tp in tps:
            offset = await self._thread.call_thread(consumer.committed, driver.ensure_aiokafka_TP(tp))
            if offset is not None:
                found[tp] = offset
        return found


class Producer(driver.Producer):
    """Idempotent, with every acknowledgement, and fenced."""

    transport: "Transport"

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    async def on_start(self) -> None:
        """Start and guard every request that is written."""
        await super().on_start()
        sender: Any = getattr(self._producer, "_sender", None)
        self.transport.fence.guard_sends(sender)


class Transport(driver.Transport):
    """Faust's Kafka transport with our consumer and producer."""

    Consumer = Consumer
    Producer = Producer

    def __init__(self, *args: Any, fence: Fence, ownership: Ownership, die: Callable[[str], None]) -> None:
        super().__init__(*args)
        self.fence = fence
        self.ownership = ownership
        self.die = die
