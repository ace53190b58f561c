"""The partitions that a worker owns: from where they are read, up to where they are committed (PROTOCOL, P9).

1. A partition is read only after it was taken over: its state restored and its committed offset sought, by us.
2. Seeks and fetches exclude each other; what a fetch returns after a change of generation is dropped whole.
3. The commit position follows a queue of deliveries (``core.offsets``).
4. Before partitions are given away, running work settles and is committed, within half of the rebalance time.

Nothing here knows Faust: ``agents.transport`` gives it Faust's consumer, the simulation in ``tests/simulation`` gives
it a broker whose every answer is drawn.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from aiokafka import TopicPartition

from agents.fence import Fence
from agents.guard import die as end_process
from agents.guard import guarded
from core.offsets import Delivery, OwnedOffsets

log = logging.getLogger(__name__)

RUNS_PER_PARTITION = 128
"""Runs of a partition that may be handed out and unfinished: then it is not polled, so that runs grow instead.

Many, because runs wait together for one flush and are no queue, and because a broker may give few records at a time;
those that have waited for one flush and wait for another, of a group that is written seldom, are one from then on. What
waits to be published is bounded by the publisher, in updates."""

_BLOCKED_S = 0.002


class Ownership(Protocol):
    """What happens to a worker's state when partitions come and go."""

    async def settle(self) -> None:
        """Finish everything that was taken from a run, durably. Called before partitions are given away and at stop."""
        ...

    def given_away(self) -> None:
        """Drop all state: nothing is owned from here on."""
        ...

    async def take_over(self, committed: Mapping[TopicPartition, int], assigned: set[TopicPartition]) -> None:
        """Restore the state of assigned partitions; they are read from the committed offsets on when this returns."""
        ...

    @property
    def has_state(self) -> bool:
        """Whether anything was ever applied to what is owned."""
        ...


