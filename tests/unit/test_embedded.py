import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer

from core.errors import BrokerError
from demo.log import load_log
from demo.replay import Replay
from services.broker import EmbeddedBroker
from services.embedded import start_embedded

DEADLINE_S = 5.0

# A parent that starts the services, says where they are and never ends by itself.
PARENT = """
import json, sys, threading
from services.embedded import start_embedded
services = start_embedded({"clicks": 2})
print(json.dumps([services.process.pid, services.broker, services.redis_url, str(services.directory)]), flush=True)
threading.Event().wait()
"""


@pytest.fixture
def broker():
    broker = EmbeddedBroker({"impressions": 2, "clicks": 2, "conversions": 2})
    yield broker
    broker.close()


def test_a_consumer_group_reads_what_a_producer_sent(broker):
    """
    Keys, values and the producer's own timestamps survive the broker; a group starts without Kafka's usual 3 s.
    """
    producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
    producer.produce("clicks", key="7", value=b"{}", timestamp=1_800_000_000_000)
    assert producer.flush(DEADLINE_S) == 0
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "readers", "auto.offset.reset": "earliest"})
    consumer.subscribe(["clicks"])

    started = time.monotonic()
    record = consumer.poll(DEADLINE_S)
    elapsed_s = time.monotonic() - started
    consumer.close()

    assert (record.key(), record.value(), record.timestamp()[1]) == (b"7", b"{}", 1_800_000_000_000)
    assert elapsed_s < 2.5


def test_topics_have_the_partitions_that_were_asked_for(broker):
    """
    The mock cluster would make up a topic with 4 partitions for whoever asks; ours must be there before.
    """
    topics = Producer({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=DEADLINE_S).topics

    assert {name: len(topic.partitions) for name, topic in topics.items()} == {
        "impressions": 2,
        "clicks": 2,
        "conversions": 2,
    }


def test_a_topic_that_cannot_be_is_refused():
    """
    A wrong number of partitions stops the start with the topic's name, instead of a worker that waits for it.
    """
    with pytest.raises(BrokerError, match="'clicks' with 0 partitions"):
        EmbeddedBroker({"clicks": 0})


def test_a_replay_stays_within_its_bound_and_delivers_everything(broker):
    """
    The broker forgets what is more than 5 MB back: a replay that runs ahead of the platform loses events.
    """
    events = load_log()[:4_000]
    ahead: list[int] = []

    def accounted() -> int:
        ahead.append(replay.sent - replay.delivered)
        return replay.delivered

    replay = Replay(
        {"bootstrap.servers": broker.bootstrap},
        accounted=accounted,
        stop=threading.Event(),
        ahead_events_max=1_000,
    )
    live = []

    assert replay.load(events[:-200]) == 3_800
    assert replay.live(events[-200:], live.append, events_per_s=10_000) == 200

    assert replay.delivered == 4_000
    assert max(ahead) <= 1_000
    assert live == events[-200:]


def test_a_replay_that_is_stopped_ends_soon(broker):
    """
    Ctrl-C while the platform is stuck: the replay must not be what everybody waits for.
    """
    stop = threading.Event()
    replay = Replay(
        {"bootstrap.servers": broker.bootstrap},
        accounted=lambda: 0,
        stop=stop,
        ahead_events_max=1_000,
    )
    loading = threading.Thread(target=replay.load, args=(load_log()[:4_000],))
    loading.start()
    _wait_until(lambda: replay.sent == 1_000)

    stop.set()
    loading.join(1.0)

    assert not loading.is_alive()
    assert replay.live(load_log()[:200]) == 0


def test_the_services_start_together_and_stop_without_a_trace():
    """
    Everything that the demo needs, from pip alone, and nothing left of it afterwards.
    """
    services = start_embedded({"clicks": 2})
    pids = _pids(services.process.pid, services.redis_url)
    assert services.directory.is_dir()
    assert services.is_alive()
    _connect(services.broker)

    services.stop()

    assert not services.is_alive()
    assert not services.directory.exists()
    assert not any(_runs(pid) for pid in pids)
    services.stop()


def test_a_child_that_was_killed_leaves_nothing_after_the_stop():
    """
    The child cannot clean up after kill -9, and its Redis would live on; the parent knows what was left.
    """
    services = start_embedded({"clicks": 2})
    pids = _pids(services.process.pid, services.redis_url)
    os.kill(services.process.pid, signal.SIGKILL)
    _wait_until(lambda: not services.is_alive())

    services.stop()

    _wait_until(lambda: not any(_runs(pid) for pid in pids))
    assert not services.directory.exists()


def test_services_that_are_killed_are_missed():
    """
    The demo stood still in silence: nothing was read or written any more, and nobody said why.
    """
    services = start_embedded({"clicks": 2})
    services.require_alive()
    os.kill(services.process.pid, signal.SIGKILL)
    _wait_until(lambda: not services.is_alive())

    with pytest.raises(BrokerError, match=r"are gone: their process ended with status -9; .* start again"):
        services.require_alive()

    services.stop()


def test_the_services_end_with_their_redis():
    """
    A Redis that is gone makes every read slower and every figure of the demo strange, for no visible reason.
    """
    services = start_embedded({"clicks": 2})
    _, redis_pid = _pids(services.process.pid, services.redis_url)
    os.kill(redis_pid, signal.SIGKILL)
    _wait_until(lambda: not services.is_alive())

    with pytest.raises(BrokerError, match="are gone: redis-server ended"):
        services.require_alive()

    services.stop()
    assert not services.directory.exists()


def test_a_start_that_fails_says_why():
    """
    The child's own words are in the error, not in a file that nobody finds.
    """
    with pytest.raises(BrokerError, match="'clicks' with 0 partitions"):
        start_embedded({"clicks": 0})


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_the_services_die_with_their_parent(death):
    """
    A parent killed by kill -9 has no chance to clean up: brokers, Redises and directories would pile up.
    """
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=_root()) as parent:
        assert parent.stdout is not None
        child, bootstrap, redis_url, directory = json.loads(parent.stdout.readline())
        pids = _pids(child, redis_url)
        _connect(bootstrap)
        parent.send_signal(death)

    started = time.monotonic()
    _wait_until(lambda: not any(_runs(pid) for pid in pids) and not Path(directory).exists())

    assert time.monotonic() - started < 1.0


def _root() -> Path:
    return Path(__file__).parent.parent.parent


def _pids(child: int, redis_url: str | None) -> list[int]:
    """
    The processes that must go: the child, and Redis where there is one.
    """
    if redis_url is None:
        return [child]
    with redis.Redis.from_url(redis_url) as client:
        return [child, client.info("server")["process_id"]]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended; it waits for whoever adopted it.
    status = Path(f"/proc/{pid}/stat")
    try:
        return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
    except (FileNotFoundError, ProcessLookupError):
        return False


def _connect(address: str) -> None:
    host, port = address.split(":")
    socket.create_connection((host, int(port)), timeout=DEADLINE_S).close()


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
