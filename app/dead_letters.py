"""Reading the dead-letter topic."""

from collections import deque
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from agents.dead_letters import DeadLetter
from app.kafka_access import KafkaAccess
from core.errors import BrokerError
from core.topics import DEAD_LETTERS

_TIMEOUT_S = 10.0


def list_dead_letters(access: KafkaAccess, *, reason: str, limit: int) -> list[dict[str, Any]]:
    """Return the newest dead letters, newest last, as plain facts.

    Raises:
        BrokerError: The broker gives no answer.
    """
    consumer = Consumer(
        {**access.for_librdkafka(), "group.id": "freshet-cli", "enable.auto.commit": False, "log_level": 2}
    )
    found: deque[dict[str, Any]] = deque(maxlen=limit)
    try:
        for partition, start, end in _ranges(consumer):
            consumer.assign([TopicPartition(DEAD_LETTERS, partition, start)])
            _read_range(consumer, end, reason, found)
    except KafkaException as error:
        raise BrokerError(f"{access}: {error}") from error
    finally:
        consumer.close()
    return list(found)


def _ranges(consumer: Consumer) -> list[tuple[int, int, int]]:
    partitions = consumer.list_topics(DEAD_LETTERS, timeout=_TIMEOUT_S).topics[DEAD_LETTERS].partitions
    marks = {
        number: consumer.get_watermark_offsets(TopicPartition(DEAD_LETTERS, number), timeout=_TIMEOUT_S)
        for number in partitions
    }
    return [(number, start, end) for number, (start, end) in marks.items() if end > start]


def _read_range(consumer: Consumer, end: int, reason: str, found: deque[dict[str, Any]]) -> None:
    while True:
        message = consumer.poll(_TIMEOUT_S)
        if message is None or message.error() is not None:
            raise BrokerError(f"the dead-letter topic stopped before offset {end}: {message and message.error()}")
        headers: Any = message.headers() or []
        letter = DeadLetter.from_record(headers, message.value())
        if reason in ("", letter.reason):
            found.append(_facts(letter))
        if (message.offset() or 0) >= end - 1:
            return


def _facts(letter: DeadLetter) -> dict[str, Any]:
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
