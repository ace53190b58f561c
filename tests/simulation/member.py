"""A worker's part in its consumer group, as Faust and aiokafka play it around ``OwnedPartitions``."""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast

from aiokafka import TopicPartition
from typing_extensions import override

from agents.fence import Fence
from agents.owned_partitions import GroupClient, OwnedPartitions
from core.offsets import Delivery
from tests.simulation.broker import Broker, Entry
from tests.simulation.group import OK, REBALANCE_S, REBALANCING, Group
from tests.simulation.network import LostError, Network

_HEARTBEAT_S = 1.6
_REQUEST_S = 5.0
_COMMIT_S = 1.0
_FETCH_WAIT_S = 3.0
_FETCH_RECORDS = 7


class HeartbeatRequest(NamedTuple):
    """Named as aiokafka names it: the fence looks at the name."""

    generation: int


class OffsetCommitRequest(NamedTuple):
    """Named as aiokafka names it."""

    generation: int
    offsets: dict[TopicPartition, int]


class SyncGroupRequest(NamedTuple):
    """Named as aiokafka names it."""

    generation: int


class SyncGroupAnswer(NamedTuple):
    """What a member has."""

    error_code: int
    assigned: list[TopicPartition]


class HeartbeatAnswer(NamedTuple):
    """A heartbeat's answer."""

    error_code: int


class OffsetCommitAnswer(NamedTuple):
    """A commit's answer, shaped as aiokafka's."""

    topics: list[tuple[str, list[tuple[int, int]]]]


class Message(NamedTuple):
    """A run as the agents get it."""

    topic: str
    partition: int
    offset: int
    value: Sequence[Entry]
    delivery: Delivery[TopicPartition]
    generation_id: int


class _Coordinator:
    """The way to the coordinator, where the fence observes what comes back."""

    def __init__(self, group: Group, network: Network, name: str) -> None:
        self._group, self._network, self._name = group, network, name

    async def _send_req(self, request: HeartbeatRequest | OffsetCommitRequest | SyncGroupRequest) -> Any:
        group, name = self._group, self._name
        if isinstance(request, SyncGroupRequest):
            told = await self._network.ask(
                "coordinator", lambda: group.sync(name, request.generation), timeout_s=_REQUEST_S
            )
            return SyncGroupAnswer(*told)
        if isinstance(request, HeartbeatRequest):
            code = await self._network.ask(
                "coordinator", lambda: group.heartbeat(name, request.generation), timeout_s=_REQUEST_S
            )
            return HeartbeatAnswer(code)
        code = await self._network.ask(
            "coordinator",
            lambda: group.commit(name, request.generation, request.offsets),
            timeout_s=_REQUEST_S,
        )
        return OffsetCommitAnswer([(tp.topic, [(tp.partition, code)]) for tp in request.offsets])


