"""What all systems run on: one Kafka broker and one Redis on one core, with the events in their topics."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from app.kafka.access import KafkaAccess
from app.kafka.admin import KafkaAdmin, NewTopicState
from app.kafka.groups import group_of
from app.kafka.topics import Kind, plan_topics
from app.settings import Role
from core.definitions import Registry
from core.topics import DEAD_LETTERS
from services.kafka import start_kafka
from services.redis_server import start_redis

_DEADLINE_S = 60.0
_LOOK_S = 0.02
"""Cheap enough to be asked often: of two seconds that are measured, a tenth more would be one in twenty."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where everything is.

    Attributes:
        directory: For logs and records; it disappears at the end.
    """

    broker: str
    redis_url: str
    directory: Path

    def create(self, topics: Iterable[NewTopicState]) -> None:
        """Make topics that are not there."""
        KafkaAdmin(KafkaAccess((self.broker,))).create(topics)

    def clear(self, registry: Registry, roles: Sequence[Role], *kinds: Kind) -> None:
        """Make topics of these kinds anew and let the groups of roles begin at the start of theirs.

        It waits until nobody is a member: a worker that was stopped is one until its session is over.
        """
        client, admin = AdminClient({"bootstrap.servers": self.broker}), KafkaAdmin(KafkaAccess((self.broker,)))
        until(lambda: not admin.members(map(group_of, Role)), "no worker is a member")
        for role in roles:
            for deleted in client.delete_consumer_groups([group_of(role)]).values():
                # There is none before the first run.
                with contextlib.suppress(Exception):
                    deleted.result(_DEADLINE_S)
        plans = [plan for plan in plan_topics(registry) if plan.kind in kinds and plan.name != DEAD_LETTERS]
        there = set(client.list_topics(timeout=_DEADLINE_S).topics)
        old = [plan.name for plan in plans if plan.name in there]
        if old:
            for deleted in client.delete_topics(old).values():
                deleted.result(_DEADLINE_S)
            until(lambda: not set(old) & set(client.list_topics(timeout=_DEADLINE_S).topics), "topics are gone")
        self.create(plan.new(replicas=1) for plan in plan_topics(registry) if plan.kind is not Kind.SOURCE)

    def fill(self, topic: str, events: Iterable[tuple[str, int, bytes]], *, partitions: int) -> None:
        """Make a topic and write (key, time, value) to it, as any producer would."""
        self.create([NewTopicState(topic, partitions, 1, {"retention.ms": str(7 * 86_400_000)})])
        producer = Producer(
            {
                "bootstrap.servers": self.broker,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 50,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        for key, time_ms, value in events:
            producer.produce(topic, key=key, value=value, timestamp=time_ms, on_delivery=_delivered)
            producer.poll(0)
        if producer.flush(_DEADLINE_S):
            raise TimeoutError(f"not all of {topic} was acknowledged")


@contextlib.contextmanager
def open_ground(*, core: int) -> Iterator[Ground]:
    """Start the services, pinned to a core with this process; stop them at the end."""
    with tempfile.TemporaryDirectory(prefix="freshet-bench-") as name, contextlib.ExitStack() as opened:
        directory = Path(name)
        kafka = start_kafka(directory)
        opened.callback(kafka.stop)
        redis = start_redis(directory)
        opened.callback(redis.stop)
        for pid in (kafka.brokers[0].pid, redis.pid, os.getpid()):
            pin(pid, core)
        yield Ground(kafka.bootstrap, redis.url, directory)


def pin(pid: int, core: int) -> None:
    """Keep a process and all its threads on one core."""
    for thread in psutil.Process(pid).threads():
        os.sched_setaffinity(thread.id, {core})


def until(condition: Callable[[], Any], what: str, *, deadline_s: float = _DEADLINE_S) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: It did not come true.
    """
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {deadline_s:.0f} s: {what}")
        time.sleep(_LOOK_S)


def _delivered(error: object, _message: object) -> None:
    if error is not None:
        raise RuntimeError(str(error))
