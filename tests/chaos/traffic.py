"""Traffic: what a bad day's producers send, from a seed alone but for the time of day.

Most records are good events of few, unequal keys. Some are sent again: under the same id, a while later, perhaps to
another partition. Some are late, some from the future, some are no events at all.
"""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from tests.chaos.domain import PARTITIONS

USERS, ITEMS = 120, 40
_HOUR_MS = 3_600_000
_AGE_MS_MAX = 40_000
_REPEAT_AFTER_MAX = 3_000
"""A repetition comes at the latest so many records after its event."""
_MALFORMED = (
    b'{"user_id"',
    b"",
    b"[]",
    b"\xff\xfe",
    b'{"event_id":"m","time_ms":1}',
    b'{"event_id":"","time_ms":1,"user_id":1,"item_id":1,"amount":1}',
    b'{"event_id":"m","time_ms":"1","user_id":1,"item_id":1,"amount":1}',
    b'{"event_id":"m","time_ms":1,"user_id":-1,"item_id":1,"amount":1}',
    b'{"event_id":"m","time_ms":1,"user_id":9223372036854775808,"item_id":1,"amount":1}',
)


@dataclass(frozen=True, slots=True)
class Sent:
    """A record as it is sent.

    Attributes:
        kind: ``good``, ``repeat``, ``late``, ``future`` or ``malformed``: what the sender means it to be.
        time_ms: Kafka's timestamp of the record.
    """

    kind: str
    topic: str
    partition: int
    time_ms: int
    value: bytes


class Traffic:
    """Makes records without end."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._seed = seed
        self._number = 0
        self._repeats: deque[tuple[int, Sent]] = deque()

    def records(self, now_ms: int) -> Iterator[Sent]:
        """Return the next event and what comes along with it."""
        self._number += 1
        chance = self._chance.random()
        if chance < 0.01:
            yield self._malformed(now_ms)
        elif chance < 0.02:
            yield self._event("late", now_ms, now_ms - self._chance.randint(_HOUR_MS + 1, 30 * _HOUR_MS))
        elif chance < 0.025:
            yield self._event("future", now_ms, now_ms + self._chance.randint(10_001, _HOUR_MS))
        else:
            # A few are ahead of their record, within what is allowed.
            good = self._event("good", now_ms, now_ms - self._chance.randint(-5_000, _AGE_MS_MAX))
            if chance > 0.95:
                due = self._number + int(_REPEAT_AFTER_MAX * self._chance.random() ** 4)
                self._repeats.append((due, good))
            yield good
        yield from self._due(now_ms)

    def _due(self, now_ms: int) -> Iterator[Sent]:
        for _ in range(len(self._repeats)):
            due, first = self._repeats.popleft()
            if due > self._number:
                self._repeats.append((due, first))
                continue
            partition = first.partition if self._chance.random() < 0.7 else self._chance.randrange(PARTITIONS)
            yield Sent("repeat", first.topic, partition, now_ms, first.value)

    def _event(self, kind: str, now_ms: int, time_ms: int) -> Sent:
        topic = "taps" if self._chance.random() < 0.7 else "buys"
        # Squared: the first keys are hot, the last ones are quiet.
        user, item = int(USERS * self._chance.random() ** 2), int(ITEMS * self._chance.random() ** 2)
        fields = {"event_id": f"{self._seed}-{self._number}", "time_ms": time_ms, "user_id": user, "item_id": item}
        if topic == "buys":
            fields["amount"] = self._chance.randint(0, 1_000)
        return Sent(kind, topic, user % PARTITIONS, now_ms, orjson.dumps(fields))

    def _malformed(self, now_ms: int) -> Sent:
        topic, partition = self._chance.choice(("taps", "buys")), self._chance.randrange(PARTITIONS)
        return Sent("malformed", topic, partition, now_ms, self._chance.choice(_MALFORMED))
