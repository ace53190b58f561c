"""Delivery of runs and the ownership of their offsets, with a consumer thread that a test plays (PROTOCOL, P9)."""

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from types import SimpleNamespace

import faust
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from agents import transport
from agents.aiokafka_mends import tell_resets, wait_for_leaders
from agents.fence import Fence
from agents.owned_partitions import RUNS_PER_PARTITION
from agents.transport import Consumer, Transport
from tests.fakes import Record, idle, until

ZERO, ONE = TP("t", 0), TP("t", 1)


class Thread(transport._ConsumerThread):
    """The broker as the consumer sees it: logs, commits, and answers that may wait."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.records: dict[TP, list[Record]] = {}
        self.starts: defaultdict[TP, int] = defaultdict(int)
        self.ends: defaultdict[TP, int] = defaultdict(lambda: 1_000)
        self.commits: dict[TP, int] = {}
        self.seeks: list[tuple[TP, int]] = []
        self.fetching, self.telling = asyncio.Event(), asyncio.Event()
        self.fetching.set()
        self.telling.set()
        self.accepts = True
        self.mark: int | None = 100
        self.assigned: set[TP] = set()

    async def getmany(self, active_partitions, timeout):  # noqa: ASYNC109  # Faust's signature
        found = {tp: self.records.pop(tp) for tp in list(self.records) if tp in active_partitions}
        await self.fetching.wait()
        return found

    async def earliest_offsets(self, *partitions):
        await self.telling.wait()
        return {tp: self.starts[tp] for tp in partitions}

    async def highwaters(self, *partitions):
        return {tp: self.ends[tp] for tp in partitions}

    async def commit(self, offsets):
        if self.accepts:
            self.commits.update(offsets)
        return self.accepts

    async def call_thread(self, fun, *args, **kwargs):
        return await fun(*args, **kwargs)

    async def committed(self, tp):
        return self.commits.get(TP(tp.topic, tp.partition))

    def seek(self, partition, offset):
        self.seeks.append((TP(partition.topic, partition.partition), offset))

    def assignment(self):
        return self.assigned

    def highwater(self, tp):
        return self.mark

    def _ensure_consumer(self):
        return self


class PlayedConsumer(Consumer):
    def _new_consumer_thread(self):
        return Thread(self, loop=self.loop, beacon=self.beacon)


class PlayedTransport(Transport):
    Consumer = PlayedConsumer


class Owner:
    """Writes down what happens to its state; settles when it is told to."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.has_state = False
        self.settled, self.restored = asyncio.Event(), asyncio.Event()
        self.settled.set()
        self.restored.set()

    async def settle(self):
        await self.settled.wait()
        self.told.append("settled")

    def given_away(self):
        self.told.append("given away")

    async def take_over(self, committed, assigned):
        await self.restored.wait()
        self.told.append("taken over")


class Bench:
    def __init__(self, *, rebalance_timeout_s: float, buffer: int) -> None:
        self.app = faust.App(
            "bench", broker="kafka://127.0.0.1:1", store="memory://", broker_rebalance_timeout=rebalance_timeout_s,
            stream_buffer_maxsize=buffer, stream_wait_empty=True,
        )  # fmt: skip
        self.owner, self.deaths, self.delivered = Owner(), [], []
        self.delivering = asyncio.Event()
        self.delivering.set()
        self.fence = Fence(session_timeout_ms=10_000, die=self.deaths.append)
        self.app.transport = self.app.producer_transport = PlayedTransport(
            self.app.conf.broker_consumer, self.app, fence=self.fence, ownership=self.owner, die=self.deaths.append
        )
        self.consumer = self.app.transport.create_consumer(
            self._deliver, on_partitions_revoked=self._faust_revoked, on_partitions_assigned=self._faust_assigned
        )
        self.thread = self.consumer._thread

    async def _deliver(self, message) -> None:
        await self.delivering.wait()
        self.delivered.append(message)

    async def _faust_revoked(self, revoked) -> None:
        # As Faust's app does with stream_wait_empty.
        await self.consumer.wait_empty()

    async def _faust_assigned(self, assigned, generation) -> None:
        self.consumer.resume_flow()

    async def assign(self, *tps, generation=1) -> None:
        self.app.consumer_generation_id = generation
        self.thread.assigned = set(tps)
        await self.consumer.on_partitions_assigned(set(tps), generation)

    async def own(self, *tps, generation=1) -> None:
        await self.assign(*tps, generation=generation)
        await until(lambda: self.consumer.ready_partitions == set(tps))

    def log(self, tp, *offsets) -> None:
        self.thread.records[tp] = [Record(*tp, offset, 0, None, b"") for offset in offsets]

    def offsets(self):
        return [(message.partition, [record.offset for record in message.value]) for message in self.delivered]


