"""Real services for every test that asks: one of each for the whole session, started when the first test wants it."""

import pytest

from tests.real import open_dynamodb, open_kafka, open_redis, open_redis_cluster


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """A Kafka broker, at ``.bootstrap``; tests share it, so each has topics and groups of its own."""
    with open_kafka(tmp_path_factory.mktemp("kafka")) as opened:
        yield opened


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