class Client(GroupClient):
    """What ``OwnedPartitions`` sees of the group and the broker.

    Attributes:
        queues: Runs that are handed on, by the agent that takes them.
    """

    def __init__(self, broker: Broker, group: Group, network: Network, name: str, agent_of: Mapping[str, str]) -> None:
        self._broker, self._group, self._network = broker, group, network
        self.coordinator = _Coordinator(group, network, name)
        self.queues: dict[str, asyncio.Queue[Message]] = {agent: asyncio.Queue() for agent in set(agent_of.values())}
        self._agent_of = agent_of
        self._generation = 0
        self._flows = asyncio.Event()
        self._positions: dict[TopicPartition, int] = {}

    @property
    @override
    def generation(self) -> int:
        return self._generation

    @property
    @override
    def is_flowing(self) -> bool:
        return self._flows.is_set()

    def begin(self, generation: int) -> None:
        """Be in a generation, and let runs flow."""
        self._generation = generation
        self._flows.set()
        self._broker.wake(self)

    @override
    async def wait_flowing(self) -> None:
        await self._flows.wait()

    @override
    def stop_flow(self) -> None:
        self._flows.clear()
        self._broker.wake(self)
        for queue in self.queues.values():
            cast("deque[Message]", queue._queue).clear()  # type: ignore[attr-defined]  # as Faust does

    @override
    async def fetch(self, partitions: set[TopicPartition]) -> Mapping[TopicPartition, Sequence[Any]]:
        found = self._look(partitions)
        if not found:
            await self._broker.wait_for(self, frozenset(partitions), _FETCH_WAIT_S)
            found = self._look(partitions)
        self._positions.update({tp: run[-1].offset + 1 for tp, run in found.items()})
        return found

    def _look(self, partitions: set[TopicPartition]) -> dict[TopicPartition, list[Entry]]:
        if self._network.is_cut("broker"):
            return {}
        found = {}
        for tp in sorted(partitions):
            log, start = self._broker.logs[tp], self._positions[tp]
            if start < log.end:
                size = self._network.chance.randint(1, _FETCH_RECORDS)
                run = log.between(start, min(log.end, start + size))
                if run:
                    found[tp] = run
        return found

    @override
    async def hand_on(self, delivery: Delivery[TopicPartition], run: Sequence[Any], generation: int) -> None:
        tp = delivery.partition
        message = Message(tp.topic, tp.partition, run[-1].offset, run, delivery, generation)
        self.queues[self._agent_of[tp.topic]].put_nowait(message)

    @override
    async def starts(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    @override
    async def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return await self._insist("broker", lambda: {tp: self._broker.logs[tp].end for tp in partitions})

    @override
    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        known = self._group.committed
        return await self._insist("coordinator", lambda: {tp: known[tp] for tp in partitions if tp in known})

    async def _insist(self, service: str, serve: Any) -> Any:
        while True:
            try:
                return await self._network.ask(service, serve, timeout_s=_REQUEST_S)
            except LostError:
                continue

    @override
    async def commit(self, positions: dict[TopicPartition, int]) -> bool:
        try:
            answer = await self.coordinator._send_req(OffsetCommitRequest(self._generation, dict(positions)))
        except LostError:
            return False
        return all(code == OK for _, partitions in answer.topics for _, code in partitions)

    @override
    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset


class Member:
    """Joins, beats, commits, and lets partitions come and go."""

    def __init__(
        self, client: Client, owned: OwnedPartitions, fence: Fence, group: Group, network: Network, *,
        name: str, instance: str,
    ) -> None:  # fmt: skip
        self._client, self._owned, self._fence = client, owned, fence
        self._group, self._network = group, network
        self._name, self._instance = name, instance
        self._must_rejoin = asyncio.Event()
        self._leaving = False
        self._generation = 0
        fence.watch_coordinator(client.coordinator)

    async def run(self) -> None:
        """Be a member until told to leave."""
        while True:
            joined = await self._join()
            if joined is None:
                continue
            self._generation, assigned = joined
            if not self._leaving:
                self._must_rejoin.clear()
            self._owned.forget()
            self._client.begin(self._generation)
            # In the order of the assignment, whatever the process' hashes are.
            mine = cast("set[TopicPartition]", dict.fromkeys(assigned).keys())
            self._owned.assign(mine, self._generation, stopping=self._leaving)
            await self._must_rejoin.wait()
            await self._owned.release(mine)
            self._owned.released()
            if self._leaving:
                # A lost request does no harm: the session ends by itself.
                self._network.loop.later(0.01, self._group.leave, self._name)
                return

    def leave(self) -> None:
        """Give everything away in order, and go."""
        self._leaving = True
        self._must_rejoin.set()

    async def beat(self) -> None:
        """Tell the coordinator that we live, for ever, and hear what it says."""
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            if not self._generation:
                continue
            try:
                answer = await self._client.coordinator._send_req(HeartbeatRequest(self._generation))
            except LostError:
                continue
            if answer.error_code != OK:
                # An expelled member that owns nothing joins anew; one that owns something was ended by the fence.
                self._must_rejoin.set()

    async def commit(self) -> None:
        """Commit what is finished, for ever."""
        while True:
            await asyncio.sleep(_COMMIT_S)
            await self._owned.commit()

    async def deliver(self) -> None:
        """Fetch and hand on, for ever."""
        while True:
            await self._owned.deliver_next()

    async def _join(self) -> tuple[int, list[TopicPartition]] | None:
        """Return the generation that has begun and what we have in it, or None if it has to be tried again."""
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        arrived: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        loop, group = self._network.loop, self._group

        def come_back(told: "asyncio.Future[int]") -> None:
            if not arrived.done() and not told.cancelled():
                arrived.set_result(told.result())

        answer.add_done_callback(come_back)
        loop.later(0.01, group.join, self._name, self._instance, answer)
        try:
            async with asyncio.timeout(REBALANCE_S + _REQUEST_S):
                generation = await arrived
            told = await self._client.coordinator._send_req(SyncGroupRequest(generation))
        except (TimeoutError, LostError):
            return None
        return (generation, told.assigned) if told.error_code == OK else None


__all__ = ["REBALANCING", "Client", "Member", "Message"]
