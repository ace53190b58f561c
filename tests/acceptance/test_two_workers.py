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

SHORT_EVENTS, SHORT_EVENTS_PER_S = 2_000, 400.0
LONG_EVENTS_PER_S = {"sqlite": 1_500.0, "dynamodb": 300.0}
"""What two cores sustain with everything on them: DynamoDB Local takes more of them than the rest."""


@pytest.fixture(params=["sqlite", "dynamodb"])
def record(request, tmp_path):
    """A new record, as a setting."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'record.sqlite'}"
        return
    with open_tables(request.getfixturevalue("dynamodb_url")) as tables:
        place = tables.place()
        asyncio.run(_create(tables, place))
        yield f"dynamodb://{place.table}?{urlencode({'region': place.region, 'endpoint': place.endpoint}, safe=':/')}"


@pytest.fixture
def shared(kafka, redis_server, record, tmp_path):
    """A Kafka without Freshet's events, an empty Redis and a new record."""
    clear_topics(kafka.bootstrap)
    make_topics(kafka.bootstrap)
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    settings = {"FRESHET_BROKER": kafka.bootstrap, "FRESHET_REDIS": redis_server.url, "FRESHET_RECORD": record}
    return Shared(settings, tmp_path)


async def _create(tables, place) -> None:
    calls = tables.open(place)
    await create_table(calls)
    await calls.close()


def assert_exact(found: Found) -> None:
    assert (found.served.values_wrong, found.served.first_wrong) == (0, [])
    assert found.accounts == []
    assert found.rows == []


@pytest.mark.parametrize("record", ["sqlite"], indirect=True)
async def test_one_worker_joins_and_one_leaves_under_load(shared):
    """
    Scaling out and in happens under load; nothing may be lost, doubled or served otherwise than a batch would count.
    """
    events = load_log(now_ms())[-SHORT_EVENTS:]

    found = await share_the_load(shared, events, events_per_s=SHORT_EVENTS_PER_S)

    assert_exact(found)
    assert found.served.values_checked > 20_000
    assert found.compared > 2_000


@pytest.mark.long
@pytest.mark.parametrize(("record", "events_per_s"), LONG_EVENTS_PER_S.items(), indirect=["record"])
async def test_the_whole_log_is_exact_while_one_worker_joins_and_one_leaves(shared, events_per_s):
    """
    The same with every event of the demo, on each record that a worker may have in production.
    """
    found = await share_the_load(shared, load_log(now_ms()), events_per_s=events_per_s)

    assert_exact(found)
    assert found.served.values_checked > 450_000
