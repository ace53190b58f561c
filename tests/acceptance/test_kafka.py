"""Kafka as in production: how clients are let in, and what a worker refuses."""

import asyncio
import json
from dataclasses import dataclass

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from app.clock import SystemClock
from app.endpoints import open_endpoints, open_record
from app.kafka.access import KafkaAccess
from app.kafka.admin import KafkaAdmin
from app.kafka.ground import find_ground, require_same_topics
from app.kafka.groups import group_of, migrate
from app.kafka.probe import require_kafka
from app.settings import Role, Settings
from core.errors import BrokerError, ConfigurationError
from demo.figures import read_figures
from features import REGISTRY
from tests.acceptance.conftest import http, read_values, until
from tests.acceptance.kafka import (
    BUSY_S,
    access_of,
    clear_topics,
    freshet,
    last_words,
    make_topics,
    now_ms,
    start_on,
)
from tests.secured_kafka import PASSWORD


@pytest.fixture(scope="module")
def secured(secured_kafka):
    """A broker that asks for certificates and passwords, with Freshet's topics, which are new."""
    clear_topics(secured_kafka.cluster.bootstrap)
    make_topics(secured_kafka.cluster.bootstrap)
    return secured_kafka


@dataclass(frozen=True)
class Topics:
    """A broker on which Freshet's topics are new."""

    bootstrap: str

    @property
    def settings(self) -> dict[str, str]:
        return {"FRESHET_BROKER": self.bootstrap}

    @property
    def access(self) -> KafkaAccess:
        return KafkaAccess((self.bootstrap,))

    @property
    def admin(self) -> KafkaAdmin:
        return KafkaAdmin(self.access)

    def make_anew(self, *names: str) -> None:
        clear_topics(self.bootstrap, *names)
        make_topics(self.bootstrap)


@pytest.fixture
def topics(kafka):
    found = Topics(kafka.bootstrap)
    found.make_anew()
    return found


@pytest.fixture
async def record(tmp_path, topics):
    settings = _settings(topics, tmp_path)
    opened = open_record(open_endpoints(settings, REGISTRY), SystemClock())
    yield opened
    await opened.close()


def _settings(topics, directory, role=Role.ALL) -> Settings:
    return Settings(broker=topics.bootstrap, redis="none", record=f"sqlite:///{directory / 'record.sqlite'}", role=role)


# -- topics and groups


def test_topics_are_made_once_and_sources_left_to_their_producers(topics):
    """
    Whoever runs the command again, or on a cluster where producers are first, changes nothing of what is there.
    """
    clear_topics(topics.bootstrap)

    without = freshet(topics.settings, "topics", "create")
    with_sources = freshet(topics.settings, "topics", "create", "--sources", "2")
    again = freshet(topics.settings, "topics", "create", "--sources", "9")

    assert (without[0], with_sources[0]) == (1, 0), with_sources
    assert without[1].count("made freshet.") == 7
    assert without[1].count("(source) does not exist; its producers make it") == 3
    assert "made clicks: 2 partitions, 1 replicas\n" in with_sources[1]
    assert again == (0, "10 topics: no problems\n")


def test_every_problem_of_the_topics_is_told_at_once(topics, tmp_path):
    """
    A worker on a wrong changelog loses rows a week later; it must not start, and one look must tell everything.
    """
    names = ["freshet.user", "freshet.video.changelog"]
    clear_topics(topics.bootstrap, "impressions", *names)
    client = AdminClient({"bootstrap.servers": topics.bootstrap})
    for made in client.create_topics([
        NewTopic(names[0], num_partitions=2, replication_factor=1, config={"retention.ms": "1000"}),
        NewTopic(names[1], num_partitions=8, replication_factor=1),
    ]).values():  # fmt: skip
        made.result(30)

    status, said = freshet(topics.settings, "topics", "check")
    refused = last_words(start_on(topics.settings, tmp_path))

    lines = [
        "- topic impressions (source) does not exist",
        "- topic freshet.user (repartition topic) has 2 partitions instead of 8",
        "- topic freshet.user (repartition topic) has retention.ms=1000",
        "- topic freshet.video.changelog (changelog) has cleanup.policy=delete",
        "- topic freshet.video.changelog (changelog) has min.compaction.lag.ms=0",
    ]
    assert status == 1
    assert [line.split(";")[0].split(":")[0].split(",")[0] for line in said.strip().splitlines()] == lines
    assert refused.startswith("freshet: Kafka at ")
    assert [line for line in lines if line not in refused] == []


async def test_one_group_at_a_time_and_offsets_handed_over(topics, record, tmp_path):
    """
    A forgotten worker of role all beside split roles would be a second writer; after it is stopped, split roles go
    on where it was.
    """
    places = {TopicPartition("clicks", 1): 0, TopicPartition("freshet.user", 3): 0}
    held = {("clicks", 1): 0, ("freshet.user", 3): 0}
    forgotten = AIOKafkaConsumer(
        "clicks", "freshet.user", bootstrap_servers=topics.bootstrap, group_id=group_of(Role.ALL),
        enable_auto_commit=False,
    )  # fmt: skip
    await forgotten.start()
    try:
        await forgotten.getmany(timeout_ms=0)
        await forgotten.commit(places)
        with pytest.raises(ConfigurationError, match=r"group freshet-all has 1 members.*freshet roles migrate split"):
            await find_ground(_settings(topics, tmp_path, Role.DISPATCHER), topics.access, REGISTRY, record)
        with pytest.raises(ConfigurationError, match="group freshet-all has 1 members"):
            migrate(topics.admin, REGISTRY, to_split=True)
    finally:
        await forgotten.stop()

    done = migrate(topics.admin, REGISTRY, to_split=True)
    again = migrate(topics.admin, REGISTRY, to_split=True)

    assert topics.admin.offsets("freshet-dispatcher") | topics.admin.offsets("freshet-aggregator") == held
    assert done[1].startswith("clicks: 1 of 1")
    assert all(" 0 of " in f" {line.partition(': ')[2]}" for line in again)


