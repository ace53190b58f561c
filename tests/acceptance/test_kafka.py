"""Kafka as in production: how a worker is let in, what it refuses, and two workers that share the load."""

import asyncio
import json
import threading
import time

import pytest
from aiokafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from app.clock import SystemClock
from app.endpoints import Endpoints, open_cache, open_record
from app.groups import migrate
from app.kafka_access import KafkaAccess
from app.kafka_admin import KafkaAdmin
from app.topics import plan_topics
from app.worker_process import WorkerProcess, start_worker
from core.errors import ConfigurationError
from core.ports import RowKey
from core.rows import unpack_change
from core.topics import changelog_topic, repartition_topic
from demo.check import check_served
from demo.figures import read_figures
from demo.log import load_log
from demo.oracle import Oracle
from demo.replay import Replay
from features import REGISTRY
from services.redis_server import start_redis
from tables.changelog import ChangelogReader
from tests.acceptance.conftest import free_port, http, until
from tests.acceptance.kafka import PASSWORD, freshet, start_secured_kafka

BUSY_S = 120.0
EVENTS = 12_000


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    started = start_secured_kafka(tmp_path_factory.mktemp("kafka"))
    yield started
    started.cluster.stop()


@pytest.fixture(scope="module")
def admin(kafka):
    return KafkaAdmin(KafkaAccess((kafka.cluster.bootstrap,)))


@pytest.fixture
def topics(kafka, tmp_path):
    """All topics, new ones: what an earlier test left is deleted with its offsets."""
    client = AdminClient({"bootstrap.servers": kafka.cluster.bootstrap})
    ours = {plan.name for plan in plan_topics(REGISTRY)}

    def left() -> set[str]:
        return ours & set(client.list_topics(timeout=30).topics)

    if left():
        for deleted in client.delete_topics(list(left())).values():
            deleted.result(30)
    until(lambda: not left(), "the topics are gone", deadline_s=BUSY_S)
    status, said = freshet(kafka.plain, "topics", "create", "--sources", "4", cwd=tmp_path)
    assert status == 0, said
    return client


def worker_on(kafka, directory, *, role="all", redis="none", settings=None) -> WorkerProcess:
    number = len(list(directory.glob("*.log")))
    environment = {
        **(settings or kafka.plain),
        "FRESHET_ROLE": role,
        "FRESHET_REDIS": redis,
        "FRESHET_RECORD": f"sqlite:///{directory / 'record.sqlite'}",
        "FRESHET_APPLY": "true",
    }
    return start_worker(environment, web_port=free_port(), log=directory / f"worker{number}.log")


def ended(worker: WorkerProcess) -> str:
    """Return what a worker said that ends by itself."""
    until(lambda: not worker.is_alive, "the worker has ended", deadline_s=BUSY_S)
    return worker.log.read_text()


