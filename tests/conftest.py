"""Real services for every test that asks: one of each for the whole session, started when the first test wants it."""

import pytest

from tables.engine import MEMORY
from tests.engines import disk_engine, using
from tests.real import RealKafka, has_docker, open_dynamodb, open_kafka, open_redis, open_redis_cluster
from tests.secured_kafka import start_secured_kafka


@pytest.fixture(scope="module", params=["memory", "disk"])
def each_engine(request):
    """Every engine in turn as the one that tables are made with."""
    with using(MEMORY if request.param == "memory" else disk_engine()):
        yield


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory):
    """A Kafka broker that asks for certificates and passwords, and for nothing at ``.cluster.bootstrap``."""
    started = start_secured_kafka(tmp_path_factory.mktemp("secured-kafka"))
    yield started
    started.cluster.stop()


@pytest.fixture(scope="session")
def kafka(request):
    """A Kafka broker, at ``.bootstrap``; tests share it, so each has topics and groups of its own."""
    if has_docker():
        with open_kafka() as opened:
            yield opened
        return
    # A broker takes seconds to start and half a gigabyte, and that one lets in everybody too.
    yield RealKafka(request.getfixturevalue("secured_kafka").cluster.bootstrap)


@pytest.fixture(scope="session")
def dynamodb_url(tmp_path_factory):
    """The endpoint of a DynamoDB Local; tests share it, so each has tables of its own."""
    with open_dynamodb(tmp_path_factory.mktemp("dynamodb")) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """A Redis server, at ``.url``; tests share it, and may empty it."""
    with open_redis(tmp_path_factory.mktemp("redis")) as opened:
        yield opened


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory):
    """A Redis Cluster of three nodes, at ``.url``; tests share it, and may empty it."""
    with open_redis_cluster(tmp_path_factory.mktemp("redis-cluster")) as opened:
        yield opened
