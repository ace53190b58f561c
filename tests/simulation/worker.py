"""One worker process, built of the same classes as ``app/wiring.py`` builds it; only what is outside is simulated."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn, cast

from aiokafka import TopicPartition

from agents.aggregate import Aggregator
from agents.cache_debt import CacheDebt
from agents.decode import decoders_of
from agents.dispatch import Dispatcher
from agents.fence import Fence
from agents.guard import guarded
from agents.owned_partitions import OwnedPartitions
from agents.pipeline import Pipeline
from agents.publish import Publisher
from core.definitions import Registry
from core.metrics import Metrics
from core.plans import plan_group
from core.topics import repartition_topic, row_name
from core.windows import to_ms
from stores.memory import MemoryStore
from tables.changelog import ChangelogWriter
from tables.engine import Engine
from tables.mend import ChangelogMender
from tables.owned import OwnedTables
from tables.restore import ChangelogReader
from tests.chaos.domain import REGISTRY as CHAOS
from tests.simulation.broker import Broker
from tests.simulation.group import REBALANCE_S, SESSION_S, Group
from tests.simulation.log_reader import opener
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.member import Client, Member, Message
from tests.simulation.network import Network
from tests.simulation.producer import Producer
from tests.simulation.stores import SimulatedStore

START_MS = 1_700_000_000_000
PARTITIONS = 2
_BLOCKED_S = 0.5

REGISTRY = Registry(
    tuple(replace(group, entity=replace(group.entity, partitions=PARTITIONS)) for group in CHAOS.groups)
)
PLANS = {group.name: plan_group(group) for group in REGISTRY.groups}
SOURCES = list(REGISTRY.sources)
ENTITIES = {repartition_topic(name): name for name in REGISTRY.entities}
INPUTS = [TopicPartition(topic, partition) for topic in (*SOURCES, *ENTITIES) for partition in range(PARTITIONS)]
DECODERS = decoders_of(REGISTRY)
_AGENT_OF = dict.fromkeys(SOURCES, "dispatch") | dict.fromkeys(ENTITIES, "aggregate")
_LIFETIMES = {row_name(group.name, 1): to_ms(group.serving.hard_ttl) for group in REGISTRY.groups}


class Died(BaseException):
    """The process has ended where ``die`` was called."""


class _NoMetrics:
    """Metrics that nobody scrapes."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        setattr(self, name, _nothing)
        return _nothing


def _nothing(*_: Any, **__: Any) -> None: ...


METRICS = cast("Metrics", _NoMetrics())


class WallClock:
    """The clock of one machine: it runs as true time does, from another beginning, and may jump."""

    def __init__(self, loop: VirtualLoop, skew_ms: int) -> None:
        self._loop = loop
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        return START_MS + int(self._loop.time() * 1000) + self.skew_ms


@dataclass(frozen=True, slots=True)
class Outside:
    """What all workers share.

    Attributes:
        wrong: What must not happen and has happened.
        open_engine: Opens what keeps the tables of a take-over.
    """

    loop: VirtualLoop
    network: Network
    broker: Broker
    group: Group
    record: MemoryStore
    cache: MemoryStore
    wrong: list[str]
    open_engine: Callable[[], Awaitable[Engine]]


class Worker:
    """A process.

    Attributes:
        last_words: Why it has ended itself, if it has.
    """

    def __init__(self, outside: Outside, *, name: str, number: int, instance: str, clock: WallClock) -> None:
        self._outside = outside
        self.process = Process(name)
        self.last_words = ""
        loop, network, broker = outside.loop, outside.network, outside.broker
        self.fence = Fence(session_timeout_ms=int(SESSION_S * 1000), die=self._die, monotonic=loop.time)
        self.client = Client(broker, outside.group, network, name, _AGENT_OF)
        producer = Producer(broker, network, clock, number, on_send=self._check_send)
        self.fence.guard_sends(producer.sender)
        record = SimulatedStore("record", outside.record, network)
        cache = SimulatedStore("cache", outside.cache, network)
        writer = ChangelogWriter(lambda: producer)
        reader = ChangelogReader({}, open_log=opener(broker, network))
        self.tables = OwnedTables(
            REGISTRY, PLANS, dict.fromkeys(PLANS, 1), reader=reader, changelog=writer,
            open_engine=outside.open_engine,
        )  # fmt: skip
        self.debt = CacheDebt(cache, record, METRICS, clock, lifetimes=_LIFETIMES, wait_owner=self.fence.wait_open)
        self.publisher = Publisher(
            self.tables, changelog=writer, record=record, cache=self.debt, finish=self._finish, join=self._join, announce=_nothing,
            metrics=METRICS, clock=clock,
        )  # fmt: skip
        self._dispatcher = Dispatcher(
            DECODERS, producer=lambda: producer, finish=self._finish, metrics=METRICS, topic_ids={}
        )
        self.pipeline = Pipeline(
            dispatcher=self._dispatcher,
            aggregator=Aggregator(self.tables, self.publisher, METRICS, producer=lambda: producer),
            tables=self.tables,
            publisher=self.publisher,
            debt=self.debt,
            generation=lambda: self.client.generation,
            end=self._die,
        )
        self.owned = OwnedPartitions(
            self.client, ownership=self.pipeline, fence=self.fence, queue_max=4_096, settle_s=REBALANCE_S / 2,
            die=self._die, monotonic=loop.time, blocked_s=_BLOCKED_S,
        )  # fmt: skip
        self._mender = ChangelogMender(self.tables, writer, reader, touched=self.publisher.touch, die=self._die)
        self.member = Member(self.client, self.owned, self.fence, outside.group, network, name=name, instance=instance)

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or stands still and may run again."""
        return self.process.is_alive

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.debt.owed == 0 and not self.owned._owned.any_outstanding

    def start(self) -> None:
        """Start its tasks."""
        self._outside.loop.start(self.process, self._run())

    async def _run(self) -> None:
        member = self.member
        for what, work in (
            ("acknowledgement", self._dispatcher.acknowledge()),
            ("publication", self.publisher.run()),
            ("debt", self.debt.settle()),
            ("changelog", self._mender.run()),
            ("dispatch", self._agent("dispatch", self.pipeline.dispatch)),
            ("aggregate", self._agent("aggregate", self.pipeline.aggregate)),
            ("delivery", member.deliver()),
            ("commits", member.commit()),
            ("heartbeats", member.beat()),
        ):
            asyncio.get_running_loop().create_task(guarded(work, what=what, end=self._die))
        await guarded(member.run(), what="membership", end=self._die)
        # It has left in order.
        self._outside.loop.kill(self.process)

    async def _agent(self, name: str, take: Callable[[Any], Any]) -> None:
        queue = self.client.queues[name]
        while True:
            await take(await queue.get())

    def _check_send(self) -> None:
        """A send of one who owns something and whom the coordinator has given up may follow its successor's."""
        now, name = self._outside.loop.time(), self.process.name
        heard_at = self._outside.group.heard_at.get(name, 0.0)
        if self.owned.ready and now - heard_at > SESSION_S:
            self._outside.wrong.append(f"{name} sends at {now:.3f} s and was last heard of at {heard_at:.3f} s")

    def _finish(self, message: Message) -> None:
        self.owned.finish(message.delivery)

    def _join(self, first: Message, second: Message) -> None:
        self.owned.join(first.delivery, second.delivery)

    def _die(self, reason: str) -> NoReturn:
        if self.process.is_alive:
            self.last_words = reason
            self._outside.loop.kill(self.process)
        raise Died
