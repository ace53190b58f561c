"""Two workers that share the partitions of a real Kafka: one joins in mid-load, the first leaves in mid-load.

Afterwards everything is compared: each served value with the oracle, each event with what became of it in either
worker, each row byte for byte in changelog, record and Redis.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiokafka import TopicPartition
from confluent_kafka import Producer

from app.clock import SystemClock
from app.dead_letters import list_dead_letters
from app.endpoints import open_cache, open_endpoints, open_record
from app.kafka.access import KafkaAccess
from app.kafka.admin import KafkaAdmin
from app.kafka.groups import group_of
from app.settings import Role, load_settings
from app.worker_process import WorkerProcess
from core.ports import RowKey, Store
from core.rows import unpack_change, unpack_row
from core.topics import changelog_topic, repartition_topic
from demo.check import CheckResult, check_served
from demo.figures import read_figures
from demo.log import DemoEvent
from demo.oracle import Oracle
from features import REGISTRY
from tables.changelog import change_key
from tables.restore import ChangelogReader
from tests.acceptance.conftest import http, until
from tests.acceptance.kafka import BUSY_S, SOURCE_PARTITIONS, now_ms, start_on

JOIN_AT, JOINED_AT, LEAVE_AT = 0.2, 0.5, 0.7
"""Shares of the load: where the second worker is started, until where the load goes on at its rate while it joins, and
where the first is told to stop."""
_SLOW_S = 0.05
"""While the load waits for a worker it goes on with an event in so many seconds: nothing happens in silence."""
_STRAY_EVERY = 200
"""One of so many events is sent with a malformed and a late one."""
_STORE_KEYS = 500
_DAY_MS = 86_400_000


@dataclass
class Load:
    """Sends a log in order and at a rate, with bad events among it; slowly where it has to wait for a worker.

    Attributes:
        sent: Events of the log that were sent.
        strays: Bad events that were.
    """

    events: Sequence[DemoEvent]
    access: KafkaAccess
    events_per_s: float
    sent: int = 0
    strays: int = 0
    _limit: int = 0
    _moved: threading.Event = field(default_factory=threading.Event)

    def allow(self, share: float) -> None:
        """Go on at full rate up to a share of the log, and slowly after it."""
        self._limit = round(len(self.events) * share)
        self._moved.set()

    def is_past(self, share: float) -> bool:
        return self.sent >= round(len(self.events) * share)

    def play(self) -> None:
        """Send everything and wait for the acknowledgements; blocks."""
        producer = Producer({**self.access.for_librdkafka(), "enable.idempotence": True, "acks": "all", "linger.ms": 2})
        group = max(round(self.events_per_s / 50), 1)
        for number, event in enumerate(self.events):
            self._send(producer, event, number)
            self.sent = number + 1
            producer.poll(0)
            if self.sent >= self._limit:
                self._moved.clear()
                self._moved.wait(_SLOW_S)
            elif self.sent % group == 0:
                self._moved.clear()
                self._moved.wait(group / self.events_per_s)
        assert producer.flush(BUSY_S) == 0

    def _send(self, producer: Producer, event: DemoEvent, number: int) -> None:
        self._produce(producer, event, orjson.dumps(event.fields))
        if number % _STRAY_EVERY == 0:
            late = {**event.fields, "event_id": f"late-{number}", "time_ms": event.time_ms - 30 * _DAY_MS}
            for payload in (b'{"user_id"', orjson.dumps(late)):
                self._produce(producer, event, payload)
                self.strays += 1

    def _produce(self, producer: Producer, event: DemoEvent, payload: bytes) -> None:
        producer.produce(event.topic, key=event.key, value=payload, timestamp=event.time_ms, on_delivery=_delivered)


@dataclass(frozen=True)
class Shared:
    """What both workers have in common: settings, and a directory for their logs."""

    settings: Mapping[str, str]
    directory: Path

    @property
    def access(self) -> KafkaAccess:
        return KafkaAccess(tuple(self.settings["FRESHET_BROKER"].split(",")))

    def start(self) -> WorkerProcess:
        return start_on(self.settings, self.directory, FRESHET_SESSION_TIMEOUT_MS="6000")


@dataclass
class Found:
    """What the checks found.

    Attributes:
        served: Served values against the oracle.
        accounts: Lines about events that are not in exactly one set.
        rows: Lines about rows that differ between changelog, record and Redis.
        compared: How many rows were.
    """

    served: CheckResult
    accounts: list[str]
    rows: list[str]
    compared: int


async def share_the_load(shared: Shared, events: Sequence[DemoEvent], *, events_per_s: float) -> Found:
    """Play events while one worker joins and the other leaves, and check everything."""
    load = Load(events, shared.access, events_per_s)
    first = shared.start()
    second: WorkerProcess | None = None
    try:
        await asyncio.to_thread(first.wait_ready, deadline_s=BUSY_S)
        load.allow(JOIN_AT)
        playing = asyncio.create_task(asyncio.to_thread(load.play))
        await _reached(lambda: load.is_past(JOIN_AT), "the load is under way")
        second = shared.start()
        load.allow(JOINED_AT)
        await asyncio.to_thread(second.wait_ready, deadline_s=BUSY_S)
        load.allow(LEAVE_AT)
        await _reached(lambda: load.is_past(LEAVE_AT), "both have shared the load for a while")
        assert not playing.done(), "the second joined when everything was sent"
        first.process.terminate()
        load.allow(1.0)
        await playing
        await _reached(lambda: not first.is_alive, "the first has left")
        await _reached(lambda: _owns_all(second), "the second owns everything")
        await _until_durable(shared)
        served = await check_served(second.base_url, Oracle(events))
        rows, compared = await _compare_rows(shared)
        return Found(served, _accounts(shared, load, first, second), rows, compared)
    finally:
        # The load ends with its thread: whoever failed above need not wait for its slow part.
        load.allow(1.0)
        for worker in (first, second):
            if worker is not None:
                worker.stop()


async def _reached(condition: Any, what: str) -> None:
    await asyncio.to_thread(until, condition, what, deadline_s=BUSY_S)


def _delivered(error: Any, _message: Any) -> None:
    assert error is None, error


def _owns_all(worker: WorkerProcess) -> bool:
    _, facts = http(f"{worker.base_url}/ready/ingest")
    partitions = sum(entity.partitions for entity in REGISTRY.entities.values())
    return bool(facts["partitions"] == SOURCE_PARTITIONS * len(REGISTRY.sources) + partitions)


# -- what is durable


async def _until_durable(shared: Shared) -> None:
    """Wait until the group has committed everything: first what was sent, then what the dispatchers made of it."""
    admin = KafkaAdmin(shared.access)

    def is_committed(ends: Mapping[tuple[str, int], int]) -> bool:
        committed = admin.offsets(group_of(Role.ALL))
        return all(committed.get(place, 0) >= end for place, end in ends.items())

    for topics in (list(REGISTRY.sources), [repartition_topic(name) for name in REGISTRY.entities]):
        ends = await _ends(shared, admin, topics)
        await _reached(lambda ends=ends: is_committed(ends), f"all of {topics} is durable")


async def _ends(shared: Shared, admin: KafkaAdmin, topics: Sequence[str]) -> dict[tuple[str, int], int]:
    """Return where partitions end that are not empty."""
    tps = [
        TopicPartition(topic, number)
        for topic, (_, partitions, _) in admin.topic_facts(topics).items()
        for number in range(partitions)
    ]
    ends = await ChangelogReader(shared.access.for_librdkafka()).ends(tps)
    return {(tp.topic, tp.partition): end for tp, end in ends.items() if end}


# -- every event in exactly one set


def _accounts(shared: Shared, load: Load, first: WorkerProcess, second: WorkerProcess) -> list[str]:
    """Compare, per source and entity, events sent with those applied or duplicate, summed over both workers.

    What a worker had to give away before it was durable, its successor applies and counts again: then the sum is larger.
    """
    found = []
    is_exact = not any("given away uncommitted" in worker.log.read_text() for worker in (first, second))
    done = _closing_figures(first)
    figures = read_figures(second.base_url)
    for place, number in (*figures.applied.items(), *figures.duplicates.items()):
        done[place] += number
    sent = Counter(event.topic for event in load.events)
    for (source, entity), number in sorted(done.items()):
        if number < sent[source] or (is_exact and number > sent[source]):
            found.append(f"{source} of {entity}: {sent[source]} sent, {number} applied or duplicate")
    if {source for source, _ in done} != set(sent):
        found.append(f"of {sorted(sent)} only {sorted(done)} came to an entity")
    letters = list_dead_letters(shared.access, reason="", limit=10_000)
    # What is dispatched again after a crash is buried again, under the same place.
    places = Counter(reason for reason, _ in {(one["reason"], _place(one)) for one in letters})
    if places != {"late": load.strays // 2, "malformed": load.strays // 2}:
        found.append(f"{load.strays} late or malformed events sent, buried {dict(places)}")
    return found


def _closing_figures(worker: WorkerProcess) -> Counter[tuple[str, str]]:
    """Return applied and duplicate updates by source and entity, as a worker tells them when it ends."""
    (line,) = [line for line in worker.log.read_text().splitlines() if ": platform closed " in line]
    told: Counter[tuple[str, str]] = Counter()
    for fact in line.partition(": platform closed ")[2].split():
        name, _, number = fact.partition("=")
        source, *rest = name.split("/")
        if len(rest) == 2 and rest[1] in ("applied", "duplicate"):
            told[source, rest[0]] += int(number)
    return told


def _place(letter: Mapping[str, Any]) -> tuple[str, int, int]:
    return letter["topic"], letter["partition"], letter["offset"]


# -- the same rows everywhere


async def _compare_rows(shared: Shared) -> tuple[list[str], int]:
    """Compare the highest version of every row in the changelog with record and Redis, byte for byte."""
    rows = await _changelog_rows(shared)
    names = {name.removeprefix("FRESHET_").lower(): value for name, value in shared.settings.items()}
    endpoints = open_endpoints(load_settings(**names), REGISTRY)
    cache = open_cache(endpoints, ca=None)
    assert cache is not None
    found = []
    for store in (open_record(endpoints, SystemClock()), cache):
        try:
            stored = await _read_all(store, list(rows))
        finally:
            await store.close()
        instant_ms = now_ms()
        for key, value in rows.items():
            # A row whose windows are all past is nowhere but in the changelog.
            is_past = unpack_row(value).expires_at_ms <= instant_ms
            if stored.get(key) != value and not (key not in stored and is_past):
                other = unpack_row(stored[key]).ver if key in stored else None
                found.append(f"{change_key(key)!r}: version {unpack_row(value).ver}, in {store.name} {other}")
    return found, len(rows)


async def _changelog_rows(shared: Shared) -> dict[RowKey, bytes]:
    reader = ChangelogReader(shared.access.for_librdkafka())
    tps = [
        TopicPartition(changelog_topic(entity.name), number)
        for entity in REGISTRY.entities.values()
        for number in range(entity.partitions)
    ]
    rows: dict[RowKey, bytes] = {}
    for tp, end in (await reader.ends(tps)).items():
        async for key, value in reader.read_range(tp, 0, end):
            place = RowKey(*key.decode().split(" "))
            if value is None:
                # A tombstone: all windows of the row were past, and the stores let it expire by themselves.
                rows.pop(place, None)
                continue
            row = unpack_change(value)[0]
            rows[place] = max(rows.get(place, b""), row, key=lambda one: one[:8])
    return rows


async def _read_all(store: Store, keys: Sequence[RowKey]) -> dict[RowKey, bytes]:
    found: dict[RowKey, bytes] = {}
    for start in range(0, len(keys), _STORE_KEYS):
        found |= await store.read(keys[start : start + _STORE_KEYS], deadline_ms=30_000)
    return found
