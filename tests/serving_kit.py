"""A feature server whose rows come the way of real events, without a broker between.

What the dispatcher sends is applied at once, frozen and written to memory stores; routes, planner, tiers are the real.
"""

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import orjson
from aiohttp import web
from pydantic import BaseModel
from typing_extensions import override

import features
from agents.decode import decoders_of
from agents.dispatch import Dispatcher
from core.definitions import (
    Count,
    Entity,
    FeatureGroup,
    FeatureService,
    Registry,
    ServingPolicy,
    Source,
    WritePolicy,
    aggregate,
    col,
    latest,
)
from core.errors import StoreError
from core.metrics import Metrics
from core.packs import unpack
from core.plans import plan_group
from core.ports import RowKey, Store, StoredRow
from core.progress import progress_row
from core.topics import DEAD_LETTERS, repartition_topic, row_name
from core.versions import version
from core.windows import hours
from features.videos import IMPRESSIONS, USER
from serving.answers.progress_board import ProgressBoard
from serving.answers.read_plans import Planner
from serving.answers.requests import BODY_BYTES_MAX
from serving.answers.server import FeatureServer
from serving.explain.explainer import Explainer
from serving.on_demand.functions import Functions
from serving.tiers.local import LocalCopies
from serving.tiers.reader import TieredReader
from serving.web.console import Console, console_routes
from serving.web.http import Routes
from serving.web.reads import Reads
from stores.memory import MemoryStore
from tables.apply import apply_pack
from tables.table import GroupTable, TablePartition, freeze
from tests.clock import ManualClock

NOW_MS = 1_700_000_000_000

_DEADLINE_MS = 1_000
_ids = count(1)


class Visit(BaseModel):
    event_id: str
    time_ms: int
    city: str
    note: str | None = None


CITY = Entity("city", keys=("city",))
VISITS = Source("visits", Visit, event_time="time_ms", event_id="event_id", lateness=hours(1))

USER_STATE = FeatureGroup(
    "user_state",
    entity=USER,
    owner="tests",
    features=(latest("last_tab", IMPRESSIONS, col("tab")), latest("last_ms", IMPRESSIONS, col("watch_ms"))),
    serving=ServingPolicy(max_age=hours(1)),
)
CITY_DIRECT = FeatureGroup(
    "city_direct",
    entity=CITY,
    owner="tests",
    features=(aggregate("visits", VISITS, Count(), over=(hours(1),)), latest("note", VISITS, col("note"))),
    serving=ServingPolicy(tier="direct"),
)
CITY_AROUND = FeatureGroup(
    "city_around",
    entity=CITY,
    owner="tests",
    features=(aggregate("visits", VISITS, Count(), over=(hours(1),)),),
    writing=WritePolicy.around(),
)
REGISTRY = Registry(
    groups=(*features.REGISTRY.groups, USER_STATE, CITY_DIRECT, CITY_AROUND),
    services=(
        *features.REGISTRY.services,
        FeatureService("cities", groups=(CITY_AROUND,), features=("city_direct:note",)),
    ),
)


