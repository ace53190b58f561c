"""An aggregator with its publisher between fakes that write down, in one list, who was asked for what."""

import asyncio
from contextlib import asynccontextmanager

from aiokafka import TopicPartition
from pydantic import BaseModel

from agents.aggregate import Aggregator
from agents.cache_debt import CacheDebt
from agents.publish import Publisher
from core.definitions import Count, Entity, FeatureGroup, Registry, Source, WritePolicy, aggregate
from core.metrics import Metrics
from core.offsets import Delivery, OwnedOffsets
from core.packs import pack_bytes
from core.plans import plan_group
from core.ports import RowKey
from core.topics import changelog_topic, repartition_topic
from core.versions import version_of
from core.windows import hours, milliseconds
from tables.changelog import ChangelogWriter
from tables.owned import OwnedTables
from tables.table import GroupTable, TablePartition
from tests.clock import ManualClock
from tests.engines import open_present_engine, present_engine
from tests.fakes import FakeProducer, Record, Run, ToldChangelogs, ToldStore
from tests.packed import empty_pack

NOW_MS = 1_700_000_000_000
HELD_MS = 1_000
LIFETIME_MS = 3_600_000


class Click(BaseModel):
    id: str
    at: int
    user: int


USER = Entity("user", keys=("user",), partitions=2)
CLICKS = Source("clicks", Click, event_time="at", event_id="id", dedupe_ids_max=10_000)
TAPS = Source("taps", Click, event_time="at", event_id=None)
AT_ONCE, HOURLY = milliseconds(0), hours(1)


def group(name, *sources, writing) -> FeatureGroup:
    features = tuple(aggregate(source.topic, source, Count(), over=(hours(1),)) for source in sources)
    return FeatureGroup(name, entity=USER, owner="o", features=features, writing=writing)


REGISTRY = Registry(
    (
        group("fast", CLICKS, TAPS, writing=WritePolicy.through(every=AT_ONCE)),
        group("slow", CLICKS, writing=WritePolicy.through(every=HOURLY)),
        group("around", TAPS, writing=WritePolicy.around(every=AT_ONCE)),
    )
)
PLANS = {name.name: plan_group(name) for name in REGISTRY.groups}
TOPIC, CHANGELOG = repartition_topic("user"), changelog_topic("user")
FAST, SLOW, AROUND = "fast@v1", "slow@v1", "around@v1"


def clicks(offset, *users, source=CLICKS, partition=0) -> Run:
    """A run of one record with an event per user; its place in the repartition topic is its place in the source."""
    pack = empty_pack(source.topic, "", partition, [])
    for number, user in enumerate(users or (1,)):
        place = 100_000 * offset + number
        pack.offsets.append(place)
        pack.record_times.append(NOW_MS + offset)
        pack.event_times.append(NOW_MS)
        pack.event_ids.append(f"{partition}/{place}")
        pack.checks.append(0)
        pack.keys.append(f"i{user}")
    return Run(TOPIC, partition, [Record(TOPIC, partition, offset, NOW_MS, None, pack_bytes(pack))])


def taps(offset, *users, partition=0) -> Run:
    return clicks(offset, *users, source=TAPS, partition=partition)


def new_table() -> TablePartition:
    """An empty table of the first partition."""
    groups = [GroupTable(PLANS[group.name], 1, present_engine()) for group in REGISTRY.groups]
    return TablePartition("user", 0, groups, [CLICKS, TAPS])


class Bench:
    """An aggregator with its publisher between fakes that write down who was asked for what, in one list.

    Attributes:
        told: Names of the changelog topic, ``record`` and ``cache`` with what was written, ``announced``, ``finished``.
        offsets: What was finished of the runs that have a place in ``deliveries``, by their ids.
    """

    def __init__(self, *, held=False) -> None:
        self.told: list[tuple] = []
        self.offsets = OwnedOffsets[str]()
        self.deliveries: dict[int, Delivery[str]] = {}
        self._joined: dict[int, list[Run]] = {}
        self.clock = ManualClock(2 * NOW_MS)
        self.producer = FakeProducer(held=held, told=self.told)
        self.record, self.cache = ToldStore("record", self.told), ToldStore("cache", self.told)
        self.changelog = ChangelogWriter(lambda: self.producer)
        self.tables = OwnedTables(
            REGISTRY,
            PLANS,
            dict.fromkeys(PLANS, 1),
            reader=ToldChangelogs(),
            changelog=self.changelog,
            open_engine=open_present_engine,
        )
        self.metrics = Metrics()
        self.debt = CacheDebt(
            self.cache, self.record, Metrics(), ManualClock(NOW_MS), lifetimes={FAST: LIFETIME_MS, SLOW: LIFETIME_MS}
        )
        self.publisher = Publisher(
            self.tables,
            changelog=self.changelog,
            record=self.record,
            cache=self.debt,
            finish=self._finish,
            join=self._join,
            announce=lambda rows: self.told.append(("announced", tuple(rows))),
            metrics=Metrics(),
            clock=self.clock,
        )
        self.aggregator = Aggregator(
            self.tables, self.publisher, self.metrics, producer=lambda: self.producer, full_retry_s=0
        )
        self.take = self.aggregator.take

    async def own(self) -> None:
        await self.tables.take_over({}, {TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)})

    def give_away(self) -> None:
        self.tables.drop()
        self.publisher.given_away()
        self.debt.given_away()

    def _finish(self, run: Run) -> None:
        for one in self._joined.pop(id(run), ()):
            self._finish(one)
        self.told.append(("finished", run))
        if (delivery := self.deliveries.get(id(run))) is not None:
            self.offsets.finish(delivery)

    def _join(self, first: Run, second: Run) -> None:
        self._joined.setdefault(id(second), []).append(first)
        if self.deliveries:
            self.offsets.join(self.deliveries[id(first)], self.deliveries[id(second)])

    @property
    def finished(self) -> list[Run]:
        return [run for what, run in self.told if what == "finished"]

    @property
    def announced(self) -> list[tuple]:
        return [rows for what, rows in self.told if what == "announced"]

    def rows(self, what) -> list[tuple[str, int]]:
        """Group and version of what a store took, in order, without what is known of whole partitions."""
        return [
            (row.key.sk, row.ver)
            for told, rows in self.told
            if told == what
            for row in rows
            if not row.key.sk.startswith("#")
        ]

    def rows_of(self, key: RowKey) -> list[int]:
        """Versions of one row that the record took, in order."""
        return [row.ver for told, rows in self.told if told == "record" for row in rows if row.key == key]

    def acknowledge(self) -> None:
        for sent in self.producer.sent:
            if not sent.future.done():
                sent.acknowledge()

    async def stored(self, user=1, sk=FAST, *, store=None) -> int | None:
        key = RowKey(f"user#i{user}", sk)
        found = await (store or self.record).read([key], deadline_ms=HELD_MS)
        return version_of(found[key]) if key in found else None


@asynccontextmanager
async def bench(*, held=False):
    made = Bench(held=held)
    await made.own()
    task = asyncio.create_task(made.publisher.run())
    yield made
    task.cancel()
    assert isinstance(*await asyncio.gather(task, return_exceptions=True), asyncio.CancelledError)