@pytest.mark.parametrize("way", ["certificates", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_commands_are_let_in_with_certificates_and_passwords(kafka, topics, tmp_path, way):
    """
    A cluster that asks for more than an address is the rule; every client must know how to answer.
    """
    settings = kafka.certificates if way == "certificates" else kafka.passwords(way)
    event = json.dumps({"event_id": way, "user_id": 1, "video_id": 1, "tab": 0})

    checked = freshet(settings, "topics", "check", cwd=tmp_path)
    sent = freshet(settings, "send", "clicks", event, cwd=tmp_path)
    letters = freshet(settings, "dead-letters", cwd=tmp_path)

    assert (checked, sent, letters) == (
        (0, "10 topics: no problems\n"), (0, "1 sent to clicks\n"), (0, "no dead letters\n"),
    )  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [
    ({"FRESHET_BROKER": "127.0.0.1:1"}, ["127.0.0.1:1 does not answer", "Connection refused", "FRESHET_BROKER"]),
    ({"FRESHET_BROKER_PASSWORD": "wrong-one"}, ["does not let in the user 'freshet'", "FRESHET_BROKER_USER"]),
    ({"FRESHET_BROKER": "localhost"}, ["shows the certificate of another host", "not valid for 'localhost'"]),
    ({"FRESHET_BROKER_CA": "server.crt"}, ["certificate that is not trusted", "FRESHET_BROKER_CA"]),
])  # fmt: skip
def test_a_worker_that_is_not_let_in_says_why_in_one_line(kafka, tmp_path, change, words):
    """
    Clients try for ever without a word; whoever starts a worker at night needs the reason and the setting.
    """
    settings = {**kafka.passwords(), **change}
    if settings["FRESHET_BROKER"] == "localhost":
        settings["FRESHET_BROKER"] = kafka.cluster.bootstrap_for("SASL_SSL").replace("127.0.0.1", "localhost")
    if "FRESHET_BROKER_CA" in change:
        settings["FRESHET_BROKER_CA"] = str(kafka.directory / "server.crt")

    said = ended(worker_on(kafka, tmp_path, settings=settings))

    told = said[said.index("freshet: ") :].strip()
    assert [word for word in words if word not in told] == []
    assert len(told.splitlines()) == 1
    assert PASSWORD not in said
    assert "wrong-one" not in said


def test_every_problem_of_the_topics_is_told_at_once(kafka, topics, tmp_path):
    """
    A worker on a wrong changelog loses rows a week later; it must not start, and one look must tell everything.
    """
    names = ["freshet.user", "freshet.video.changelog"]
    for deleted in topics.delete_topics(["impressions", *names]).values():
        deleted.result(30)
    until(lambda: not {"impressions", *names} & set(topics.list_topics(timeout=30).topics), "gone", deadline_s=BUSY_S)
    for made in topics.create_topics([
        NewTopic(names[0], num_partitions=2, replication_factor=1, config={"retention.ms": "1000"}),
        NewTopic(names[1], num_partitions=8, replication_factor=1),
    ]).values():  # fmt: skip
        made.result(30)

    status, said = freshet(kafka.plain, "topics", "check", cwd=tmp_path)
    refused = ended(worker_on(kafka, tmp_path))

    lines = [
        "- topic impressions (source) does not exist",
        "- topic freshet.user (repartition topic) has 2 partitions instead of 8",
        "- topic freshet.user (repartition topic) has retention.ms=1000",
        "- topic freshet.video.changelog (changelog) has cleanup.policy=delete",
        "- topic freshet.video.changelog (changelog) has min.compaction.lag.ms=0",
    ]
    assert status == 1
    assert [line.split(";")[0].split(":")[0].split(",")[0] for line in said.strip().splitlines()] == lines
    assert [line for line in lines if line not in refused] == []


def test_one_group_at_a_time_and_offsets_handed_over(kafka, topics, admin, tmp_path):
    """
    A forgotten worker of role all beside split roles would be a second writer; after it is stopped, split roles go
    on where it was.
    """
    first = worker_on(kafka, tmp_path)
    try:
        first.wait_ready(deadline_s=BUSY_S)
        event = json.dumps({"event_id": "one", "user_id": 1, "video_id": 1, "tab": 0})
        freshet(kafka.plain, "send", "clicks", event, cwd=tmp_path)
        until(lambda: read_figures(first.base_url).accounted == 1, "the event is applied", deadline_s=BUSY_S)
        until(lambda: "clicks" in {topic for topic, _ in admin.offsets("freshet-all")}, "committed", deadline_s=BUSY_S)

        refused = ended(worker_on(kafka, tmp_path, role="dispatcher"))
        with pytest.raises(ConfigurationError, match="group freshet-all has 1 members"):
            migrate(admin, REGISTRY, to_split=True)
    finally:
        first.stop()
    until(lambda: not admin.members(["freshet-all"]), "the session has timed out", deadline_s=BUSY_S)
    held = admin.offsets("freshet-all")
    done = migrate(admin, REGISTRY, to_split=True)
    again = migrate(admin, REGISTRY, to_split=True)

    assert "group freshet-all has 1 members" in refused
    assert "freshet roles migrate split" in refused
    assert admin.offsets("freshet-dispatcher") | admin.offsets("freshet-aggregator") == held
    assert done[1].startswith("clicks: 1 of 1")
    assert all(" 0 of " in f" {line.partition(': ')[2]}" for line in again)


def test_a_topic_made_anew_stops_the_start_until_it_is_accepted(kafka, topics, tmp_path):
    """
    Stamps would take every event of the new topic for a replay of the old one, and nobody would notice.
    """
    first = worker_on(kafka, tmp_path)
    first.wait_ready(deadline_s=BUSY_S)
    first.stop()
    for deleted in topics.delete_topics(["clicks"]).values():
        deleted.result(30)
    until(lambda: "clicks" not in topics.list_topics(timeout=30).topics, "gone", deadline_s=BUSY_S)
    settings = {
        **kafka.plain, "FRESHET_REDIS": "none", "FRESHET_RECORD": f"sqlite:///{tmp_path / 'record.sqlite'}",
    }  # fmt: skip
    freshet(settings, "topics", "create", "--sources", "4", cwd=tmp_path)

    refused = ended(worker_on(kafka, tmp_path))
    accepted = freshet(settings, "topics", "accept", "clicks", cwd=tmp_path)
    second = worker_on(kafka, tmp_path)
    try:
        second.wait_ready(deadline_s=BUSY_S)
    finally:
        second.stop()

    assert "topic clicks was made anew: its id is " in refused
    assert accepted[0] == 0


async def test_two_workers_share_the_load_while_one_joins_and_one_leaves(kafka, topics, admin, tmp_path):
    """
    Scaling out and in happens under load; nothing may be lost, doubled or served otherwise than a batch would count.
    """
    redis = start_redis(tmp_path)
    workers = [worker_on(kafka, tmp_path, redis=redis.url)]
    events = load_log(int(time.time() * 1000))[-EVENTS:]
    replay = Replay(
        events, kafka.cluster.bootstrap, accounted=lambda: 0, stop=threading.Event(), live_share=1.0
    )  # fmt: skip

    async def reached(condition, what):
        await asyncio.to_thread(until, condition, what, deadline_s=BUSY_S)

    try:
        await asyncio.to_thread(workers[0].wait_ready, deadline_s=BUSY_S)
        playing = asyncio.create_task(asyncio.to_thread(replay.live, events_per_s=400.0))
        await reached(lambda: replay.sent > EVENTS // 6, "the load has begun")
        workers.append(worker_on(kafka, tmp_path, redis=redis.url))
        await asyncio.to_thread(workers[1].wait_ready, deadline_s=BUSY_S)
        assert not playing.done()
        workers[0].process.terminate()
        await playing
        url = workers[1].base_url
        await reached(lambda: not workers[0].is_alive, "the first has left")
        await reached(lambda: _owns_all(url), "the second owns everything")
        # Its lag knows nothing of partitions from which it has not fetched yet; committed offsets do.
        for read in (list(REGISTRY.sources), [repartition_topic(name) for name in REGISTRY.entities]):
            ends = await _ends(kafka, admin, read)
            await reached(lambda ends=ends: _is_committed(admin, ends), "everything is durable")
        result = await check_served(url, Oracle(events))

        assert (result.values_wrong, result.first_wrong) == (0, [])
        assert result.values_checked > 50_000
        await _assert_same_rows(kafka, tmp_path, redis.url)
    finally:
        for worker in workers:
            worker.stop()
        redis.stop()


async def _ends(kafka, admin, topics) -> dict[tuple[str, int], int]:
    """Return where partitions end that are not empty."""
    reader = ChangelogReader(KafkaAccess((kafka.cluster.bootstrap,)).for_aiokafka())
    counts = {topic: facts[1] for topic, facts in admin.topic_facts(topics).items()}
    ends = await reader.ends(
        [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
    )
    return {(tp.topic, tp.partition): end for tp, end in ends.items() if end}


def _is_committed(admin, ends) -> bool:
    committed = admin.offsets("freshet-all")
    return all(committed.get(place, 0) >= end for place, end in ends.items())


def _owns_all(url: str) -> bool:
    _, facts = http(f"{url}/ready/ingest")
    return facts["partitions"] == 12 + sum(entity.partitions for entity in REGISTRY.entities.values())


async def _assert_same_rows(kafka, directory, redis_url) -> None:
    """Compare the newest row of every key in changelog, record and Redis, byte for byte."""
    reader = ChangelogReader(KafkaAccess((kafka.cluster.bootstrap,)).for_aiokafka())
    tps = [
        TopicPartition(changelog_topic(entity.name), number)
        for entity in REGISTRY.entities.values()
        for number in range(entity.partitions)
    ]
    rows: dict[RowKey, bytes] = {}
    for tp, end in (await reader.ends(tps)).items():
        async for key, value in reader.read_range(tp, 0, end):
            pk, _, sk = key.decode().partition(" ")
            row = unpack_change(value)[0]
            rows[RowKey(pk, sk)] = max(rows.get(RowKey(pk, sk), b""), row, key=lambda one: one[:8])
    endpoints = Endpoints([], redis_url, directory / "record.sqlite")
    assert rows
    for store in (open_record(endpoints, SystemClock()), open_cache(endpoints)):
        keys, found = list(rows), {}
        for start in range(0, len(keys), 500):
            found |= await store.read(keys[start : start + 500], deadline_ms=30_000)
        await store.close()
        # A row whose windows are past is gone from a store; none that is there may differ.
        assert {key: rows[key] for key in found} == found
        assert len(found) > len(rows) * 0.9
