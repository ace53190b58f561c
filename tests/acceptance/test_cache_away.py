"""A cache that goes away and comes back, with what it had or with nothing, while events arrive and workers die."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator

import pytest
import redis

from app.clock import SystemClock
from app.endpoints import embedded_topics
from app.worker_process import WorkerProcess, start_worker
from core.ports import RowKey
from features import REGISTRY
from services.embedded import start_embedded
from services.redis_server import start_redis
from stores.sqlite import SqliteStore
from tests.acceptance.conftest import environment_of, free_port, http, new_sender, read_values, until

USERS = range(40)
# A dead member's partitions are given to the next one when its session is over.
TAKE_OVER_S = 40.0


def impressions(number: int, *, round_: int) -> list[bytes]:
    """``number`` impressions of each user."""
    now_ms = time.time_ns() // 1_000_000
    return [
        json.dumps(
            {
                "event_id": f"{round_}-{user}-{index}", "time_ms": now_ms, "user_id": user, "video_id": user, "tab": 1,
                "watch_ms": 2_000, "duration_ms": 4_000,
            }
        ).encode()
        for index in range(number)
        for user in USERS
    ]  # fmt: skip


class Place:
    """A broker and a record that stay, and a Redis and a worker that come and go."""

    def __init__(self) -> None:
        self.services = start_embedded(embedded_topics(REGISTRY))
        self.redis = start_redis(self.services.directory)
        self.sender = new_sender(self.services)
        self.workers: list[WorkerProcess] = []

    def start_worker(self) -> WorkerProcess:
        started = start_worker(
            {**environment_of(self.services), "FRESHET_REDIS": self.redis.url, "FRESHET_SESSION_TIMEOUT_MS": "6000"},
            web_port=free_port(),
            log=self.services.directory / f"worker-{len(self.workers)}.log",
        )
        self.workers.append(started)
        started.wait_ready(deadline_s=TAKE_OVER_S)
        return started

    def restart_redis(self) -> None:
        self.redis = start_redis(self.services.directory, port=self.redis.port)

    def send(self, number: int, *, round_: int) -> None:
        self.sender.send("impressions", *impressions(number, round_=round_), partition=round_ % 4)

    def stop(self) -> None:
        for one in self.workers:
            one.stop()
        self.redis.process.send_signal(signal.SIGCONT)
        self.redis.stop()
        self.services.stop()

    def let_redis_write(self, *, is_allowed: bool) -> None:
        """Let Redis want no replica for a write, or one that there is not."""
        with redis.Redis.from_url(self.redis.url, protocol=2) as client:
            client.config_set("min-replicas-to-write", 0 if is_allowed else 1)

    def stale(self) -> list[str]:
        """Return the keys in Redis that do not have the bytes of the record, after Redis was asked for all."""
        with redis.Redis.from_url(self.redis.url, protocol=2) as client:
            names = [name for name in client.keys("{*}*") if b"#progress" not in name]
            cached = dict(zip(names, client.mget(names), strict=True))
        keys = {name: RowKey(*name.decode()[1:].split("}")) for name in cached}
        recorded = asyncio.run(self._recorded(list(keys.values())))
        assert len(recorded) == len(keys) > len(USERS)
        return [name.decode() for name, value in cached.items() if recorded[keys[name]] != value]

    async def _recorded(self, keys: list[RowKey]) -> dict[RowKey, bytes]:
        store = SqliteStore(self.services.record_path, SystemClock())
        try:
            return await store.read(keys, deadline_ms=5_000)
        finally:
            await store.close()


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    try:
        yield made
    finally:
        made.stop()


def facts(worker: WorkerProcess) -> dict[str, object]:
    return http(f"{worker.base_url}/ready/ingest")[1]


def counted(worker: WorkerProcess, number: int) -> None:
    """Wait until every user's impressions are served."""
    users = list(USERS)
    until(
        lambda: (
            read_values(worker.base_url, {"user_id": users}, "user_engagement:impressions_1h")
            == [[number] * len(users)]
        ),
        f"{number} impressions of each user are served",
    )


def committed(worker: WorkerProcess) -> None:
    """Wait until everything that is served now is committed."""
    begun = time.monotonic()
    until(lambda: facts(worker)["commit_age_s"] < time.monotonic() - begun, "a commit after what is served")


def test_a_worker_that_dies_in_debt_leaves_no_old_row_in_the_cache(place):
    """
    Redis hangs with old rows in it, the worker that owes it the new ones is killed, Redis goes on: unless the next
    worker pays, serving workers read the old rows for a day. What is in its sockets meanwhile is refused when it goes
    on: done then, it would be a part of the debt.
    """
    worker = place.start_worker()
    place.send(3, round_=0)
    counted(worker, 3)
    until(lambda: facts(worker)["cache_owed"] == 0 and not place.stale(), "Redis has the first rows")
    place.let_redis_write(is_allowed=False)
    place.redis.process.send_signal(signal.SIGSTOP)
    place.send(2, round_=1)
    counted(worker, 5)
    committed(worker)
    assert facts(worker)["cache_owed"] >= len(USERS)
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    place.redis.process.send_signal(signal.SIGCONT)
    place.let_redis_write(is_allowed=True)
    assert len(place.stale()) >= len(USERS)

    heir = place.start_worker()

    until(lambda: facts(heir)["cache_owed"] == 0, "the debt is paid")
    assert place.stale() == []
    counted(heir, 5)


def test_a_cache_that_was_killed_and_came_back_empty_serves_nothing_old(place):
    """
    What Redis forgets is read from the record until it changes; what changes while it is away is owed to it.
    """
    worker = place.start_worker()
    for round_ in range(12):
        if round_ == 4:
            place.redis.process.kill()
            place.redis.process.wait()
        if round_ == 8:
            place.restart_redis()
        place.send(5, round_=round_)
    counted(worker, 60)

    until(lambda: facts(worker)["cache_owed"] == 0, "the debt is paid")
    assert place.stale() == []