@asynccontextmanager
async def bench(*, rebalance_timeout_s=30.0, buffer=4096):
    made = Bench(rebalance_timeout_s=rebalance_timeout_s, buffer=buffer)
    try:
        yield made
    finally:
        made.consumer.owned.stop_taking_over()
        await idle()
        # Faust opens one for the consumer's thread and closes it only if the thread ran.
        made.thread.thread_loop.close()


async def test_a_partition_is_read_from_its_commit_once_it_is_taken_over():
    """
    Not from where a fetch happened to stand, and not before its state is there.
    """
    async with bench() as made:
        made.thread.commits[ZERO], made.thread.starts[ONE] = 17, 5
        made.thread.starts[ZERO] = 3
        await made.own(ZERO, ONE)

        assert sorted(made.thread.seeks) == [(ZERO, 17), (ONE, 5)]
        made.log(ZERO, 17, 18)
        made.log(ONE, 5)
        await made.consumer.owned.deliver_next()
        assert sorted(made.offsets()) == [(0, [17, 18]), (1, [5])]


async def test_a_commit_covers_what_is_finished_in_order():
    """
    A later run that is done says nothing of an earlier one.
    """
    async with bench() as made:
        await made.own(ZERO)
        for start in (0, 2):
            made.log(ZERO, start, start + 1)
            await made.consumer.owned.deliver_next()
        first, second = made.delivered

        made.consumer.finish(second)
        assert not await made.consumer.commit()
        made.consumer.finish(first)
        made.thread.accepts = False
        assert not await made.consumer.commit()
        made.thread.accepts = True
        assert await made.consumer.commit()
        assert not await made.consumer.commit()

        assert made.thread.commits == {ZERO: 4}
        assert made.consumer.lag() == {ZERO: 96}


async def test_a_partition_that_was_not_fetched_yet_has_its_lag():
    """
    Left out, a worker that has everything to do said that it had nothing to do, and was taken for ready.
    """
    async with bench() as made:
        made.thread.mark = None
        made.thread.commits[ZERO] = 400
        await made.own(ZERO)

        assert made.consumer.lag() == {ZERO: 600}


async def test_a_fetch_of_a_former_generation_is_dropped():
    """
    It stands where the former owner stood; delivered now, it would come before what lies before it. And a seek in the
    middle of a fetch is undone by what the fetch then returns.
    """
    async with bench() as made:
        await made.own(ZERO)
        made.log(ZERO, 0, 1)
        made.thread.fetching.clear()
        delivering = asyncio.create_task(made.consumer.owned.deliver_next())
        await idle()
        await made.assign(ZERO, generation=2)
        await idle()
        assert len(made.thread.seeks) == 1

        made.thread.fetching.set()
        await delivering
        await until(lambda: len(made.thread.seeks) == 2)

        assert made.delivered == []


async def test_the_rest_of_a_fetch_is_dropped_when_the_generation_changes():
    """
    Its first part waited to be delivered, and meanwhile its second part was given away and taken over again.
    """
    async with bench() as made:
        await made.own(ZERO, ONE)
        made.log(ZERO, 0)
        made.log(ONE, 0)
        made.delivering.clear()
        delivering = asyncio.create_task(made.consumer.owned.deliver_next())
        await idle()
        await made.own(ZERO, ONE, generation=2)
        made.delivering.set()
        await delivering

        assert made.offsets() == [(0, [0])]
        assert made.delivered[0].generation_id == 1
        assert made.consumer.owned.outstanding(ZERO) == made.consumer.owned.outstanding(ONE) == 0


async def test_a_hole_in_the_log_is_passed():
    """
    Compaction and transactions leave some.
    """
    async with bench() as made:
        await made.own(ZERO)
        made.log(ZERO, 7, 9)
        await made.consumer.owned.deliver_next()

        assert (made.offsets(), made.deaths) == ([(0, [7, 9])], [])


