"""Memory after a million keys were seen and are past: it must not grow with everyone who was ever seen.

``python -m bench.memory [--keys]`` prints the process's memory before and after, and fails beyond 20 % more.

Events go through the real aggregator, tables and publisher into SQLite, Redis and local copies. Only the broker is left
out: in its place stands a changelog that is compacted at once. Keys come in chunks, each for half of the time for which
a row is kept, all of it before today: Redis, which goes by its own clock, takes every row for past when it comes.
"""

import argparse
import asyncio
import gc
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis
from aiokafka import TopicPartition
from pydantic import BaseModel

from agents.aggregate import Aggregator
from agents.cache_debt import CacheDebt
from agents.publish import Publisher
from core.definitions import Count, Entity, FeatureGroup, Registry, Source, aggregate
from core.keys import encode_key, kafka_partition, partition_key
from core.metrics import Metrics
from core.packs import PACK_UPDATES_MAX, Pack, pack_bytes
from core.plans import plan_group
from core.ports import RowKey
from core.rows import unpack_row
from core.topics import repartition_topic
from core.windows import NEVER_MS, hours
from services.redis_server import start_redis
from serving.tiers.local import LocalCopies
from stores.redis import RedisStore
from stores.sqlite import SqliteStore
from tables.changelog import ChangelogWriter
from tables.expiry import keep_ms
from tables.owned import OwnedTables
from tests.clock import ManualClock
from tests.fakes import Metadata, Record, Run, ToldChangelogs
from tests.packed import empty_pack

KEYS = 1_000_000
CHUNK = 20_000
GROWTH_MAX = 0.2
# Allocators keep room that they needed once: measured, the process grows by 40 % while the first 160,000 keys come and
# go, and by a tenth with the million after them, while Python holds as much as before.
WARM_UP = 200_000
_READ = 500
_LAST = 64
_DEADLINE_MS = 10_000
_BATCH_BYTES = 500_000


class Tap(BaseModel):
    """An event."""

    id: str
    at: int
    user: int


USER = Entity("user", keys=("user",), partitions=4)
TAPS = Source("taps", Tap, event_time="at", event_id="id")
GROUP = FeatureGroup("taps", entity=USER, owner="o", features=(aggregate("taps", TAPS, Count(), over=(hours(1),)),))
PLAN = plan_group(GROUP)
KEEP_MS = keep_ms(PLAN) or 0
TOPIC, SK = repartition_topic("user"), "taps@v1"
_MARKS = 2 * USER.partitions
"""Rows of the record that are no key's: progress and cached mark of each partition."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured.

    Attributes:
        before_bytes: Resident memory when the first keys were seen and removed again.
        peak_bytes: Most of it afterwards, looked at once a chunk.
        after_bytes: When all keys were seen and removed.
        before_blocks: Small pieces of memory that Python held before, whatever its allocator kept beside them.
        after_blocks: Those after.
        left: How many keys are left, by place: at most the few that came last, so that time went by.
    """

    before_bytes: int
    peak_bytes: int
    after_bytes: int
    before_blocks: int
    after_blocks: int
    left: dict[str, int]

    @property
    def growth(self) -> float:
        """Memory that was not given back, as a share of that before."""
        return self.after_bytes / self.before_bytes - 1


class _Batch:
    def __init__(self) -> None:
        self.rows: list[tuple[bytes, bytes | None]] = []
        self._size = 0

    def append(self, *, key: bytes, value: bytes | None, timestamp: int | None, headers: Any = ()) -> object | None:
        assert timestamp is None
        if self._size > _BATCH_BYTES:
            return None
        self._size += len(key) + len(value or b"")
        self.rows.append((key, value))
        return headers

    def record_count(self) -> int:
        return len(self.rows)


