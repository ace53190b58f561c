"""Every store in turn, each with a clock that a test can move; a real redis-server for those who need one.

A machine without a redis-server fails these tests: a skipped contract is a contract nobody checks.
"""

import time

import pytest
import redis

from stores.memory import MemoryStore
from stores.redis import RedisStore
from stores.sqlite import SqliteStore
from tests.clock import ManualClock


class PassingClock:
    """The clock of a store whose server has a clock of its own: to advance it is to wait."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def advance(self, ms: int) -> None:
        time.sleep(ms / 1000)


@pytest.fixture(scope="session")
def redis_url(redis_server):
    """The Redis server of the whole session; ``empty_redis`` gives it to one test."""
    return redis_server.url


@pytest.fixture
def empty_redis(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store_kind(request):
    return request.param


@pytest.fixture
def clock(store_kind):
    return PassingClock() if store_kind == "redis" else ManualClock()


@pytest.fixture
async def store(store_kind, clock, tmp_path, request):
    if store_kind == "memory":
        opened = MemoryStore(clock)
    elif store_kind == "sqlite":
        opened = SqliteStore(tmp_path / "record.sqlite", clock)
    else:
        opened = RedisStore(request.getfixturevalue("empty_redis"))
    yield opened
    await opened.close()