class Record(NamedTuple):
    """A source record as a consumer hands it on."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes


class Run(NamedTuple):
    """A run of records."""

    topic: str
    partition: int
    value: Sequence[Record]


class FailingStore(Store):
    """A store that is down, or too slow: to a caller with a deadline both are an error."""

    def __init__(self, name: str, error: StoreError) -> None:
        self.name = name
        self.error = error

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        raise self.error

    @override
    async def write(self, rows: Sequence[StoredRow], *, deadline_ms: int) -> int:
        raise self.error

    @override
    async def close(self) -> None: ...


class _Health:
    """A worker that is well."""

    readable = True

    async def can_read(self) -> bool:
        return self.readable

    def ingest(self) -> dict[str, Any]:
        return {"ready": True, "partitions": 8}


class ServingKit:
    """Takes events, answers reads.

    Attributes:
        cache: May be replaced, as may ``record``, before ``web_app`` is called.
        local: Copies that a worker keeps; used if ``keeps_copies``.
        hears: Whether the worker is sure to own what it has copies of.
    """

    def __init__(
        self,
        clock: ManualClock,
        *,
        registry: Registry = REGISTRY,
        keeps_copies: bool = False,
        functions: Functions | None = None,
    ) -> None:
        self.clock = clock
        self._functions = functions
        self.registry = registry
        self.record: Store = MemoryStore(clock)
        self.cache: Store | None = MemoryStore(clock)
        self.record.name, self.cache.name = "record", "cache"
        self.metrics = Metrics()
        self.health = _Health()
        self.hears = True
        self.local = LocalCopies(bytes_max=1 << 20, is_announced=lambda _: keeps_copies)
        self.plans = {group.name: plan_group(group) for group in registry.groups}
        self.numbers = dict.fromkeys(self.plans, 1)
        self.buried: list[bytes] = []
        self._tables: dict[tuple[str, int], TablePartition] = {}
        self._offsets: dict[TablePartition, int] = {}
        self._source_offsets = count()
        self._keeps_copies = keeps_copies
        self._dispatcher = Dispatcher(
            decoders_of(registry),
            producer=lambda: self,
            finish=lambda _: None,
            metrics=self.metrics,
            topic_ids={},
        )

    # -- the way of an event

    async def take(self, topic: str, *events: dict[str, Any], record_time_ms: int | None = None) -> None:
        """Dispatch events, apply them, write the rows that changed; a record's time is the clock's by default."""
        at_ms = self.clock.now_ms() if record_time_ms is None else record_time_ms
        run = [Record(topic, 0, next(self._source_offsets), at_ms, None, orjson.dumps(event)) for event in events]
        await self._dispatcher.take(Run(topic, 0, run))
        await self._flush()

    async def send(self, topic: str, *, value: bytes, partition: int = 0, **_: Any) -> "asyncio.Future[None]":
        """Play the producer of the dispatcher: apply what it sends."""
        if topic == DEAD_LETTERS:
            self.buried.append(value)
        else:
            table = self._table(topic, partition)
            self._offsets[table] = self._offsets.get(table, -1) + 1
            apply_pack(table, unpack(value), self._offsets[table])
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(None)
        return acknowledged

    def _table(self, topic: str, partition: int) -> TablePartition:
        if (topic, partition) not in self._tables:
            entity = next(name for name in self.registry.entities if repartition_topic(name) == topic)
            groups = [group for group in self.registry.groups if group.entity.name == entity]
            tables = [GroupTable(self.plans[group.name], self.numbers[group.name]) for group in groups]
            sources = {source.topic: source for group in groups for source in group.sources}
            self._tables[topic, partition] = TablePartition(entity, partition, tables, list(sources.values()))
        return self._tables[topic, partition]

    async def _flush(self) -> None:
        uncached = {row_name(group.name, 1) for group in self.registry.groups if not group.writing.cached}
        for table, offset in self._offsets.items():
            rows = [freeze(group, key, row).stored for group in table.groups for key, row in group.dirty.items()]
            for group in table.groups:
                group.dirty = {}
            progress = progress_row(
                table.entity, table.partition, ver=version(table.epoch, offset), as_of_ms=table.as_of_ms
            )
            await self.record.write([*rows, progress], deadline_ms=_DEADLINE_MS)
            if self.cache is not None:
                cached = [row for row in rows if row.key.sk not in uncached]
                await self.cache.write([*cached, progress], deadline_ms=_DEADLINE_MS)
            self.local.announce(rows)

    # -- the way of a read

    def web_app(self, *, body_deadline_ms: int = 5_000, empty_lists: bool = True) -> web.Application:
        """Return the worker's web application with its routes."""
        reader = TieredReader(
            local=self.local if self._keeps_copies else None,
            cache=self.cache,
            record=self.record,
            clock=self.clock,
            metrics=self.metrics,
            hears=lambda: self.hears,
        )
        planner = Planner(self.registry, self.plans, self.numbers)
        progress = ProgressBoard(store=self.cache or self.record, clock=self.clock)
        self.server = FeatureServer(
            planner=planner, reader=reader, progress=progress, clock=self.clock, empty_lists=empty_lists,
            functions=self._functions,
        )  # fmt: skip
        explainer = Explainer(
            self.registry, planner=planner, reader=reader, progress=progress, clock=self.clock,
            answer=self.server.answer, empty_lists=empty_lists,
        )  # fmt: skip
        console = Console(
            self.registry, plans=self.plans, planner=planner, progress=progress, health=self.health,
            metrics=self.metrics, clock=self.clock, serves=True,
            function_processes=2 if self._functions is not None else 0,
        )  # fmt: skip
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        routes = Routes(
            reads=Reads(lambda: self.server, self.metrics),
            explainer=lambda: explainer,
            health=self.health,
            metrics=self.metrics,
            body_deadline_ms=body_deadline_ms,
        )
        routes.attach(app, features=True, more=console_routes(lambda: console))
        return app

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a metric, 0 where it was never set."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def impression(time_ms: int, *, user: int = 1, video: int = 7, tab: int = 0, **more: Any) -> dict[str, Any]:
    """Return an impression with an id of its own."""
    return {**_video_event(time_ms, user, video, tab), "watch_ms": 4_000, "duration_ms": 10_000, **more}


def click(time_ms: int, *, user: int = 1, video: int = 7, tab: int = 0) -> dict[str, Any]:
    """Return a click with an id of its own."""
    return _video_event(time_ms, user, video, tab)


def visit(time_ms: int, city: str, note: str | None = None) -> dict[str, Any]:
    """Return a visit with an id of its own."""
    return {"event_id": f"e{next(_ids)}", "time_ms": time_ms, "city": city, "note": note}


def _video_event(time_ms: int, user: int, video: int, tab: int) -> dict[str, Any]:
    return {"event_id": f"e{next(_ids)}", "time_ms": time_ms, "user_id": user, "video_id": video, "tab": tab}
