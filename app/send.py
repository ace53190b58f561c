"""Sending events by hand, as a producer would."""

import json
import time
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaException, Producer

from app.kafka_access import KafkaAccess
from core.definitions import Source
from core.errors import BrokerError, ConfigurationError

_TIMEOUT_S = 10.0


def send_events(access: KafkaAccess, topic: str, lines: Sequence[str], *, sources: Mapping[str, Source]) -> int:
    """Send JSON events and await their acknowledgement; return how many.

    A missing event time is set to now. What else is wrong with an event is the dispatcher's to tell: it is buried.

    Raises:
        ConfigurationError: No group reads the topic.
        BrokerError: The broker took less than all.
    """
    source = sources.get(topic)
    if source is None:
        raise ConfigurationError(f"no group reads the topic {topic!r}; there are {', '.join(sorted(sources))}")
    failures: list[str] = []
    producer = Producer({**access.for_librdkafka(), "enable.idempotence": True, "acks": "all", "log_level": 2})
    try:
        for line in lines:
            producer.produce(
                topic,
                value=_with_time(line, source.event_time),
                on_delivery=lambda error, _: failures.append(error.str()) if error is not None else None,
            )
        left = producer.flush(_TIMEOUT_S)
    except KafkaException as error:
        raise BrokerError(f"{access}: {error}") from error
    if failures or left:
        raise BrokerError(f"{access} took {len(lines) - len(failures) - left} of {len(lines)} events: {failures[:1]}")
    return len(lines)


def _with_time(line: str, field: str) -> bytes:
    try:
        event = json.loads(line)
    except ValueError:
        return line.encode()
    if isinstance(event, dict):
        event.setdefault(field, time.time_ns() // 1_000_000)
    return json.dumps(event).encode()