class GroupClient(Protocol):
    """A member of a consumer group, as far as the owner of partitions needs it."""

    @property
    def generation(self) -> int:
        """The generation that the member is in now."""
        ...

    @property
    def is_flowing(self) -> bool:
        """Whether runs may be handed on."""
        ...

    async def wait_flowing(self) -> None:
        """Wait until runs may be handed on, or until the member stops."""
        ...

    def stop_flow(self) -> None:
        """Hand nothing on any more, and forget what was handed on and not begun."""
        ...

    async def fetch(self, partitions: set[TopicPartition]) -> Mapping[TopicPartition, Sequence[Any]]:
        """Return the next records of some of the partitions, or nothing after a moment."""
        ...

    async def hand_on(self, delivery: Delivery[TopicPartition], run: Sequence[Any], generation: int) -> None:
        """Hand a run of records to the agents."""
        ...

    async def starts(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the first offset that the broker still has of each partition."""
        ...

    async def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the offset after the last record of each partition."""
        ...

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the group's committed offsets; a partition without one is absent."""
        ...

    async def commit(self, positions: dict[TopicPartition, int]) -> bool:
        """Commit offsets; return whether the coordinator has taken them."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Let the next fetch of a partition begin at an offset."""
        ...


class OwnedPartitions:
    """Delivers runs of the partitions that one worker owns, and owns their offsets.

    Attributes:
        ready: Partitions that were taken over and are being read.
        committed_at: When everything that was finished was last known to be committed, on the monotonic clock.
        ends: Where each partition ended when it was taken over.
    """

    def __init__(
        self,
        client: GroupClient,
        *,
        ownership: Ownership,
        fence: Fence,
        queue_max: int,
        settle_s: float,
        die: Callable[[str], None] = end_process,
        monotonic: Callable[[], float] = time.monotonic,
        blocked_s: float = _BLOCKED_S,
    ) -> None:
        """Begin without partitions.

        Args:
            client: The member of the group.
            ownership: Told of what comes and goes.
            fence: Told whether anything is owned.
            queue_max: How many runs fit between the client and the agents, over all partitions.
            settle_s: How long giving away may wait for what runs; half of the rebalance time.
            die: Ends the process.
            monotonic: Tells the time in seconds.
            blocked_s: How long to wait before looking again while no partition may be read.
        """
        self._client = client
        self._ownership = ownership
        self._fence = fence
        self._queue_max = queue_max
        self._settle_s = settle_s
        self._die = die
        self._monotonic = monotonic
        self._blocked_s = blocked_s
        self.ready: set[TopicPartition] = set()
        self.ends: dict[TopicPartition, int] = {}
        self.committed_at = monotonic()
        self._owned = OwnedOffsets[TopicPartition]()
        self._expected: dict[TopicPartition, int] = {}
        self._io = asyncio.Lock()
        self._committing = asyncio.Lock()
        self._taking_over: asyncio.Task[None] | None = None

    # -- delivery

    async def deliver_next(self) -> None:
        """Fetch once, and hand on what came."""
        if not self._client.is_flowing:
            await self._client.wait_flowing()
            return
        runs_max = self._runs_max()
        wanted = {tp for tp in self.ready if self._owned.outstanding(tp) < runs_max}
        if not wanted:
            await asyncio.sleep(self._blocked_s)
            return
        generation = self._client.generation
        async with self._io:
            runs = await self._client.fetch(wanted)
        for tp, run in runs.items():
            if generation != self._client.generation or not self._client.is_flowing:
                return
            if run and tp in self.ready:
                await self._deliver(tp, run, generation)

    def finish(self, delivery: Delivery[TopicPartition]) -> None:
        """Note that everything in a run is durable."""
        self._owned.finish(delivery)

    def join(self, first: Delivery[TopicPartition], second: Delivery[TopicPartition]) -> None:
        """Make two neighbouring runs of a partition one: the first is finished with the second."""
        self._owned.join(first, second)

    def finished(self, tp: TopicPartition) -> int:
        """Return the offset up to which a partition is finished."""
        return self._owned.finished(tp, default=self._expected.get(tp, 0))

    def outstanding(self, tp: TopicPartition) -> int:
        """Return how many runs of a partition are handed on and not finished."""
        return self._owned.outstanding(tp)

    def _runs_max(self) -> int:
        """Return how many runs of a partition fit into the agents' queue beside those of all others.

        A queue that is full would block the delivery, and Faust's way to empty it at a rebalance wakes nobody up.
        """
        return max(min(RUNS_PER_PARTITION, self._queue_max // max(len(self.ready), 1)), 1)

    async def _deliver(self, tp: TopicPartition, run: Sequence[Any], generation: int) -> None:
        if run[0].offset < self._expected[tp]:
            # aiokafka begins anew where an offset is out of range; the rows' stamps would take all of it for a replay.
            self._die(
                f"{tp.topic}[{tp.partition}] was read up to offset {self._expected[tp]} and goes on at {run[0].offset}"
                f": the topic was made anew, or its tail is lost; see docs/how-to/recover.md"
            )
        if run[0].offset > self._expected[tp]:
            await self._explain_gap(tp, run[0].offset)
            if generation != self._client.generation or tp not in self.ready:
                # Given away during the question; a delivery noted now would never be finished, nor any after it.
                return
        end = run[-1].offset + 1
        self._expected[tp] = end
        await self._client.hand_on(self._owned.deliver(tp, end, len(run)), run, generation)

    async def _explain_gap(self, tp: TopicPartition, found: int) -> None:
        """Tell holes that a log may have (compaction, transactions) from records that were deleted unread."""
        start = (await self._client.starts([tp]))[tp]
        if start > self._expected[tp]:
            self._die(
                f"{tp.topic}[{tp.partition}] was read up to offset {self._expected[tp]}, but the broker has deleted "
                f"everything before {start}: events are lost; read on from {found} only after you know which"
            )

    # -- offsets

    async def commit(self) -> bool:
        """Commit what is finished; a commit that fails moves nothing and is tried again."""
        async with self._committing:
            positions = self._owned.positions()
            if not positions:
                if not self._owned.any_outstanding:
                    self.committed_at = self._monotonic()
                return False
            if await self._client.commit(positions):
                self._owned.committed(positions)
                self.committed_at = self._monotonic()
                return True
            log.warning("commit refused", extra={"partitions": len(positions)})
            return False

    async def settle(self) -> None:
        """Settle and commit, as far as half of the rebalance time allows: a store may be down."""
        try:
            async with asyncio.timeout(self._settle_s):
                await self._ownership.settle()
                await self.commit()
        except TimeoutError:
            log.warning("partitions given away uncommitted", extra={"waited_s": self._settle_s})

    # -- coming and going

    async def release(self, revoked: Collection[TopicPartition]) -> None:
        """Read nothing any more; settle and commit what runs."""
        self.stop_taking_over()
        self.ready.clear()
        if revoked:
            self._client.stop_flow()
            await self.settle()

    def released(self) -> None:
        """Let everything go."""
        self._owned.forget()
        self._fence.owns(anything=False)
        self._ownership.given_away()

    def forget(self) -> None:
        """Forget what was owned: an assignment begins."""
        self.stop_taking_over()
        self.ready.clear()
        self._owned.forget()

    def assign(self, assigned: set[TopicPartition], generation: int, *, stopping: bool) -> None:
        """Take partitions over, beside the group protocol, which must not wait for it."""
        self._fence.owns(anything=bool(assigned))
        if assigned and not stopping:
            work = guarded(self._take_over(assigned, generation), what="take-over of partitions", end=self._die)
            self._taking_over = asyncio.get_running_loop().create_task(work)

    def stop_taking_over(self) -> None:
        """Take nothing over any more."""
        if self._taking_over is not None:
            self._taking_over.cancel()
            self._taking_over = None

    async def _take_over(self, assigned: set[TopicPartition], generation: int) -> None:
        # The ends last: whoever owns the partitions meanwhile may commit beyond ends that were asked for before.
        starts, committed = await self._client.starts(assigned), await self._client.committed(assigned)
        ends = await self._client.ends(assigned)
        for tp, offset in committed.items():
            if offset < starts[tp]:
                self._die(
                    f"{tp.topic}[{tp.partition}] was committed at offset {offset}, but the broker's log starts at "
                    f"{starts[tp]}: events are lost, or the topic was made anew; see docs/how-to/recover.md"
                )
            if offset > ends[tp]:
                self._die(
                    f"{tp.topic}[{tp.partition}] was committed at offset {offset}, but the broker's log ends at "
                    f"{ends[tp]}: the topic was made anew, or its tail is lost; see docs/how-to/recover.md"
                )
        await self._ownership.take_over(committed, assigned)
        hole = next((tp for tp in sorted(assigned) if starts[tp] > 0), None)
        if not committed and hole is not None and self._ownership.has_state:
            # Kafka drops the offsets of a group that was away for long, and a log's beginning moves on meanwhile.
            self._die(
                f"the group has committed nothing of {hole.topic}[{hole.partition}] and others although their "
                f"events were applied before, and the broker has deleted everything before {starts[hole]}: where to "
                f"read on is not known any more; see docs/how-to/recover.md"
            )
        begin = {tp: committed.get(tp, starts[tp]) for tp in assigned}
        async with self._io:
            if generation != self._client.generation:
                return
            for tp, offset in begin.items():
                self._client.seek(tp, offset)
            self._expected, self.ends = dict(begin), dict(ends)
            self.ready = set(assigned)
        log.info("partitions taken over", extra={"partitions": len(assigned), "generation": generation})
