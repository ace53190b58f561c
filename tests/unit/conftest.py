"""What several tests of the serving side begin with; a module that wants another one makes its own of that name."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.metrics import Metrics
from serving.tiers.local import LocalCopies
from serving.tiers.reader import TieredReader
from tests.clock import ManualClock
from tests.serving_kit import NOW_MS, ServingKit
from tests.tiers_kit import CountingStore


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def cache(clock):
    return CountingStore("cache", clock)


@pytest.fixture
def record(clock):
    return CountingStore("record", clock)


@pytest.fixture
def local():
    """Copies of a worker that hears of the changes of all users but one."""
    return LocalCopies(bytes_max=100_000, is_announced=lambda key: key.pk != "user#i2")


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def reader(local, cache, record, clock, metrics):
    return TieredReader(local=local, cache=cache, record=record, clock=clock, metrics=metrics)


@pytest.fixture
def kit():
    return ServingKit(ManualClock(NOW_MS))


@pytest.fixture
async def client(kit):
    """A client of the kit's routes."""
    async with TestClient(TestServer(kit.web_app())) as client:
        yield client
