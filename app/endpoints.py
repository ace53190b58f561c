"""Endpoints: where broker, cache and record are, the embedded ones started first."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.clock import SystemClock
from app.settings import EMBEDDED, Role, Settings
from core.definitions import Registry
from core.errors import ConfigurationError
from core.ports import Cache, Clock, Store
from core.topics import DEAD_LETTERS, changelog_topic, repartition_topic
from services.embedded import EmbeddedServices, start_embedded
from stores.dynamodb import DynamoStore
from stores.dynamodb_calls import DynamoCalls
from stores.dynamodb_place import TablePlace
from stores.memory import MemoryStore
from stores.redis import RedisStore
from stores.redis_cluster import SCHEMES, RedisClusterStore
from stores.sqlite import SqliteStore

log = logging.getLogger(__name__)

EMBEDDED_SOURCE_PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What a worker connects to.

    Attributes:
        bootstrap: ``host:port`` of brokers.
        redis_url: Where Redis is, or None where there is none; it may hold a password.
        record_path: SQLite file of the record, or None where it is none.
        record_table: DynamoDB table of the record, or None where it is none. With neither it is memory.
        embedded: The processes behind them, if they were started here.
    """

    bootstrap: list[str]
    redis_url: str | None = field(repr=False)
    record_path: Path | None
    embedded: EmbeddedServices | None = None
    record_table: TablePlace | None = None

    def stop(self) -> None:
        """Stop what was started here."""
        if self.embedded is not None:
            self.embedded.stop()


def embedded_topics(registry: Registry) -> dict[str, int]:
    """Return all topics of a registry with their partition counts, for a broker that starts empty."""
    topics = dict.fromkeys(registry.sources, EMBEDDED_SOURCE_PARTITIONS) | {DEAD_LETTERS: 1}
    for entity in registry.entities.values():
        topics |= {repartition_topic(entity.name): entity.partitions, changelog_topic(entity.name): entity.partitions}
    return topics


def open_endpoints(settings: Settings, registry: Registry) -> Endpoints:
    """Return the endpoints that settings name, embedded services started if any is asked for.

    Raises:
        ConfigurationError: Settings that do not fit together, or embedded services that do not start.
    """
    redis = settings.redis.get_secret_value()
    if not settings.is_embedded:
        if EMBEDDED in (redis, settings.record):
            raise ConfigurationError(
                "FRESHET_BROKER names a real broker, so FRESHET_REDIS (redis://…, or none) and FRESHET_RECORD "
                "(sqlite:///path, or dynamodb://table?region=…) must be set too: the embedded ones keep nothing"
            )
        return Endpoints(
            settings.bootstrap,
            None if redis == "none" else redis,
            settings.sqlite_path(),
            record_table=settings.dynamodb_place(),
        )
    if redis not in (EMBEDDED, "none") or settings.record not in (EMBEDDED, "memory"):
        raise ConfigurationError(
            "the embedded broker begins anew at each start, so a record or Redis that is kept would refuse its rows as "
            "old: leave FRESHET_RECORD and FRESHET_REDIS embedded too, or set FRESHET_BROKER"
        )
    if settings.role is not Role.ALL:
        raise ConfigurationError(
            f"FRESHET_ROLE={settings.role.value} needs services that other workers share: set FRESHET_BROKER, "
            f"FRESHET_REDIS and FRESHET_RECORD; the embedded ones belong to one worker of role all"
        )
    embedded = start_embedded(embedded_topics(registry))
    redis_url = embedded.redis_url if redis == EMBEDDED else (None if redis == "none" else redis)
    if redis == EMBEDDED and redis_url is None:
        log.warning("no redis-server here: reads go to the record; install one to have the cache")
    path = embedded.record_path if settings.record == EMBEDDED else settings.sqlite_path()
    return Endpoints([embedded.broker], redis_url, path, embedded)


def open_record(endpoints: Endpoints, clock: Clock) -> Store:
    """Return the record; DynamoDB is not connected to before its first call."""
    if endpoints.record_table is not None:
        return DynamoStore(DynamoCalls(endpoints.record_table), clock)
    return SqliteStore(endpoints.record_path, clock) if endpoints.record_path is not None else MemoryStore(clock)


@asynccontextmanager
async def kept_record(settings: Settings) -> AsyncIterator[Store]:
    """Open the record that settings name, for a command that reads or writes it, and close it afterwards.

    Raises:
        ConfigurationError: The record is an embedded one, which no command can reach.
    """
    if settings.is_embedded:
        raise ConfigurationError(
            "the embedded record keeps nothing and applies by itself; set FRESHET_BROKER, _REDIS and _RECORD"
        )
    record = open_record(open_endpoints(settings, settings.load_registry()), SystemClock())
    try:
        yield record
    finally:
        await record.close()


def open_cache(endpoints: Endpoints, *, ca: Path | None) -> Cache | None:
    """Return the cache, or None where there is no Redis."""
    url = endpoints.redis_url
    if url is None:
        return None
    return RedisClusterStore(url, ca=ca) if url.startswith(tuple(SCHEMES)) else RedisStore(url, ca=ca)
