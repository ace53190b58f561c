"""Running workers, as a user would have them: processes of their own on embedded services, read over HTTP."""

import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from app.endpoints import embedded_topics
from app.worker_process import WorkerProcess, start_worker
from features import REGISTRY
from services.embedded import EmbeddedServices, start_embedded

DEADLINE_S = 15.0


def until(condition: Callable[[], Any], what: str, *, deadline_s: float = DEADLINE_S) -> Any:
    """Return what a condition returns once it is true: other processes tell of themselves only when they are asked."""
    deadline = time.monotonic() + deadline_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {deadline_s:.0f} s: {what}"
        time.sleep(0.02)
    return result


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def http(url: str, body: Any = None) -> tuple[int, Any]:
    """Return the status and the body of an answer, decoded if it is JSON."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(url, data=data, timeout=DEADLINE_S) as answer:  # noqa: S310  # loopback
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def read_values(base_url: str, entities: Mapping[str, Sequence[Any]], *features: str) -> list[list[Any]]:
    """Return the values of features, one list per feature, without the key columns."""
    status, answer = http(f"{base_url}/get-online-features", {"entities": dict(entities), "features": list(features)})
    assert status == 200, answer
    return [result["values"] for result in answer["results"]][len(entities) :]


@dataclass
class Sender:
    """Produces records as they are, and knows where each has come to stand."""

    producer: Producer
    places: list[tuple[str, int, int]] = field(default_factory=list)

    def send(
        self, topic: str, *values: bytes | None, partition: int = 0, time_ms: int | None = None
    ) -> list[tuple[str, int, int]]:
        """Send records; return (topic, partition, offset) of each."""
        self.places.clear()
        at_ms = time.time_ns() // 1_000_000 if time_ms is None else time_ms
        for value in values:
            self.producer.produce(
                topic, value=value, partition=partition, timestamp=at_ms, on_delivery=self._on_delivery
            )
        assert self.producer.flush(DEADLINE_S) == 0
        return list(self.places)

    def _on_delivery(self, error: Any, message: Any) -> None:
        assert error is None, error
        self.places.append((message.topic(), message.partition(), message.offset()))


def new_sender(services: EmbeddedServices) -> Sender:
    settings = {"bootstrap.servers": services.broker, "enable.idempotence": True, "log_level": 2}
    # Larger than a worker takes: what it does with such a record is part of what is tested.
    return Sender(Producer({**settings, "message.max.bytes": 4_000_000}))


def environment_of(services: EmbeddedServices, role: str = "all") -> dict[str, str]:
    """Return the settings of a worker on embedded services."""
    return {
        "FRESHET_BROKER": services.broker,
        "FRESHET_REDIS": services.redis_url or "none",
        "FRESHET_RECORD": f"sqlite:///{services.record_path}",
        "FRESHET_REGISTRY": "features:REGISTRY",
        "FRESHET_ROLE": role,
        "FRESHET_APPLY": "true",
    }


def start(services: EmbeddedServices, role: str = "all") -> WorkerProcess:
    """Start a worker that logs beside the services; it is not ready yet."""
    log: Path = services.directory / f"{role}.log"
    return start_worker(environment_of(services, role), web_port=free_port(), log=log)


@pytest.fixture(scope="module", autouse=True)
def _own_settings_alone():
    """Whoever runs the tests may have settings for workers of their own."""
    mine = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("FRESHET_")}
    yield
    os.environ.update(mine)


@pytest.fixture(scope="module")
def services():
    started = start_embedded(embedded_topics(REGISTRY))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def sender(services):
    return new_sender(services)


@pytest.fixture(scope="module")
def worker(services):
    """One worker of all roles for all tests of a module; each test has entities of its own."""
    started = start(services)
    try:
        started.wait_ready()
        yield started
    finally:
        started.stop()
