"""Two workers that share the load of a real Kafka: short with every run of the tests, at length by `make acceptance`."""

import asyncio
from urllib.parse import urlencode

import pytest
import redis

from demo.log import load_log
from stores.dynamodb_table import create_table
from tests.acceptance.kafka import clear_topics, make_topics, now_ms
from tests.acceptance.two_workers import Found, Shared, share_the_load
from tests.dynamodb_kit import open_tables

SHORT_EVENTS, SHORT_EVENTS_PER_S = 4_000, 400.0
LONG_EVENTS_PER_S = 1_500.0


@pytest.fixture
def start_of(kafka, redis_server, tmp_path):
    """Return what makes settings for workers on a Kafka without Freshet's events, an empty Redis and a new record."""
    clear_topics(kafka.bootstrap)
    make_topics(kafka.bootstrap)
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()

    def start_of(record: str) -> Shared:
        settings = {"FRESHET_BROKER": kafka.bootstrap, "FRESHET_REDIS": redis_server.url, "FRESHET_RECORD": record}
        return Shared(settings, tmp_path)

    return start_of


@pytest.fixture
def sqlite_record(tmp_path):
    return f"sqlite:///{tmp_path / 'record.sqlite'}"


@pytest.fixture
def dynamodb_record(dynamodb_url):
    with open_tables(dynamodb_url) as tables:
        place = tables.place()
        asyncio.run(_create(tables, place))
        yield f"dynamodb://{place.table}?{urlencode({'region': place.region, 'endpoint': place.endpoint}, safe=':/')}"


async def _create(tables, place) -> None:
    calls = tables.open(place)
    await create_table(calls)
    await calls.close()


def assert_exact(found: Found) -> None:
    assert (found.served.values_wrong, found.served.first_wrong) == (0, [])
    assert found.accounts == []
    assert found.rows == []


async def test_one_worker_joins_and_one_leaves_under_load(start_of, sqlite_record):
    """
    Scaling out and in happens under load; nothing may be lost, doubled or served otherwise than a batch would count.
    """
    events = load_log(now_ms())[-SHORT_EVENTS:]

    found = await share_the_load(start_of(sqlite_record), events, events_per_s=SHORT_EVENTS_PER_S)

    assert_exact(found)
    assert found.served.values_checked > 20_000
    assert found.compared > 2_000


@pytest.mark.long
@pytest.mark.parametrize("record", ["sqlite_record", "dynamodb_record"])
async def test_the_whole_log_is_exact_while_one_worker_joins_and_one_leaves(start_of, request, record):
    """
    The same with every event of the demo, on each record that a worker may have in production.
    """
    events = load_log(now_ms())

    found = await share_the_load(start_of(request.getfixturevalue(record)), events, events_per_s=LONG_EVENTS_PER_S)

    assert_exact(found)
    assert found.served.values_checked == 454_723
