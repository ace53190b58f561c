"""Reading the dead-letter topic: the letters, and the marks that a replay leaves beside them (``app.replay``)."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from agents.dead_letters import DeadLetter
from app.kafka.access import KafkaAccess
from core.errors import BrokerError, ConfigurationError
from core.topics import DEAD_LETTERS

MARK = "mark"
"""Header of a record of the dead-letter topic that is no letter; its value says what it is."""
REPLAYED = b"replayed"
_TIMEOUT_S = 10.0


def list_dead_letters(access: KafkaAccess, *, reason: str, limit: int, source: str = "") -> list[dict[str, Any]]:
    """Return the newest dead letters, newest last, as plain facts.

    Args:
        access: Of the brokers.
        reason: Only this one, or all if empty.
        limit: How many at the most.
        source: Only those of this topic, or all if empty.

    Raises:
        BrokerError: The broker gives no answer.
    """
    found: deque[dict[str, Any]] = deque(maxlen=limit)
    replayed = set()
    for message in read_topic(access, DEAD_LETTERS):
        headers = headers_of(message)
        if MARK in headers:
            replayed.add(message.key())
            continue
        letter = letter_of(message)
        if reason in ("", letter.reason) and source in ("", letter.topic):
            found.append(facts_of(letter))
    for facts in found:
        facts["replayed"] = f"{facts['topic']}/{facts['partition']}/{facts['offset']}".encode() in replayed
    return list(found)


def find_dead_letter(access: KafkaAccess, place: str) -> DeadLetter:
    """Return the dead letter of an event that stood at ``topic/partition/offset``.

    Raises:
        BrokerError: The broker gives no answer.
        ConfigurationError: There is none.
    """
    for message in read_topic(access, DEAD_LETTERS):
        if message.key() == place.encode() and MARK not in headers_of(message):
            return letter_of(message)
    raise ConfigurationError(
        f"there is no dead letter {place!r}: `freshet dead-letters list` has topic/partition/offset"
    )


def read_topic(access: KafkaAccess, topic: str, starts: Mapping[int, int] | None = None) -> Iterator[Message]:
    """Yield the records of a topic up to its present end, partition by partition.

    Args:
        access: Of the brokers.
        topic: Name.
        starts: Offset to begin at per partition, and those partitions alone; all of them from the beginning if None.

    Raises:
        BrokerError: The broker gives no answer.
    """
    consumer = Consumer(
        {**access.for_librdkafka(), "group.id": "freshet-cli", "enable.auto.commit": False, "log_level": 2}
    )
    try:
        for partition, (start, end) in _ranges(consumer, topic).items():
            first = start if starts is None else max(starts.get(partition, end), start)
            if first < end:
                consumer.assign([TopicPartition(topic, partition, first)])
                yield from _read_range(consumer, topic, end)
    except KafkaException as error:
        raise BrokerError(f"{access}: {error}") from error
    finally:
        consumer.close()


def ends_of(access: KafkaAccess, topic: str) -> dict[int, int]:
    """Return the end offset of every partition of a topic.

    Raises:
        BrokerError: The broker gives no answer.
    """
    consumer = Consumer({**access.for_librdkafka(), "group.id": "freshet-cli", "log_level": 2})
    try:
        return {partition: end for partition, (_, end) in _ranges(consumer, topic).items()}
    except KafkaException as error:
        raise BrokerError(f"{access}: {error}") from error
    finally:
        consumer.close()


def headers_of(message: Message) -> dict[str, bytes]:
    """Return the headers of a record."""
    headers: Any = message.headers() or []
    return dict(headers)


def letter_of(message: Message) -> DeadLetter:
    """Return the letter in a record."""
    headers: Any = message.headers() or []
    return DeadLetter.from_record(headers, message.value())


def facts_of(letter: DeadLetter) -> dict[str, Any]:
    """Return a letter as plain facts."""
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "record_time_ms": letter.record_time_ms,
        "reason": letter.reason,
        "detail": letter.detail,
        "payload_bytes": letter.payload_bytes,
        "payload": (letter.payload or b"").decode(errors="backslashreplace"),
    }


def _ranges(consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    partitions = consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions
    return {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_TIMEOUT_S)
        for number in partitions
    }


def _read_range(consumer: Consumer, topic: str, end: int) -> Iterator[Message]:
    while True:
        message = consumer.poll(_TIMEOUT_S)
        if message is None or message.error() is not None:
            raise BrokerError(f"{topic} stopped before offset {end}: {message and message.error()}")
        yield message
        if (message.offset() or 0) >= end - 1:
            return
