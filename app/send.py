"""Sending events by hand, as a producer would."""

import json
import time
from collections.abc import Sequence

from confluent_kafka import KafkaException, Producer

from agents.decode import SourceDecoder
from app.kafka.access import KafkaAccess
from core.definitions import Registry
from core.errors import BrokerError, ConfigurationError, EventError

_TIMEOUT_S = 10.0
_MISTAKES_MAX = 20


def send_events(access: KafkaAccess, topic: str, events: Sequence[bytes]) -> int:
    """Send events and await their acknowledgement; return how many.

    Raises:
        BrokerError: The broker took less than all.
    """
    failures: list[str] = []
    producer = Producer({**access.for_librdkafka(), "enable.idempotence": True, "acks": "all", "log_level": 2})
    try:
        for event in events:
            producer.produce(
                topic,
                value=event,
                on_delivery=lambda error, _: failures.append(error.str()) if error is not None else None,
            )
        left = producer.flush(_TIMEOUT_S)
    except KafkaException as error:
        raise BrokerError(f"{access}: {error}") from error
    if failures or left:
        why = failures[0] if failures else f"no answer within {_TIMEOUT_S:.0f} s; is there a topic {topic}?"
        raise BrokerError(f"{access} took {len(events) - len(failures) - left} of {len(events)} events: {why}")
    return len(events)


def read_events(registry: Registry, topic: str, lines: Sequence[str], *, anyway: bool) -> list[bytes]:
    """Return the events in lines of JSON; a missing event time is set to now.

    Args:
        registry: Definitions of the source.
        topic: The source's.
        lines: One event each.
        anyway: Whether events that would be buried are returned too.

    Raises:
        ConfigurationError: No group reads the topic, or some events would be buried; all their mistakes are told.
    """
    source = registry.sources.get(topic)
    if source is None:
        raise ConfigurationError(f"no group reads the topic {topic!r}; there are {', '.join(sorted(registry.sources))}")
    events = [_with_time(line, source.event_time) for line in lines]
    mistakes = [] if anyway else _mistakes(SourceDecoder(source, registry.groups), events)
    if mistakes:
        more = f"; and {len(mistakes) - _MISTAKES_MAX} more" if len(mistakes) > _MISTAKES_MAX else ""
        raise ConfigurationError(
            f"nothing was sent: {'; '.join(mistakes[:_MISTAKES_MAX])}{more} (--anyway sends it, to be buried)"
        )
    return events


def _mistakes(decoder: SourceDecoder, events: Sequence[bytes]) -> list[str]:
    now_ms, told = time.time_ns() // 1_000_000, []
    for number, event in enumerate(events, start=1):
        try:
            decoder.decode(event, now_ms)
        except EventError as error:
            told += [f"event {number}: {mistake}" for mistake in error.mistakes]
    return told


def _with_time(line: str, field: str) -> bytes:
    try:
        event = json.loads(line)
    except ValueError:
        return line.encode()
    if isinstance(event, dict):
        event.setdefault(field, time.time_ns() // 1_000_000)
    return json.dumps(event).encode()
