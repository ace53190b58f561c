"""The oracle: what must have become of every record of the source logs, and what every feature must be.

It reads what lies in the logs and nothing else. Of the platform's code it uses what opens a packed record; judging,
counting and windows are plain and its own. The order in which a partition's updates were applied is told by the
repartition topic, so the value of a key is known for every prefix of it, not for the end alone.
"""

import zlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from core.packs import unpack

HOUR_MS = 3_600_000
LATENESS_MS, FUTURE_MS = HOUR_MS, 10_000
ENTITIES = {"user": "user_id", "item": "item_id"}
NATURAL_MAX = 2**63 - 1

Place = tuple[str, int, int]
"""Topic, partition and offset of a source record."""


class Event(NamedTuple):
    """A good event."""

    topic: str
    event_id: str
    time_ms: int
    user_id: int
    item_id: int
    amount: int


@dataclass(slots=True)
class History:
    """What was applied to one key, in the order of the repartition topic.

    Attributes:
        offsets: By source topic, the repartition offset of each event that was applied.
        spent: Sums of the amounts bought, the first of them 0.
    """

    events: list[tuple[int, Event]] = field(default_factory=list)
    offsets: dict[str, list[int]] = field(default_factory=lambda: {"taps": [], "buys": []})
    spent: list[int] = field(default_factory=lambda: [0])

    def add(self, offset: int, event: Event) -> None:
        self.events.append((offset, event))
        self.offsets[event.topic].append(offset)
        if event.topic == "buys":
            self.spent.append(self.spent[-1] + event.amount)

    def totals(self, upto: int) -> dict[str, int]:
        """Return the features of all time after the records up to an offset, itself included."""
        taps, buys = (bisect_right(self.offsets[topic], upto) for topic in ("taps", "buys"))
        return {"taps_all": taps, "buys_all": buys, "spent_all": self.spent[buys]}

    def has_prefix(self, taps: int, buys: int, spent: int) -> bool:
        """Whether the features of all time had these values together at some time."""
        mine = self.offsets["taps"], self.offsets["buys"]
        if taps > len(mine[0]) or buys > len(mine[1]) or spent != self.spent[buys]:
            return False
        # A prefix ends before an offset; one record may hold several events of the key.
        ends = [-1, *mine[0], *mine[1]]
        low = max(offsets[count - 1] if count else -1 for offsets, count in zip(mine, (taps, buys), strict=True))
        high = min(
            offsets[count] if count < len(offsets) else max(ends) + 1
            for offsets, count in zip(mine, (taps, buys), strict=True)
        )
        return low < high

    def features(self, entity: str, instant_ms: int, upto: int | None = None) -> dict[str, Any]:
        """Return every feature at an instant, by brute force."""
        events = [event for offset, event in self.events if upto is None or offset <= upto]
        taps = [event for event in events if event.topic == "taps"]
        buys = [event for event in events if event.topic == "buys"]
        totals = {"taps_all": len(taps), "buys_all": len(buys), "spent_all": sum(event.amount for event in buys)}
        if entity == "item":
            day = _within(buys, instant_ms, 24 * HOUR_MS)
            return totals | {
                "taps_5m": len(_within(taps, instant_ms, HOUR_MS // 12)),
                "largest_1d": max((event.amount for event in day), default=None),
            }
        newest = sorted(_within(taps, instant_ms, 24 * HOUR_MS), key=lambda event: (event.time_ms, event.event_id))
        return totals | {
            "taps_1h": len(_within(taps, instant_ms, HOUR_MS)),
            "spent_1h": sum(event.amount for event in _within(buys, instant_ms, HOUR_MS)),
            "last_items_1d": [event.item_id for event in newest[:-6:-1]],
        }


def _within(events: Iterable[Event], instant_ms: int, size_ms: int) -> list[Event]:
    step_ms = size_ms // 12
    oldest_ms = (instant_ms - size_ms) // step_ms * step_ms
    return [
        event for event in events if oldest_ms <= event.time_ms and event.time_ms // step_ms * step_ms <= instant_ms
    ]


class Oracle:
    """Knows every record of the source logs and what became of it.

    Attributes:
        histories: By entity and key, what was applied.
        newest_ms: Newest record timestamp of all sources.
        counts: Source offsets by what became of them, as of the last ``settle``.
        problems: What cannot be explained.
        replays: Updates that came to an entity more than once.
    """

    def __init__(self) -> None:
        self.histories: dict[str, defaultdict[int, History]] = {name: defaultdict(History) for name in ENTITIES}
        self.newest_ms = 0
        self._good: dict[Place, Event] = {}
        self._bad: dict[Place, str] = {}
        self._crcs: dict[Place, int] = {}
        self._buried: defaultdict[Place, set[str]] = defaultdict(set)
        self._first: dict[str, dict[tuple[str, str], Place]] = {name: {} for name in ENTITIES}
        self._applied: dict[str, set[Place]] = {name: set() for name in ENTITIES}
        self._repeated: dict[str, set[Place]] = {name: set() for name in ENTITIES}
        self._unsettled: list[Place] = []
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.replays = 0

    @property
    def records(self) -> int:
        """How many records the source logs have."""
        return len(self._crcs)

    # -- what lies in the logs

    def source_record(self, place: Place, time_ms: int, value: bytes | None) -> None:
        """Take a record of a source log."""
        self._crcs[place] = zlib.crc32(value or b"")
        self._unsettled.append(place)
        self.newest_ms = max(self.newest_ms, time_ms)
        event = _decode(place[0], value)
        if event is None:
            self._bad[place] = "malformed"
        elif time_ms - event.time_ms > LATENESS_MS:
            self._bad[place] = "late"
        elif event.time_ms - time_ms > FUTURE_MS:
            self._bad[place] = "future"
        else:
            self._good[place] = event

    def packed_record(self, entity: str, offset: int, value: bytes) -> None:
        """Take a record of an entity's repartition topic: whose updates are in it, and are they new?"""
        pack = unpack(value)
        applied, first = self._applied[entity], self._first[entity]
        for at, key in zip(pack.offsets, pack.keys, strict=True):
            place = (pack.source, pack.partition, at)
            event = self._good.get(place)
            if event is None:
                self.problems.append(f"{place} is no good event and came to {entity} at offset {offset}")
                continue
            if key != f"i{getattr(event, ENTITIES[entity])}":
                self.problems.append(f"{place} came to {entity} {key}")
            if place in applied or place in self._repeated[entity]:
                self.replays += 1
            elif first.setdefault((event.topic, event.event_id), place) != place:
                self._repeated[entity].add(place)
            else:
                applied.add(place)
                self.histories[entity][getattr(event, ENTITIES[entity])].add(offset, event)

    def letter(self, place: Place, reason: str) -> None:
        """Take a dead letter."""
        self._buried[place].add(reason)

    # -- the accounts

    def check_ledger(self, topic: str, partition: int, offset: int | None, crc: int) -> bool:
        """Whether a record that was acknowledged at a place lies there; without an offset, anywhere in the partition."""
        if offset is not None:
            return self._crcs.get((topic, partition, offset)) == crc
        return any(known == crc and place[:2] == (topic, partition) for place, known in self._crcs.items())

    def is_meant(self, place: Place, kind: str) -> bool:
        """Whether a record was judged as its sender means it."""
        return self._bad.get(place, "good") == {"repeat": "good", "probe": "good"}.get(kind, kind)

    def settle(self) -> None:
        """Note every source offset that came since the last time and is not in exactly one set, for each entity."""
        for place in self._unsettled:
            reasons, expected = self._buried.get(place, set()), self._bad.get(place)
            if reasons != ({expected} if expected else set()):
                self.problems.append(
                    f"{place} is {expected or 'good'} and was buried as {sorted(reasons) or 'nothing'}"
                )
            for entity in ENTITIES:
                sets = [name for name, places in self._sets(entity).items() if place in places]
                sets += ["late" if reason == "late" else "dead-lettered" for reason in reasons]
                if len(sets) != 1:
                    self.problems.append(f"{place} is in the sets {sets} for {entity}")
                    self.counts["in no set" if not sets else "in two sets"] += 1
                elif entity == "user":
                    self.counts[sets[0]] += 1
        self._unsettled.clear()

    def _sets(self, entity: str) -> dict[str, set[Place]]:
        return {"applied": self._applied[entity], "duplicate": self._repeated[entity]}


def _decode(topic: str, value: bytes | None) -> Event | None:
    try:
        fields: Mapping[str, Any] = orjson.loads(value or b"")
        event = Event(
            topic,
            fields["event_id"],
            fields["time_ms"],
            fields["user_id"],
            fields["item_id"],
            fields["amount"] if topic == "buys" else 0,
        )
    except (ValueError, TypeError, KeyError):
        return None
    if type(event.event_id) is not str or not event.event_id:
        return None
    numbers = event[2:]
    return event if all(type(number) is int and 0 <= number <= NATURAL_MAX for number in numbers) else None
