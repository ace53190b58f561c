"""The producer: it gives events an identity and a time, collects them, and sends them in batches.

Identity and time are set once, when an event is handed over. So a batch that is sent again after an error counts once.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

BATCH_EVENTS_MAX = 1_000


class SendError(Exception):
    """Not all events were acknowledged. They are kept: ``flush`` sends them again, and none counts twice."""


class Transport(Protocol):
    """The way of events to a source's topic."""

    def send(self, topic: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Send events and wait for their acknowledgement.

        Raises:
            SendError: Not all were acknowledged.
        """
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


class EventProducer:
    """Sends events of sources. Not for several threads at once."""

    def __init__(
        self,
        transport: Transport,
        *,
        id_field: str | None = "event_id",
        time_field: str = "time_ms",
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Produce events.

        Args:
            transport: Kafka or HTTP.
            id_field: Field of the source's model with the event's identity, or None if it has none.
            time_field: Field with the event's time, milliseconds since the epoch.
            now_ms: The time of an event that has none.
        """
        self._transport = transport
        self._id_field = id_field
        self._time_field = time_field
        self._now_ms = now_ms
        self._waiting: dict[str, list[dict[str, Any]]] = {}

    def send(self, topic: str, event: Mapping[str, Any]) -> None:
        """Take an event of a source; it is sent with the next full batch, by ``flush`` or at the end.

        Raises:
            SendError: A batch was full and not all of it was acknowledged; no event is taken until it is.
        """
        waiting = self._waiting.setdefault(topic, [])
        if len(waiting) >= BATCH_EVENTS_MAX:
            self._send(topic)
        given = dict(event)
        if self._id_field is not None:
            given.setdefault(self._id_field, str(uuid.uuid4()))
        given.setdefault(self._time_field, self._now_ms())
        self._waiting.setdefault(topic, []).append(given)

    def flush(self) -> None:
        """Send everything that waits.

        Raises:
            SendError: Not all was acknowledged; what was not still waits.
        """
        for topic in list(self._waiting):
            self._send(topic)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            self._transport.close()

    def _send(self, topic: str) -> None:
        self._transport.send(topic, self._waiting[topic])
        del self._waiting[topic]