async def test_records_that_were_deleted_unread_end_the_worker():
    """
    Retention was shorter than the worker's absence: events are lost, and somebody must know which.
    """
    async with bench() as made:
        await made.own(ZERO)
        made.thread.starts[ZERO] = 7
        made.log(ZERO, 7)
        await made.consumer.owned.deliver_next()

        assert "read up to offset 0, but the broker has deleted everything before 7" in made.deaths[0]


async def test_a_commit_below_the_logs_start_ends_the_worker():
    """
    The topic was made anew: everything in it would pass for a replay.
    """
    async with bench() as made:
        made.thread.commits[ZERO], made.thread.starts[ZERO] = 3, 5
        await made.own(ZERO)

        assert "committed at offset 3, but the broker's log starts at 5" in made.deaths[0]


async def test_a_run_whose_partition_goes_during_the_question_about_a_hole_is_dropped():
    """
    It was noted for the new generation and never finished: its partition was never committed again.
    """
    async with bench() as made:
        await made.own(ZERO)
        made.log(ZERO, 7)
        made.thread.telling.clear()
        delivering = asyncio.create_task(made.consumer.owned.deliver_next())
        await idle()
        assert not delivering.done()

        await made.consumer.on_partitions_revoked({ZERO})
        made.thread.telling.set()
        await made.own(ZERO, generation=2)
        await delivering

        assert made.delivered == []
        assert made.consumer.owned.outstanding(ZERO) == 0


async def test_partitions_are_given_away_settled_and_committed():
    """
    What is finished and not committed is done again by the next owner.
    """
    async with bench() as made:
        await made.own(ZERO)
        made.log(ZERO, 0)
        await made.consumer.owned.deliver_next()
        made.consumer.finish(made.delivered[0])

        await made.consumer.on_partitions_revoked({ZERO})

        assert made.owner.told == ["taken over", "settled", "given away"]
        assert made.thread.commits == {ZERO: 1}
        assert (made.consumer.ready_partitions, made.consumer.flow_active) == (frozenset(), False)
        made.consumer.finish(made.delivered[0])
        assert not await made.consumer.commit()


async def test_partitions_are_given_away_in_time_whatever_does_not_settle():
    """
    Faust waits a second time, without a bound: while the record was down, the member was expelled and died.
    """
    async with bench(rebalance_timeout_s=0.1) as made:
        await made.own(ZERO)
        made.owner.settled.clear()

        await asyncio.wait_for(made.consumer.on_partitions_revoked({ZERO}), timeout=5)

        assert made.owner.told == ["taken over", "given away"]
        await asyncio.wait_for(made.consumer.wait_empty(), timeout=5)


@pytest.mark.parametrize(("buffer", "runs"), [(4096, RUNS_PER_PARTITION), (10, 5), (1, 1)])
async def test_runs_never_fill_a_streams_queue(buffer, runs):
    """
    Faust empties a full queue at a rebalance without waking whoever waits to put into it: nothing was read again.
    """
    async with bench(buffer=buffer) as made:
        await made.own(ZERO, ONE)
        for offset in range(runs + 2):
            made.log(ZERO, offset)
            await made.consumer.owned.deliver_next()

        assert len(made.delivered) == runs
        made.consumer.finish(made.delivered[0])
        await made.consumer.owned.deliver_next()
        assert len(made.delivered) == runs + 1


async def test_a_producer_is_idempotent_and_waits_for_every_replica():
    """
    Without either a retry doubles or a failing leader loses (PROTOCOL, P1).
    """
    async with bench() as made:
        producer = made.app.transport.create_producer()

        settings = {**producer._settings_default(), **producer._settings_extra()}

        assert (settings["acks"], settings["enable_idempotence"]) == ("all", True)


async def test_a_commit_beyond_the_end_of_the_log_ends_the_worker():
    """
    The topic was made anew: read on from its beginning, every event would pass for a replay of the old one.
    """
    async with bench() as made:
        made.thread.commits[ZERO], made.thread.ends[ZERO] = 17, 4
        await made.own(ZERO)

        assert "committed at offset 17, but the broker's log ends at 4" in made.deaths[0]


