"""Replaying dead letters on a broker: each once, with its own time, through its source."""

import json
import time
from typing import Any

import pytest
from confluent_kafka import Producer

from agents.dead_letters import PAYLOAD_BYTES_MAX, DeadLetter
from agents.decode import decoders_of
from app.dead_letters import MARK, find_dead_letter, list_dead_letters, read_topic
from app.kafka.access import KafkaAccess
from app.replay import REPLAY_OF, Replay, Replayed
from core.errors import ConfigurationError, EventError
from core.topics import DEAD_LETTERS
from features import REGISTRY
from services.broker import EmbeddedBroker
from tests.acceptance.conftest import Sender
from tests.serving_kit import Record

DEADLINE_S = 15.0
OLD_MS = time.time_ns() // 1_000_000 - 30 * 86_400_000
GOOD = {"event_id": "e1", "time_ms": OLD_MS, "user_id": 1, "video_id": 2, "tab": 0}


@pytest.fixture
def broker():
    broker = EmbeddedBroker({**dict.fromkeys(REGISTRY.sources, 3), DEAD_LETTERS: 1})
    yield KafkaAccess((broker.bootstrap,))
    broker.close()


@pytest.fixture
def producer(broker):
    return Producer({**broker.for_librdkafka(), "log_level": 2})


def bury(producer, offset: int, payload: bytes, *, topic: str = "clicks", reason: str = "malformed") -> str:
    """Bury an event as a dispatcher does; return where it stood."""
    record = Record(topic, 1, offset, OLD_MS + offset, b"its key", payload)
    letter = DeadLetter.of(record, EventError(reason, "why"))
    producer.produce(DEAD_LETTERS, key=letter.place, value=letter.payload, headers=letter.headers())
    assert producer.flush(DEADLINE_S) == 0
    return letter.place.decode()


def replay(broker, *, lease_s: float = 0.0, **chosen: Any) -> Replayed:
    decoders = decoders_of(REGISTRY)
    wanted = {"place": "", "reason": "", "source": "", "limit": 100, **chosen}
    return Replay(broker, decoders, lease_s=lease_s).run(**wanted)


def clicks(broker) -> list[Any]:
    return list(read_topic(broker, "clicks"))


def good(**more: Any) -> bytes:
    return json.dumps({**GOOD, **more}).encode()


def test_a_letter_is_replayed_once_however_often_the_command_is_run(broker, producer):
    """
    An operator who is not sure whether it worked runs it again, weeks after the event ids were forgotten.
    """
    places = [bury(producer, offset, good(event_id=f"e{offset}")) for offset in (5, 6)]

    first, second = replay(broker), replay(broker)

    assert (first.sent, second.sent) == (places, [])
    records = clicks(broker)
    assert [(one.partition(), one.timestamp()[1], one.key()) for one in records] == [
        (1, OLD_MS + 5, b"its key"), (1, OLD_MS + 6, b"its key"),
    ]  # fmt: skip
    assert [one["replayed"] for one in list_dead_letters(broker, reason="", limit=10)] == [True, True]


def test_what_a_run_sent_before_it_died_is_not_sent_again(broker, producer):
    """
    Between the event's acknowledgement and the mark a process may be killed; the event counts once all the same.
    """
    place, other = bury(producer, 7, good()), bury(producer, 8, good(event_id="e2"))
    ends = json.dumps({topic: dict.fromkeys(range(3), 0) for topic in REGISTRY.sources}).encode()
    producer.produce(DEAD_LETTERS, key="replay/dead", value=ends, headers=[(MARK, b"begin"), ("run", b"dead")])
    producer.produce("clicks", value=good(), partition=1, headers=[(REPLAY_OF, place.encode())])
    assert producer.flush(DEADLINE_S) == 0

    done = replay(broker)

    assert done.sent == [other]
    assert [dict(one.headers())[REPLAY_OF].decode() for one in clicks(broker)] == [place, other]
    assert replay(broker).sent == []


def test_what_would_be_buried_again_is_kept_with_the_reason(broker, producer):
    """
    A replay that only moves letters to the end of the topic helps nobody.
    """
    wrong = bury(producer, 1, b'{"user_id": "x"}')
    late = bury(producer, 2, good(time_ms=OLD_MS - 2 * 3_600_000), reason="late")
    cut = bury(producer, 3, good(more="x" * PAYLOAD_BYTES_MAX))

    done = replay(broker)

    assert done.sent == []
    assert set(done.kept) == {wrong, late, cut}
    assert "user_id: " in done.kept[wrong]
    assert "video_id: " in done.kept[wrong]
    assert "7200 s" in done.kept[late]
    assert "900000 of its" in done.kept[cut]


def test_a_mended_payload_takes_the_place_of_what_was_buried(broker, producer):
    """
    What was cut or wrong is mended by hand and counts at its own time.
    """
    place = bury(producer, 4, b"<xml/>")
    bury(producer, 5, good(event_id="other"))

    done = replay(broker, place=place, payload=good())

    assert done == Replayed([place], {})
    assert [one.value() for one in clicks(broker)] == [good()]
    assert find_dead_letter(broker, place).payload == b"<xml/>"


def test_letters_are_chosen_by_source_reason_and_number(broker, producer):
    """
    Whoever mended one producer replays its letters alone.
    """
    bury(producer, 1, good(watch_ms=1, duration_ms=1), topic="impressions")
    places = [bury(producer, offset, good(event_id=f"e{offset}"), reason="overflow") for offset in (2, 3)]

    assert [one["offset"] for one in list_dead_letters(broker, reason="", source="impressions", limit=9)] == [1]
    assert replay(broker, source="clicks", reason="overflow", limit=1).sent == places[:1]
    assert replay(broker, source="clicks", limit=9).sent == places[1:]
    with pytest.raises(ConfigurationError, match="there is no dead letter 'clicks/0/9'"):
        find_dead_letter(broker, "clicks/0/9")


def test_a_replayed_event_is_no_different_to_the_dispatcher(broker, producer):
    """
    The source's record has the payload as it came; the header tells operators, and decides nothing.
    """
    sender = Sender(producer)
    sender.send("clicks", good(), partition=1, time_ms=OLD_MS + 5)
    bury(producer, 5, good())
    replay(broker)

    first, second = clicks(broker)

    assert (first.value(), first.timestamp()) == (second.value(), second.timestamp())