class CompactedLog:
    """A producer whose changelog keeps the last record of each key, and nothing of one whose last is a tombstone."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self._ends: dict[int, int] = {}

    def create_batch(self) -> _Batch:
        """Return an empty batch."""
        return _Batch()

    async def send_batch(self, batch: _Batch, topic: str, *, partition: int) -> "asyncio.Future[Metadata]":
        """Take a batch, and acknowledge it at once."""
        for key, value in batch.rows:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        answer = asyncio.get_running_loop().create_future()
        answer.set_result(Metadata(self._ends.get(partition, 0)))
        self._ends[partition] = self._ends.get(partition, 0) + len(batch.rows)
        return answer


class Pipeline:
    """An aggregator that owns all partitions, and everything behind it."""

    def __init__(self, directory: Path, redis_url: str) -> None:
        registry, metrics = Registry((GROUP,)), Metrics()
        self.log = CompactedLog()
        self._clock = ManualClock()
        self._path, self._redis_url = directory / "record.sqlite", redis_url
        self._record, self._cache = SqliteStore(self._path, self._clock), RedisStore(redis_url)
        self._debt = CacheDebt(self._cache, self._record, metrics, self._clock, lifetimes={SK: KEEP_MS})
        self._copies = LocalCopies(bytes_max=32 << 20, is_announced=lambda _key: True)
        changelog = ChangelogWriter(lambda: self.log)
        self._tables = OwnedTables(registry, {"taps": PLAN}, {"taps": 1}, reader=ToldChangelogs(), changelog=changelog)
        self._publisher = Publisher(
            self._tables,
            changelog=changelog,
            record=self._record,
            cache=self._debt,
            finish=lambda _run: None,
            join=lambda _first, _second: None,
            announce=self._copies.announce,
            metrics=metrics,
            clock=self._clock,
        )
        self._aggregator = Aggregator(self._tables, self._publisher, metrics, producer=lambda: self.log)
        self._offsets = dict.fromkeys(range(USER.partitions), 0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Own the partitions and publish, until the end of the block."""
        await self._tables.take_over({}, {TopicPartition(TOPIC, partition) for partition in self._offsets})
        tasks = [asyncio.create_task(self._publisher.run()), asyncio.create_task(self._debt.settle())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._record.close()
            await self._cache.close()

    async def see(self, users: range) -> None:
        """Let an event of each user come, and a reader ask for some of them; half of the time of a row goes by."""
        self._clock.advance(KEEP_MS // 2)
        await self._take(users)
        places = _places(users[:_READ])
        with self._copies.reading():
            for place, value in (await self._record.read(places, deadline_ms=_DEADLINE_MS)).items():
                self._copies.put(place, unpack_row(value), size=len(value), read_at_ms=self._clock.now_ms())

    async def let_pass(self, last: range) -> None:
        """Let so much time go by that all rows are past, until none but those of the last users is left."""
        self._clock.advance(2 * KEEP_MS)
        while self._rows > len(last) or self._recorded > len(last) + _MARKS:
            await self._take(last)

    def left(self, users: range) -> dict[str, int]:
        """Return how many keys are left in each place; copies are looked for among these users."""
        with redis.Redis.from_url(self._redis_url) as client:
            cached = int(client.dbsize())
        copies = [self._copies.get(place, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0) for place in _places(users)]
        return {
            "tables": self._rows,
            "changelog": len(self.log.rows),
            "record": self._recorded - _MARKS,
            "cache": cached - USER.partitions,
            "local copies": sum(copy is not None for copy in copies),
        }

    @property
    def _rows(self) -> int:
        return sum(len(group) for table in self._tables for group in table.groups)

    @property
    def _recorded(self) -> int:
        with closing(sqlite3.connect(self._path)) as connection:
            return int(connection.execute("SELECT count(*) FROM rows").fetchone()[0])

    async def _take(self, users: range) -> None:
        keys: dict[int, list[str]] = {}
        for user in users:
            key = encode_key((user,))
            keys.setdefault(kafka_partition(key, USER.partitions), []).append(key)
        for partition, mine in keys.items():
            for start in range(0, len(mine), PACK_UPDATES_MAX):
                pack = self._pack(partition, mine[start : start + PACK_UPDATES_MAX])
                offset = pack.offsets[0]
                record = Record(TOPIC, partition, offset, self._clock.now_ms(), None, pack_bytes(pack))
                await self._aggregator.take(Run(TOPIC, partition, [record]))
        await self._publisher.settle()

    def _pack(self, partition: int, keys: list[str]) -> Pack:
        pack, first, now_ms = empty_pack("taps", "", partition, []), self._offsets[partition], self._clock.now_ms()
        self._offsets[partition] += len(keys)
        pack.keys.extend(keys)
        pack.offsets.extend(range(first, first + len(keys)))
        pack.record_times.extend([now_ms] * len(keys))
        pack.event_times.extend([now_ms] * len(keys))
        pack.event_ids.extend(f"{partition}/{offset}" for offset in pack.offsets)
        pack.checks.extend([0] * len(keys))
        return pack


async def measure(directory: Path, redis_url: str, *, keys: int, chunk: int, warm_up: int) -> Figures:
    """See keys, chunk by chunk, until all of them are past; some others come before anything is measured."""
    pipeline, last = Pipeline(directory, redis_url), range(-_LAST, 0)
    async with pipeline.running():
        for start in range(keys, keys + warm_up, chunk):
            await pipeline.see(range(start, start + chunk))
        await pipeline.let_pass(last)
        before = peak = _resident()
        blocks = sys.getallocatedblocks()
        for start in range(0, keys, chunk):
            await pipeline.see(range(start, min(start + chunk, keys)))
            peak = max(peak, _resident())
        await pipeline.let_pass(last)
        after = _resident()
        return Figures(before, peak, after, blocks, sys.getallocatedblocks(), pipeline.left(range(keys)))


def _places(users: Sequence[int]) -> list[RowKey]:
    return [RowKey(partition_key("user", encode_key((user,))), SK) for user in users]


def _resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def main() -> int:
    """Measure, print, and return 1 if memory grew by more than 20 %."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keys", type=int, default=KEYS, help="how many are seen and then past")
    keys = parser.parse_args().keys
    with tempfile.TemporaryDirectory() as name:
        server = start_redis(Path(name))
        try:
            figures = asyncio.run(measure(Path(name), server.url, keys=keys, chunk=CHUNK, warm_up=WARM_UP))
        finally:
            server.stop()
    sys.stdout.write(
        f"{keys:,} keys seen and past: {figures.before_bytes >> 20} MB before, {figures.after_bytes >> 20} MB after "
        f"({figures.growth:+.1%}; up to {figures.peak_bytes >> 20} MB meanwhile), "
        f"{figures.before_blocks:,} pieces held by Python before, {figures.after_blocks:,} after\n"
        f"left, of {_LAST} keys that came last: {', '.join(f'{n} in {place}' for place, n in figures.left.items())}\n"
    )
    return int(figures.growth > GROWTH_MAX)


if __name__ == "__main__":
    sys.exit(main())