@pytest.mark.parametrize(("has_state", "start", "ends"), [(True, 5, True), (False, 5, False), (True, 0, False)])
async def test_offsets_that_the_broker_has_dropped_end_the_worker_only_if_events_may_be_lost(has_state, start, ends):
    """
    Nothing ran for two weeks: Kafka forgets such a group's offsets, and a beginning that has moved on looked like that
    of a topic which was never read. A new group may begin there.
    """
    async with bench() as made:
        made.owner.has_state, made.thread.starts[ONE] = has_state, start
        await made.own(ZERO, ONE)

        assert ["deleted everything before 5" in death for death in made.deaths] == [True] * ends


async def test_a_send_that_never_ends_does_not_hold_up_a_rebalance():
    """
    A partition's leader was behind a network that swallows: the flush that Faust asks for when partitions are given away
    waited for it beyond the rebalance, and the worker was expelled with everything that it owned.
    """
    async with bench() as made:
        producer = made.app.transport.create_producer()
        producer._producer = SimpleNamespace(flush=asyncio.Event().wait)

        await asyncio.wait_for(producer.flush(), timeout=5)


@pytest.mark.parametrize("stops", [True, False])
async def test_a_stop_in_the_middle_of_a_rebalance_is_no_crash(stops):
    """
    Faust restarts what was cancelled in a rebalance; where the worker was asked to stop, it ended with a trace and a
    status as if it had failed. Found by the torture.
    """
    async with bench() as made:
        await made.own(ZERO)
        made.thread.fetching.clear()
        draining = asyncio.create_task(made.consumer._drain_messages(SimpleNamespace(should_stop=False)))
        await idle()
        if stops:
            made.app._stopped.set()
        draining.cancel()

        (ended,) = await asyncio.gather(draining, return_exceptions=True)

        assert isinstance(ended, asyncio.CancelledError) is not stops
        made.thread.fetching.set()


async def test_a_connection_that_was_reset_is_told_as_such():
    """
    What uvloop says of it is its own; aiokafka's producer ended for good, and with it the worker, at a broken
    connection [found by the torture].
    """

    class Client:
        async def send(self, node_id, request, *, group=0):
            raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    client = Client()
    tell_resets(client)

    with pytest.raises(KafkaConnectionError, match="handler is closed"):
        await client.send(1, object(), group=1)


async def test_a_send_whose_partition_has_no_leader_waits_for_one():
    """
    After 20 s, in which its only replica's broker had not started again, it was given up, and the worker ended.
    """
    zero = TopicPartition("t", 0)
    producer = AIOKafkaProducer(request_timeout_ms=1)
    producer.client.cluster.leader_for_partition = lambda _tp: -1
    wait_for_leaders(producer)

    acknowledgement = await producer._message_accumulator.add_message(zero, None, b"x", 1)
    await asyncio.sleep(0.01)
    producer._message_accumulator.drain_by_nodes(ignore_nodes=())

    assert not acknowledgement.done()
    producer._closed = True


async def test_a_commit_that_moves_on_during_a_take_over_is_no_loss():
    """
    The answer about a slow worker's commits came late, and its successors had written and committed more by then: the
    worker ended and told its operator that the topic was made anew [found by the simulation of the pipeline].
    """
    async with bench() as made:
        made.thread.ends[ZERO] = 4

        async def committed_late(_tp):
            made.thread.ends[ZERO] = 17
            return 17

        made.thread.committed = committed_late
        await made.own(ZERO)

        assert made.deaths == []


async def test_a_worker_that_is_stopped_leaves_its_group():
    """
    It was a static member: for the rest of its session nobody read its partitions, although it had settled everything.
    """
    async with bench() as made:
        coordinator = SimpleNamespace(_group_instance_id="worker-1")
        made.thread._consumer = SimpleNamespace(_coordinator=coordinator)

        await made.consumer.on_stop()

        assert coordinator._group_instance_id is None


async def test_a_worker_that_is_stopped_takes_nothing_over_any_more():
    """
    Its stores are closed by then: the take-over failed, and a stop that was asked for ended as a crash.
    """
    async with bench() as made:
        made.owner.restored.clear()
        await made.assign(TP("clicks", 0))
        await idle()

        await made.consumer.on_stop()
        made.owner.restored.set()
        await idle()

        assert "taken over" not in made.owner.told
        assert not made.consumer.ready_partitions
