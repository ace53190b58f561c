"""Dead letters: events that cannot be used, kept with everything needed to mend and repeat them.

The record's key tells where the event stood (``topic/partition/offset``), its value is the payload as it came, its
headers say the reason. Late events are kept the same way, so every source offset is in exactly one place. Of a record
that is nearly as large as a topic takes, the beginning is kept: whole and with its headers nobody would take it, and
an event that cannot even be buried would stop its partition for ever.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from core.errors import EventError
from core.topics import DEAD_LETTERS
from tables.waiting_sends import when_room

PAYLOAD_BYTES_MAX = 900_000
KEY_BYTES_MAX = 16_384
"""Together with the other headers below the 1,000,000 bytes of Faust's producer and the 1 MiB of a broker."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One event that could not be used.

    Attributes:
        key: Key of the source record, its first 16 KiB, or None.
        payload: Value of the source record, its first 900,000 bytes, or None.
        payload_bytes: How long the payload was as it came; a repetition needs all of it.
        record_time_ms: Timestamp of the source record; a repetition keeps it.
    """

    topic: str
    partition: int
    offset: int
    record_time_ms: int
    reason: str
    detail: str
    key: bytes | None
    payload: bytes | None
    payload_bytes: int

    @classmethod
    def of(cls, record: Any, error: EventError) -> "DeadLetter":
        """Return the dead letter of a consumed record."""
        key, payload = record.key, record.value
        return cls(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            error.reason,
            error.detail,
            None if key is None else key[:KEY_BYTES_MAX],
            None if payload is None else payload[:PAYLOAD_BYTES_MAX],
            0 if payload is None else len(payload),
        )

    @property
    def place(self) -> bytes:
        """The Kafka key: where the event stood."""
        return f"{self.topic}/{self.partition}/{self.offset}".encode()

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the Kafka headers."""
        facts = [
            ("topic", self.topic.encode()),
            ("partition", str(self.partition).encode()),
            ("offset", str(self.offset).encode()),
            ("record_time_ms", str(self.record_time_ms).encode()),
            ("reason", self.reason.encode()),
            ("detail", self.detail.encode(errors="backslashreplace")),
            ("payload_bytes", str(self.payload_bytes).encode()),
        ]
        return [*facts, ("key", self.key)] if self.key is not None else facts

    @classmethod
    def from_record(cls, headers: Iterable[tuple[str, bytes]], payload: bytes | None) -> "DeadLetter":
        """Return the dead letter that a record of the dead-letter topic holds.

        Raises:
            KeyError: A header is missing: no dead letter of ours.
        """
        facts = dict(headers)
        return cls(
            facts["topic"].decode(),
            int(facts["partition"]),
            int(facts["offset"]),
            int(facts["record_time_ms"]),
            facts["reason"].decode(),
            facts["detail"].decode(),
            facts.get("key"),
            payload,
            int(facts["payload_bytes"]),
        )


async def bury(letter: DeadLetter, producer: Any) -> Any:
    """Send a dead letter and return the future of its acknowledgement: before that nothing may be finished."""
    return await when_room(
        producer.send, topic=DEAD_LETTERS, key=letter.place, value=letter.payload, headers=letter.headers()
    )
