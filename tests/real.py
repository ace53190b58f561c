"""Real servers for tests: containers where a Docker engine answers, plain processes where none does.

The same tests run on both. A server that cannot be had either way fails the tests that need it: none is skipped.
"""

import os
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import docker
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from testcontainers.core.container import DockerContainer

from services.dynamodb_local import lists_tables, start_dynamodb_local
from services.redis_cluster import start_cluster
from services.redis_server import start_redis
from services.server_process import HOST, free_ports

# The versions that plain processes have: services/*.pom.xml.
KAFKA_IMAGE = "apache/kafka:4.3.1"
DYNAMODB_IMAGE = "amazon/dynamodb-local:2.6.1"
REDIS_IMAGE = "redis:7"

DEADLINE_S = 90.0


@dataclass(frozen=True, slots=True)
class RealKafka:
    """Where Kafka is, whatever runs it."""

    bootstrap: str


@dataclass(frozen=True, slots=True)
class RealRedis:
    """Where Redis is, whatever runs it."""

    url: str


@cache
def has_docker() -> bool:
    """Return whether a Docker engine answers, asked once."""
    place = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if place.startswith("unix://") and not connects(place.removeprefix("unix://")):
        return False
    try:
        client = docker.from_env(timeout=5)
    except docker.errors.DockerException:
        return False
    client.close()
    return True


def connects(path) -> bool:
    # Asked before docker's client is, which leaves its socket open where nobody listens.
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


@contextmanager
def open_kafka():
    # Clients are told where the broker is by the broker, so the port outside must be known before it starts.
    (port,) = free_ports(1)
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{HOST}:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "5",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    container = on_loopback(DockerContainer(KAFKA_IMAGE).with_envs(**settings), 9092, port)
    client = AdminClient({"bootstrap.servers": f"{HOST}:{port}", "reconnect.backoff.max.ms": 200, "log_level": 0})
    with running(container, lambda: lists_topics(client)):
        yield RealKafka(f"{HOST}:{port}")


@contextmanager
def open_dynamodb(directory):
    if not has_docker():
        server = start_dynamodb_local(directory)
        try:
            yield server.url
        finally:
            server.stop()
        return
    container = on_loopback(DockerContainer(DYNAMODB_IMAGE), 8000)
    with running(container, lambda: lists_tables(container.get_exposed_port(8000))):
        yield f"http://{HOST}:{container.get_exposed_port(8000)}"


@contextmanager
def open_redis(directory):
    if not has_docker():
        server = start_redis(directory)
        try:
            yield RealRedis(server.url)
        finally:
            server.stop()
        return
    container = on_loopback(DockerContainer(REDIS_IMAGE), 6379)
    with running(container, lambda: pings(f"redis://{HOST}:{container.get_exposed_port(6379)}/0")):
        yield RealRedis(f"redis://{HOST}:{container.get_exposed_port(6379)}/0")


@contextmanager
def open_redis_cluster(directory):
    # Plain processes even where Docker is: nodes tell clients and each other the addresses at which they listen.
    cluster = start_cluster(directory)
    try:
        yield cluster
    finally:
        cluster.stop()


def on_loopback(container, port, host_port=None):
    """Publish a port on 127.0.0.1 alone, at a free port by default; ``with_bind_ports`` would open it to the network."""
    container.ports[f"{port}/tcp"] = (HOST, host_port)
    return container


@contextmanager
def running(container, answers):
    """Run a container until the end of the block; what it said is part of the failure if it does not answer."""
    with container:
        deadline = time.monotonic() + DEADLINE_S
        while not answers():
            said = b"\n".join(container.get_logs()).decode(errors="replace")[-2_000:]
            assert time.monotonic() < deadline, f"{container.image} did not answer within {DEADLINE_S:.0f} s:\n{said}"
            time.sleep(0.1)
        yield


def lists_topics(client) -> bool:
    try:
        return bool(client.list_topics(timeout=1).brokers)
    except KafkaException:
        return False


def pings(url) -> bool:
    with redis.Redis.from_url(url, socket_timeout=1) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