async def test_a_topic_made_anew_stops_the_start_until_it_is_accepted(topics, record, tmp_path):
    """
    Stamps would take every event of the new topic for a replay of the old one, and nobody would notice.
    """
    settings = _settings(topics, tmp_path)
    environment = {**topics.settings, "FRESHET_REDIS": "none", "FRESHET_RECORD": settings.record}
    before = await find_ground(settings, topics.access, REGISTRY, record)
    topics.make_anew("clicks", "freshet.user")

    with pytest.raises(ConfigurationError) as refused:
        await find_ground(settings, topics.access, REGISTRY, record)
    with pytest.raises(BrokerError, match="topic clicks was made anew"):
        await require_same_topics(topics.access, before, ["clicks", "impressions"])
    accepted = await asyncio.to_thread(freshet, environment, "topics", "accept", "clicks", "freshet.user")
    after = await find_ground(settings, topics.access, REGISTRY, record)

    for topic in ("clicks", "freshet.user"):
        assert f"topic {topic} was made anew: its id is {after.topic_ids[topic]}" in str(refused.value)
        assert f"and was {before.topic_ids[topic]}" in str(refused.value)
    assert accepted[0] == 0
    assert (before.epochs["user"], after.epochs["user"], after.epochs["video"]) == (0, 1, 0)


# -- to be let in


@pytest.mark.parametrize("way", ["certificates", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_commands_are_let_in_with_certificates_and_passwords(secured, way):
    """
    A cluster that asks for more than an address is the rule; every client must know how to answer.
    """
    settings = secured.certificates if way == "certificates" else secured.passwords(way)
    event = json.dumps({"event_id": way, "user_id": 1, "video_id": 1, "tab": 0})

    checked = freshet(settings, "topics", "check")
    sent = freshet(settings, "send", "clicks", event)
    letters = freshet(settings, "dead-letters", "list", "--reason", "none such")

    assert (checked, sent, letters) == (
        (0, "10 topics: no problems\n"), (0, "1 sent to clicks\n"), (0, "no dead letters\n"),
    )  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [
    ({"FRESHET_BROKER": "127.0.0.1:1"}, ["127.0.0.1:1 does not answer", "Connection refused", "FRESHET_BROKER"]),
    ({"FRESHET_BROKER_PASSWORD": "wrong-one"}, ["does not let in the user 'freshet'", "FRESHET_BROKER_USER"]),
    ({"FRESHET_BROKER": "localhost"}, ["shows the certificate of another host", "not valid for 'localhost'"]),
    ({"FRESHET_BROKER_CA": "server.crt"}, ["certificate that is not trusted", "FRESHET_BROKER_CA"]),
])  # fmt: skip
def test_who_is_not_let_in_is_told_why_in_one_line(secured, change, words):
    """
    Clients try for ever without a word; whoever starts a worker at night needs the reason and the setting.
    """
    settings = {**secured.passwords(), **change}
    if settings["FRESHET_BROKER"] == "localhost":
        settings["FRESHET_BROKER"] = secured.cluster.bootstrap_for("SASL_SSL").replace("127.0.0.1", "localhost")
    if "FRESHET_BROKER_CA" in change:
        settings["FRESHET_BROKER_CA"] = str(secured.directory / "server.crt")

    with pytest.raises(ConfigurationError) as refused:
        require_kafka(access_of(settings), listen_s=0)

    told = str(refused.value)
    assert [word for word in words if word not in told] == []
    assert len(told.splitlines()) == 1
    assert PASSWORD not in told
    assert "wrong-one" not in told


def test_a_worker_that_logs_in_takes_events_by_every_way(secured, tmp_path):
    """
    Consumer, producer, changelog, pushed events, dead letters and their replay are clients of their own: one that was
    forgotten would be the one that nobody can use.
    """
    settings = {**secured.passwords(), "FRESHET_RECORD": f"sqlite:///{tmp_path / 'record.sqlite'}"}
    worker = start_on(settings, tmp_path)
    late = {"event_id": "late", "user_id": 2, "video_id": 1, "tab": 0, "time_ms": now_ms() - 2 * 3_600_000}
    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps({**late, "time_ms": now_ms()}))
    pushed = {"event_id": ["pushed"], "user_id": [2], "video_id": [1], "tab": [0], "time_ms": [now_ms()]}
    try:
        worker.wait_ready(deadline_s=BUSY_S)
        before = read_figures(worker.base_url).accounted
        assert http(f"{worker.base_url}/push", {"push_source_name": "clicks", "df": pushed})[0] == 200
        assert freshet(settings, "send", "--anyway", "clicks", json.dumps(late))[0] == 0
        until(lambda: read_figures(worker.base_url).accounted >= before + 2, "both are accounted for")
        letter = json.loads(freshet(settings, "dead-letters", "list", "--reason", "late", "--json")[1])
        place = f"{letter['topic']}/{letter['partition']}/{letter['offset']}"
        replayed = freshet(settings, "dead-letters", "replay", place, "--payload", str(mended))

        assert replayed == (0, "1 replayed, 0 kept\n")
        until(
            lambda: read_values(worker.base_url, {"user_id": [2]}, "user_engagement:clicks_1h") == [[2]],
            "the pushed and the mended event are counted",
        )
    finally:
        worker.stop()
