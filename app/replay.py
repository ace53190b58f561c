"""Replaying dead letters: mended or understood by now, they go through their source's topic again, once each.

A letter keeps its partition, key and record timestamp, so lateness and windows are decided as they would have been.
Event ids tell repetitions apart within a horizon of minutes; a letter may be replayed after weeks. So the dead-letter
topic itself remembers, by records beside the letters:

1. ``begin``, with the ends of the sources' partitions, before anything is sent. A run that finds another one that has
   begun and not ended waits for its end, or for as long as that one may send.
2. The event, in its source's topic, with the letter's place in a header.
3. ``replayed``, under the letter's key, when the event is acknowledged; then ``end``. What is marked is left out.

A run that died between 2 and 3 left ``begin`` without ``end``: the next one looks for the headers in the sources, from
the ends that were noted, and marks what it finds. What remains is a process that was stopped between its last look at
the clock and its send, for longer than the lease, while another one ran.
"""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import KafkaException, Producer

from agents.dead_letters import DeadLetter
from agents.decode import SourceDecoder
from app.dead_letters import MARK, REPLAYED, ends_of, headers_of, letter_of, read_topic
from app.kafka.access import KafkaAccess
from core.errors import BrokerError, EventError
from core.topics import DEAD_LETTERS

REPLAY_OF = "freshet-replay-of"
LEASE_S = 30.0
_BEGIN, _END = b"begin", b"end"
_RUNS_PARTITION = 0
"""All runs are noted in one partition, whose order decides which of two was first."""
_SEND_S = 10.0
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a run.

    Attributes:
        sent: Places of the letters that are in their sources again.
        kept: Places of those that are not, with the reason.
    """

    sent: list[str]
    kept: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Letter:
    letter: DeadLetter
    partition: int

    @property
    def place(self) -> str:
        return self.letter.place.decode()


class Replay:
    """One run over the dead letters of a broker."""

    def __init__(self, access: KafkaAccess, decoders: Mapping[str, SourceDecoder], *, lease_s: float = LEASE_S) -> None:
        """Prepare a run.

        Args:
            access: Of the brokers.
            decoders: By source topic; what they refuse would be buried again and is kept.
            lease_s: How long another run that has not ended is waited for.
        """
        self._access = access
        self._decoders = decoders
        self._lease_s = lease_s
        self._run = uuid.uuid4().hex
        self._failures: list[str] = []
        self._producer = Producer(
            {
                **access.for_librdkafka(),
                "enable.idempotence": True,
                "acks": "all",
                "log_level": 2,
                "message.timeout.ms": int(_SEND_S * 1000),
            }
        )

    def run(self, *, place: str, reason: str, source: str, limit: int, payload: bytes | None = None) -> Replayed:
        """Send letters that were not replayed before.

        Args:
            place: Only the letter of this ``topic/partition/offset``, or all if empty.
            reason: Only this one, or all if empty.
            source: Only those of this topic, or all if empty.
            limit: How many at the most, oldest first.
            payload: Sent instead of what was buried; for a single place.

        Raises:
            BrokerError: The broker gives no answer or refuses a record; a later run goes on where this one ended.
        """
        try:
            self._begin()
            done = self._wait_for_others()
            letters = self._choose(done, place=place, reason=reason, source=source, limit=limit)
            kept = {one.place: why for one in letters if (why := self._refusal(one.letter, payload))}
            sent = self._send([one for one in letters if one.place not in kept], payload)
            self._mark(_END, run=self._run)
            self._flush()
        except KafkaException as error:
            raise BrokerError(f"{self._access}: {error}") from error
        return Replayed(sent, kept)

    # -- taking turns

    def _begin(self) -> None:
        ends = {topic: ends_of(self._access, topic) for topic in self._decoders}
        self._mark(_BEGIN, run=self._run, value=json.dumps(ends).encode())
        self._flush()

    def _wait_for_others(self) -> set[str]:
        """Return the places that are replayed, once no other run sends any more."""
        started = time.monotonic()
        waits = 0
        while True:
            done, runs = self._read_marks()
            earlier = _before(runs, self._run)
            if not earlier:
                return done
            # They take turns, so each of them may need its time.
            waits = max(waits, len(earlier))
            if time.monotonic() > started + waits * self._lease_s:
                return done | self._settle(earlier)
            time.sleep(_POLL_S)

    def _read_marks(self) -> tuple[set[str], dict[str, Mapping[str, Mapping[str, int]]]]:
        """Return the places that are marked, and the runs that have not ended, in their order."""
        done: set[str] = set()
        runs: dict[str, Mapping[str, Mapping[str, int]]] = {}
        for message in read_topic(self._access, DEAD_LETTERS):
            headers = headers_of(message)
            mark = headers.get(MARK)
            if mark == REPLAYED:
                done.add((message.key() or b"").decode())
            elif mark == _BEGIN:
                runs[headers["run"].decode()] = json.loads(message.value() or b"{}")
            elif mark == _END:
                runs.pop(headers["run"].decode(), None)
        return done, runs

    def _settle(self, runs: Mapping[str, Mapping[str, Mapping[str, int]]]) -> set[str]:
        """Mark what runs that died have sent, and end them."""
        found: set[str] = set()
        for run, ends in runs.items():
            for topic, offsets in ends.items():
                starts = {int(partition): offset for partition, offset in offsets.items()}
                for message in read_topic(self._access, topic, starts):
                    origin = headers_of(message).get(REPLAY_OF)
                    if origin is not None:
                        found.add(origin.decode())
            for place in found:
                self._mark(REPLAYED, key=place)
            self._flush()
            self._mark(_END, run=run)
        return found

    # -- letters

    def _choose(self, done: set[str], *, place: str, reason: str, source: str, limit: int) -> list[_Letter]:
        chosen: list[_Letter] = []
        for message in read_topic(self._access, DEAD_LETTERS):
            if len(chosen) == limit:
                break
            if MARK in headers_of(message):
                continue
            one = _Letter(letter_of(message), message.partition() or 0)
            wanted = place in ("", one.place) and reason in ("", one.letter.reason) and source in ("", one.letter.topic)
            if wanted and one.place not in done:
                chosen.append(one)
                # A place is buried twice when its dispatcher starts again before it has committed.
                done.add(one.place)
        return chosen

    def _refusal(self, letter: DeadLetter, payload: bytes | None) -> str:
        """Return why a letter cannot be replayed, or nothing."""
        decoder = self._decoders.get(letter.topic)
        if decoder is None:
            return f"no group reads {letter.topic} any more"
        if payload is None and letter.payload_bytes > len(letter.payload or b""):
            kept = len(letter.payload or b"")
            return f"only {kept} of its {letter.payload_bytes} bytes were kept; give the whole payload with --payload"
        try:
            decoder.decode(letter.payload if payload is None else payload, letter.record_time_ms)
        except EventError as error:
            return f"it would be buried again: {'; '.join(error.mistakes)}"
        return ""

    def _send(self, letters: Sequence[_Letter], payload: bytes | None) -> list[str]:
        sent: list[_Letter] = []
        deadline = time.monotonic() + self._lease_s - 2 * _SEND_S if self._lease_s > 2 * _SEND_S else float("inf")
        for one in letters:
            if time.monotonic() > deadline:
                # Another run may begin soon; the rest is for it.
                break
            letter = one.letter
            self._producer.produce(
                letter.topic,
                key=letter.key,
                value=letter.payload if payload is None else payload,
                partition=letter.partition,
                timestamp=letter.record_time_ms,
                headers=[(REPLAY_OF, letter.place)],
                on_delivery=partial(self._delivered, sent, one),
            )
            self._producer.poll(0)
        self._producer.flush(_SEND_S)
        for one in sent:
            self._mark(REPLAYED, key=one.place, partition=one.partition)
        self._flush()
        return [one.place for one in sent]

    def _delivered(self, sent: list[_Letter], one: _Letter, error: Any, _message: Any) -> None:
        if error is None:
            sent.append(one)
        else:
            self._failures.append(f"{one.place}: {error.str()}")

    # -- marks

    def _mark(
        self, mark: bytes, *, run: str = "", key: str = "", value: bytes = b"", partition: int = _RUNS_PARTITION
    ) -> None:
        self._producer.produce(
            DEAD_LETTERS,
            key=key or f"replay/{run}",
            value=value,
            partition=partition,
            headers=[(MARK, mark), ("run", run.encode())],
            on_delivery=lambda error, _: self._failures.append(error.str()) if error is not None else None,
        )

    def _flush(self) -> None:
        left = self._producer.flush(_SEND_S)
        if left or self._failures:
            raise BrokerError(
                f"{self._access} did not take everything of a replay ({self._failures[:1]}); run it again"
            )


def _before(runs: Mapping[str, Any], own: str) -> dict[str, Any]:
    """Return the runs that began before ours and have not ended."""
    order = list(runs)
    return {run: runs[run] for run in order[: order.index(own)]}
