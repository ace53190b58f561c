"""Every store in turn, each with a clock that a test can move; real servers for those who need one.

A machine without a redis-server or a JVM fails these tests: a skipped contract is a contract nobody checks.
"""

import time

import pytest
import redis

from stores.dynamodb import DynamoStore
from stores.memory import MemoryStore
from stores.redis import RedisStore
from stores.redis_cluster import RedisClusterStore
from stores.redis_node import RedisLimits
from stores.sqlite import SqliteStore
from tests.clock import ManualClock
from tests.dynamodb_kit import open_tables

# A busy machine takes its time to connect.
PATIENT = RedisLimits(connect_timeout_ms=5_000)


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


@pytest.fixture(scope="session")
def dynamodb(dynamodb_url):
    """DynamoDB Local for the whole session; each test makes a table of its own."""
    with open_tables(dynamodb_url) as tables:
        yield tables


@pytest.fixture
def empty_cluster(redis_cluster):
    for node in redis_cluster.nodes:
        with redis.Redis.from_url(node.url) as client:
            client.flushall()
    return redis_cluster


@pytest.fixture(params=["memory", "sqlite", "redis", "redis cluster", "dynamodb"])
def store_kind(request):
    return request.param


@pytest.fixture
def clock(store_kind):
    return PassingClock() if store_kind.startswith("redis") else ManualClock()


@pytest.fixture
async def store(store_kind, clock, tmp_path, request):
    if store_kind == "memory":
        opened = MemoryStore(clock)
    elif store_kind == "sqlite":
        opened = SqliteStore(tmp_path / "record.sqlite", clock)
    elif store_kind == "dynamodb":
        # On a busy machine the server is silent for longer than in production one would wait; what it then did all the
        # same is not counted as taken when it is asked again.
        opened = DynamoStore(await request.getfixturevalue("dynamodb").calls(silence_max_ms=20_000), clock)
    elif store_kind == "redis cluster":
        opened = RedisClusterStore(request.getfixturevalue("empty_cluster").url, limits=PATIENT)
    else:
        opened = RedisStore(request.getfixturevalue("empty_redis"), limits=PATIENT)
    yield opened
    await opened.close()
