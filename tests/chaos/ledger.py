"""The ledger: what the broker has acknowledged to a producer, written by the producer alone, a line a record."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from confluent_kafka import Producer

from tests.chaos.traffic import Sent

FLUSH_S = 120.0


class Line(NamedTuple):
    """A record that was acknowledged.

    Attributes:
        offset: Where it stands, or None: of a record that was sent twice the broker may only say that it has it.
        crc: Of its value.
    """

    topic: str
    partition: int
    offset: int | None
    crc: int
    kind: str


class LedgerProducer:
    """Sends records and writes down where each has come to stand.

    Attributes:
        sent: Records that were given to the client.
        acknowledged: Of these, how many the broker has acknowledged.
        failed: How many it has not, for good: they may be in the log or not.
    """

    def __init__(self, bootstrap: str, path: Path) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "message.timeout.ms": 300_000,
                "log_level": 0,
            }
        )
        self._file: IO[str] = path.open("w")
        self.sent = self.acknowledged = self.failed = 0

    def send(self, sent: Sent) -> None:
        """Send a record; waits where the client's queue is full."""
        crc = zlib.crc32(sent.value)

        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                self.failed += 1
                return
            self.acknowledged += 1
            self._file.write(f"{message.topic()} {message.partition()} {message.offset()} {crc} {sent.kind}\n")

        while True:
            try:
                self._producer.produce(
                    sent.topic,
                    value=sent.value,
                    partition=sent.partition,
                    timestamp=sent.time_ms,
                    on_delivery=delivered,
                )
            except BufferError:
                self._producer.poll(0.05)
                continue
            break
        self.sent += 1

    def poll(self, wait_s: float = 0) -> None:
        """Let acknowledgements come in."""
        self._producer.poll(wait_s)

    def flush(self) -> None:
        """Wait until every record is acknowledged or given up, and the ledger is on disk.

        Raises:
            TimeoutError: Some are neither.
        """
        if left := self._producer.flush(FLUSH_S):
            raise TimeoutError(f"{left} records are neither acknowledged nor refused after {FLUSH_S:.0f} s")
        self._file.flush()

    def close(self) -> None:
        """Close the ledger; nothing is sent afterwards."""
        self._file.close()


def read_ledger(path: Path, start: int = 0) -> Iterator[tuple[Line, int]]:
    """Yield the lines of a ledger from a position on, each with the position behind it."""
    with path.open() as file:
        file.seek(start)
        for text in iter(file.readline, ""):
            topic, partition, offset, crc, kind = text.split()
            place = int(offset) if offset != "None" else None
            yield Line(topic, int(partition), place, int(crc), kind), file.tell()
