"""Replay: send the demo's events to the broker, most of them at once, the last ones one by one.

``load`` goes as fast as the platform keeps up: the embedded broker holds 5 MB per partition and forgets the rest
without a word, so the replay stays within a bound of what the platform has accounted for. ``live`` sends at a modest
rate, so that there is something to watch and freshness can be measured.

Both block: run them in a thread. They end soon after ``stop`` is set.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from confluent_kafka import KafkaError, Message, Producer

from core.errors import BrokerError
from demo.log import DemoEvent

AHEAD_EVENTS_MAX = 20_000
LIVE_EVENTS_PER_S = 200.0

# Large enough for large batches, small enough that the platform never waits for the next one.
_CHUNK_EVENTS = 4_000
_STALL_MS_MAX = 30_000
_FLUSH_DEADLINE_MS = 10_000
_POLL_S = 0.05
# The figures cost the worker some milliseconds each time.
_ROOM_POLL_S = 0.4
# A load sends large batches, as the embedded broker gives a reader one batch at a time; live events go at once.
_LOAD_LINGER_MS = 200
_LIVE_LINGER_MS = 2


class Replay:
    """Sends events in order, with their times as record timestamps.

    Attributes:
        sent: Events handed to the producer so far.
        delivered: Events that the broker has acknowledged so far; both may be read from any thread.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        *,
        accounted: Callable[[], int],
        stop: threading.Event,
        ahead_events_max: int = AHEAD_EVENTS_MAX,
    ) -> None:
        """Prepare a replay; nothing is sent yet.

        Args:
            kafka: How the broker is reached, as librdkafka names it.
            accounted: Returns how many of the sent events the platform is done with, whatever became of them.
                Called often, in the thread of ``load``.
            stop: Ends ``load`` and ``live`` within about 0.1 s; what was not acknowledged by then is dropped.
            ahead_events_max: How far the load may be ahead of ``accounted``.
        """
        self._accounted = accounted
        self._stop = stop
        self._ahead_events_max = ahead_events_max
        self._error: KafkaError | None = None
        self._known_accounted = 0
        self.sent = 0
        self.delivered = 0
        self._kafka = dict(kafka)
        self._producer = self._new_producer(linger_ms=_LOAD_LINGER_MS)

    def load(self, events: Sequence[DemoEvent]) -> int:
        """Send events as fast as the platform keeps up, and wait for the broker's acknowledgements.

        Returns:
            How many events were sent; fewer than planned only if stopped.

        Raises:
            BrokerError: The broker refused an event, did not acknowledge in time, or the platform made no progress
                for 30 s.
        """
        before = self.sent
        size = min(_CHUNK_EVENTS, self._ahead_events_max)
        for start in range(0, len(events), size):
            chunk = events[start : start + size]
            self._wait_for_room(len(chunk))
            if self._stop.is_set():
                break
            for event in chunk:
                self._send(event)
        self._finish()
        return self.sent - before

    def live(
        self,
        events: Sequence[DemoEvent],
        on_sent: Callable[[DemoEvent], None] | None = None,
        *,
        events_per_s: float = LIVE_EVENTS_PER_S,
    ) -> int:
        """Send events at a steady rate, and wait for the broker's acknowledgements.

        Args:
            events: What to send.
            on_sent: Called in this thread after each event was handed to the producer; it must be quick.
            events_per_s: The rate.

        Returns:
            How many events were sent; fewer than planned only if stopped.

        Raises:
            BrokerError: As for ``load``, except that nobody waits for the platform here.
        """
        before = self.sent
        self._producer = self._new_producer(linger_ms=_LIVE_LINGER_MS)
        started = time.monotonic()
        for index, event in enumerate(events):
            self._wait_until(started + index / events_per_s)
            if self._stop.is_set():
                break
            self._send(event)
            if on_sent:
                on_sent(event)
        self._finish()
        return self.sent - before

    def _new_producer(self, *, linger_ms: int) -> Producer:
        return Producer(
            {
                **self._kafka,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": linger_ms,
                # A broker that goes away is told in errors of ours; librdkafka would write across the screen.
                "log_level": 2,
                "queue.buffering.max.messages": max(100_000, 2 * self._ahead_events_max),
            }
        )

    def _send(self, event: DemoEvent) -> None:
        self._producer.produce(
            event.topic,
            key=event.key,
            value=orjson.dumps(event.fields),
            timestamp=event.time_ms,
            on_delivery=self._on_delivery,
        )
        self.sent += 1
        self._serve(0)

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self.delivered += 1
        elif not self._stop.is_set():
            self._error = error

    def _serve(self, timeout_s: float) -> None:
        """Let delivery reports in: they arrive in this thread and no other."""
        self._producer.poll(timeout_s)
        if self._error is not None:
            raise BrokerError(f"replay: the broker refused an event: {self._error.str()}")

    def _wait_for_room(self, events: int) -> None:
        progress_at = time.monotonic()
        while self.sent + events - self._known_accounted > self._ahead_events_max and not self._stop.is_set():
            latest = self._accounted()
            if latest > self._known_accounted:
                self._known_accounted, progress_at = latest, time.monotonic()
                continue
            if (time.monotonic() - progress_at) * 1000 > _STALL_MS_MAX:
                raise BrokerError(
                    f"replay: {self.sent} events sent, {latest} accounted for, no progress for {_STALL_MS_MAX} ms"
                )
            self._serve(_POLL_S)
            # Delivery reports wake the poll early: without the pause this would ask without end.
            self._stop.wait(_ROOM_POLL_S)

    def _wait_until(self, due: float) -> None:
        while not self._stop.is_set() and (left := due - time.monotonic()) > 0:
            self._serve(min(left, 0.1))

    def _finish(self) -> None:
        deadline = time.monotonic() + _FLUSH_DEADLINE_MS / 1000
        while len(self._producer) and not self._stop.is_set():
            self._serve(_POLL_S)
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"replay: {len(self._producer)} events not acknowledged within {_FLUSH_DEADLINE_MS} ms"
                )
        if self._stop.is_set():
            self._producer.purge()
            self._producer.poll(0)
