"""Wiring: the whole platform of one worker, built in readable lines. Adapters are named here and in ``endpoints``."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from faust.transport.drivers import aiokafka as driver
from yarl import URL

from agents.aggregate import Aggregator
from agents.cache_debt import CacheDebt
from agents.decode import decoders_of
from agents.dispatch import Dispatcher
from agents.guard import die, guarded
from agents.intake import Intake
from agents.pipeline import Pipeline
from agents.publish import Publisher
from agents.transport import Consumer, RunMessage, RunSchema, Transport
from app.applied_versions import resolve_versions
from app.cache_check import check_cache
from app.clock import SystemClock
from app.endpoints import Endpoints, open_cache, open_endpoints, open_record
from app.faust_app import App, new_app
from app.kafka.access import kafka_access
from app.kafka.ground import NO_GROUND, Ground, find_ground, require_same_topics
from app.preload import preload, preload_all, preloaded
from app.record_check import check_record
from app.runtime import keep_runtime
from app.settings import Settings
from app.watch import watch_parent, watch_services
from app.worker_health import WorkerHealth
from core.check import Problem, check_registry
from core.errors import ConfigurationError
from core.keys import known_partition
from core.metrics import Metrics
from core.plans import plan_group
from core.ports import Cache, RowKey, Store, StoredRow
from core.topics import repartition_topic, row_name
from core.windows import to_ms
from serving.answers.progress_board import ProgressBoard
from serving.answers.read_plans import Planner
from serving.answers.reads_log import ReadsLog
from serving.answers.server import FeatureServer
from serving.canary import Canaries
from serving.explain.explainer import Explainer
from serving.on_demand.function_pool import FunctionPool
from serving.push.routes import PushRoutes
from serving.tiers.hedges import Hedges
from serving.tiers.local import LocalCopies
from serving.tiers.reader import TieredReader
from serving.web.access import Gate
from serving.web.console import Console, console_routes
from serving.web.front_door import FrontDoor
from serving.web.heads import PATH
from serving.web.http import Routes
from serving.web.reads import Reads
from tables.changelog import ChangelogWriter
from tables.engine import Engine, in_memory
from tables.mend import ChangelogMender
from tables.owned import OwnedTables
from tables.restore import ChangelogReader

if TYPE_CHECKING:
    from tables.disk import TablesDisk

log = logging.getLogger(__name__)


class Platform:
    """One worker: its Faust app, and everything that the app's role needs.

    It plays the part of the transport's ``Ownership`` and of the routes' ``Health``.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry = settings.load_registry()
        _refuse_problems(settings, check_registry(self.registry))
        self.plans = {group.name: plan_group(group) for group in self.registry.groups}
        self.metrics = Metrics()
        self.clock = SystemClock()
        self.app: App = new_app(settings, kafka_access(settings), ownership=self)
        self.app.open_platform = self.open
        self.app.close_platform = self.close
        self.app.attach_routes = self._attach_routes
        self._attach_agents()
        self._tasks: list[asyncio.Task[None]] = []
        self._exits = ExitStack()

    # -- opening and closing

    async def open(self) -> None:
        """Start or find the services, then build what reads and writes them."""
        self.endpoints: Endpoints = open_endpoints(self.settings, self.registry)
        self.access = kafka_access(self.settings, *self.endpoints.bootstrap)
        self.app.transport.url = [_url(place) for place in self.endpoints.bootstrap]
        self.record: Store = open_record(self.endpoints, self.clock)
        await check_record(self.record)
        self.cache: Cache | None = open_cache(self.endpoints, ca=self.settings.redis_ca)
        await check_cache(self.cache, writes=self.settings.role.aggregates)
        may_apply = self.settings.apply if self.settings.apply is not None else self.settings.is_embedded
        applied = await resolve_versions(
            self.record, self.plans.values(), may_apply=may_apply, writes=self.settings.role.ingests
        )
        self.numbers = applied.numbers
        self.ground: Ground = NO_GROUND
        if self.settings.role.ingests:
            self.ground = await find_ground(self.settings, self.access, self.registry, self.record)
        self._build_reading()
        self._build_writing()
        if preloaded(self.registry) and self.settings.role.serves and not self.settings.role.aggregates:
            await preload_all(
                self.registry, self.plans, self.numbers, restore=self.changes.restore, reader=self.reader,
                now_ms=self.clock.now_ms(),
            )  # fmt: skip
        if self.settings.is_embedded:
            broker, base_url = self.endpoints.bootstrap[0], self.settings.base_url
            self._exits.enter_context(keep_runtime(broker=broker, base_url=base_url))
        self._start(self.health.watch_lag(), what="watch of the lag")
        stop = self.endpoints.stop
        if self.endpoints.embedded is not None:
            self._start(watch_services(self.endpoints.embedded, stop=stop), what="watch of the embedded services")
        if self.settings.exit_with_parent:
            self._start(watch_parent(stop=stop), what="watch of the parent")
        log.info(
            "platform open",
            extra={
                "role": self.settings.role.value,
                "broker": ",".join(self.endpoints.bootstrap),
                "cache": self.cache is not None,
            },
        )

    async def close(self) -> None:
        """Stop background work, close the stores, stop what was started here."""
        self._exits.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.intake.close()
        if self.functions is not None:
            self.functions.close()
        if self.reads_log is not None:
            self.reads_log.close()
        for store in (self.record, self.cache):
            if store is not None:
                await store.close()
        if self.disk is not None:
            await asyncio.to_thread(self.disk.close)
        self.endpoints.stop()
        # Whoever scrapes the metrics has missed what happened since the last time.
        log.info("platform closed", extra=self.metrics.accounting())

    def _build_reading(self) -> None:
        settings = self.settings
        self.reads_log = (
            ReadsLog(settings.reads_log, share=settings.reads_log_share, clock=self.clock)
            if settings.reads_log is not None
            else None
        )
        if self.reads_log is not None:
            self._start(self.reads_log.run(), what="log of reads")
        # Only a worker that aggregates hears of changes; elsewhere a copy may be old for a whole soft_ttl.
        hears, holds = settings.role.aggregates, any(group.serving.tier == "local" for group in self.registry.groups)
        self.local = LocalCopies(bytes_max=settings.local_bytes_max, is_announced=self._is_announced if hears else None)
        self.reader = TieredReader(
            local=self.local if (hears or holds) and settings.local_bytes_max else None,
            cache=self.cache,
            record=self.record,
            clock=self.clock,
            metrics=self.metrics,
            hears=lambda: cast("Transport", self.app.transport).fence.is_open,
            # One disk answers no sooner if it is asked twice.
            hedges=Hedges(told=lambda: self.metrics.hedged(self.record.name)) if settings.dynamodb_place() else None,
        )
        planner = Planner(self.registry, self.plans, self.numbers)
        progress = ProgressBoard(store=self.cache or self.record, clock=self.clock)
        self.functions: FunctionPool | None = None
        if (self.registry.on_demand or self.registry.on_demand_sources) and settings.role.computes:
            self.functions = FunctionPool(settings.registry, self.metrics, processes=settings.on_demand_processes)
            self._start(self.functions.warm_up(), what="start of the processes for on-demand features")
        self.server = FeatureServer(
            planner=planner,
            reader=self.reader,
            progress=progress,
            clock=self.clock,
            empty_lists=settings.empty_lists,
            entities_bytes_max=settings.local_bytes_max,
            reads_log=self.reads_log,
            functions=self.functions,
        )
        self.canaries = Canaries(
            self.registry,
            plans=self.plans,
            numbers=self.numbers,
            keys_of=self._keys_of,
            send=self._send_events,
            reader=self.reader,
            clock=self.clock,
            metrics=self.metrics,
            is_ready=lambda: not settings.role.ingests or bool(self.health.ingest()["ready"]),
        )
        if settings.role.serves:
            self._start(self.canaries.run(), what="canaries")
        self.explainer = Explainer(
            self.registry,
            planner=planner,
            reader=self.reader,
            progress=progress,
            clock=self.clock,
            answer=self.server.answer,
            empty_lists=settings.empty_lists,
        )
        self.console = Console(
            self.registry,
            plans=self.plans,
            planner=planner,
            progress=progress,
            health=self,
            metrics=self.metrics,
            clock=self.clock,
            serves=settings.role.serves,
            function_processes=settings.on_demand_processes if self.functions is not None else 0,
        )

    def _keys_of(self, topic: str, event: bytes, time_ms: int) -> list[tuple[str, list[str]]]:
        decoder = self.decoders[topic]
        touched = zip(decoder.targets, decoder.decode(event, time_ms).places, strict=True)
        return [(target.entity.name, [key for _, key in places]) for target, places in touched]

    async def _send_events(self, topic: str, events: Sequence[tuple[bytes | None, bytes]]) -> None:
        await self.intake.send(topic, events)

    def _build_writing(self) -> None:
        lifetimes = {
            row_name(group.name, self.numbers[group.name]): to_ms(group.serving.hard_ttl)
            for group in self.registry.groups
            if group.writing.cached
        }
        changelog = ChangelogWriter(self._producer)
        self.changes = changes = ChangelogReader(self.access.for_librdkafka())
        self.disk = self._tables_disk()
        self.tables = OwnedTables(
            self.registry,
            self.plans,
            self.numbers,
            reader=changes,
            changelog=changelog,
            open_engine=self._open_engine,
            epochs=self.ground.epochs,
        )
        self.debt = CacheDebt(
            self.cache,
            self.record,
            self.metrics,
            self.clock,
            lifetimes=lifetimes,
            announce=self.local.announce,
            wait_owner=cast("Transport", self.app.transport).fence.wait_open,
        )
        self.publisher = Publisher(
            self.tables,
            changelog=changelog,
            record=self.record,
            cache=self.debt,
            finish=self._finish,
            join=self._join,
            announce=self._announce,
            metrics=self.metrics,
            clock=self.clock,
        )
        self.health = WorkerHealth(
            self.settings.role,
            record=self.record,
            tables=self.tables,
            progress=changes.progress,
            debt=self.debt,
            metrics=self.metrics,
            consumer=lambda: self._consumer,
        )
        self.aggregator = Aggregator(self.tables, self.publisher, self.metrics, producer=self._producer)
        self.decoders = decoders_of(self.registry)
        self.intake = Intake(self.access.for_aiokafka())
        self.dispatcher = Dispatcher(
            self.decoders,
            producer=self._producer,
            finish=self._finish,
            metrics=self.metrics,
            topic_ids=self.ground.topic_ids,
        )
        self.pipeline = Pipeline(
            dispatcher=self.dispatcher if self.settings.role.dispatches else None,
            aggregator=self.aggregator if self.settings.role.aggregates else None,
            tables=self.tables,
            publisher=self.publisher,
            debt=self.debt,
            generation=lambda: self.app.consumer_generation_id,
        )
        if self.settings.role.dispatches:
            self._start(self.dispatcher.acknowledge(), what="acknowledgement of sends")
        if self.settings.role.aggregates:
            mender = ChangelogMender(self.tables, changelog, changes, touched=self.publisher.touch, die=die)
            self._start(self.publisher.run(), what="publication of rows")
            self._start(self.debt.settle(), what="settling of the cache's debt")
            self._start(mender.run(), what="watch of the changelog")

    def _tables_disk(self) -> "TablesDisk | None":
        if self.settings.tables != "disk" or not self.settings.role.aggregates:
            return None
        from tables.disk import TablesDisk  # noqa: PLC0415  # 8 MB of RocksDB for those alone who want it

        return TablesDisk(
            self.settings.tables_dir,
            cache_bytes=self.settings.tables_cache_bytes,
            live_rows_max=self.settings.tables_live_rows,
        )

    async def _open_engine(self) -> Engine:
        if self.disk is not None:
            return await self.disk.open_meanwhile()
        return await in_memory(live_rows_max=self.settings.tables_live_rows)

    def _start(self, work: Coroutine[Any, Any, None], *, what: str) -> None:
        self._tasks.append(asyncio.create_task(guarded(work, what=what), name=what))

    # -- agents

    def _attach_agents(self) -> None:
        app, role = self.app, self.settings.role
        if role.dispatches:
            sources = app.topic(*self.registry.sources, schema=RunSchema())
            app.agent(sources, name="dispatch")(self._dispatch)
        if role.aggregates:
            entities = app.topic(*map(repartition_topic, self.registry.entities), schema=RunSchema())
            app.agent(entities, name="aggregate")(self._aggregate)

    async def _dispatch(self, stream: Any) -> None:
        async for event in stream.noack().events():
            await self.pipeline.dispatch(event.message)

    async def _aggregate(self, stream: Any) -> None:
        async for event in stream.noack().events():
            await self.pipeline.aggregate(event.message)

    def _producer(self) -> Any:
        # Faust's own aiokafka producer, idempotent and fenced: its public sends cost four times as much.
        return cast("driver.Producer", self.app.producer)._producer  # noqa: SLF001  # see above

    def _finish(self, message: RunMessage) -> None:
        self._consumer.finish(message)

    def _join(self, first: RunMessage, second: RunMessage) -> None:
        self._consumer.join(first, second)

    @property
    def _consumer(self) -> Consumer:
        return cast("Consumer", self.app.consumer)

    # -- ownership

    async def settle(self) -> None:
        """Make everything that was taken durable."""
        await self.pipeline.settle()

    def given_away(self) -> None:
        """Drop state and copies: nothing is owned."""
        self.pipeline.given_away()
        self.local.clear()

    async def take_over(self, committed: Mapping[Any, int], assigned: set[Any]) -> None:
        """Restore the tables of assigned partitions, unless a topic was made anew meanwhile."""
        await require_same_topics(self.access, self.ground, {tp.topic for tp in assigned})
        now_ms = self.clock.now_ms()
        await self.pipeline.take_over(committed, assigned)
        # A read that began before may bring what another owner has replaced since.
        self.local.clear()
        if preloaded(self.registry):
            await preload(self.tables, reader=self.reader, now_ms=now_ms)

    def _announce(self, rows: Sequence[StoredRow]) -> None:
        """Let those who keep copies, or a log, know of rows that were published."""
        self.local.announce(rows)
        if self.reads_log is not None:
            self.reads_log.writes(rows)

    @property
    def has_state(self) -> bool:
        """Whether anything was ever applied to what is owned."""
        return self.pipeline.has_state

    def _is_announced(self, key: RowKey) -> bool:
        entity, _, encoded = key.pk.partition("#")
        definition = self.registry.entities.get(entity)
        if definition is None:
            return False
        return self.tables.get(repartition_topic(entity), known_partition(encoded, definition.partitions)) is not None

    # -- health

    async def can_read(self) -> bool:
        """Whether the record answers."""
        return await self.health.can_read()

    def ingest(self) -> dict[str, Any]:
        """Return the figures of ingestion."""
        return self.health.ingest()

    def _attach_routes(self, web_app: web.Application) -> None:
        reads = Reads(lambda: self.server, self.metrics)
        gate = Gate(self.settings.keys, self.clock, self.metrics) if self.settings.keys else None
        if gate is not None:
            gate.close(web_app)
        if self.settings.role.serves:
            self.app.front_door = FrontDoor(
                reads, admits=lambda authorization: gate is None or gate.admits(authorization, PATH)
            )
        pushing = PushRoutes(
            registry=self.registry,
            readers=lambda: self.decoders,
            intake=lambda: self.intake,
            clock=self.clock,
            metrics=self.metrics,
        )
        Routes(
            reads=reads,
            explainer=lambda: self.explainer,
            health=self,
            metrics=self.metrics,
        ).attach(
            web_app,
            features=self.settings.role.serves,
            more=[*(pushing.table() if self.settings.role.serves else ()), *console_routes(lambda: self.console)],
        )


def _refuse_problems(settings: Settings, problems: Sequence[Problem]) -> None:
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        told = "\n".join(f"- {problem.where}: {problem.reason}; {problem.remedy}" for problem in errors)
        raise ConfigurationError(
            f"{settings.registry} has {len(errors)} problems (`freshet check` tells them too):\n{told}"
        )


def _url(place: str) -> URL:
    return URL(f"kafka://{place}")


def open_platform(settings: Settings) -> Platform:
    """Return the platform of one worker; nothing is connected or started before its Faust app starts.

    Raises:
        ConfigurationError: Definitions or settings that cannot work; all problems are told.
    """
    return Platform(settings)
