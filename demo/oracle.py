"""The oracle: what every feature of the demo must be, by brute force over the raw events.

It knows the demo's features and their meaning, and nothing of how the platform computes them: no tiles are stored, no
states merged, and no code is shared. Slow and plain is the point: two programs that agree on half a million values
are unlikely to be wrong in the same way.

A window of size W moves in steps of T = W / 12. At instant t an event counts if its own step, ``floor_T(time)``, is
neither older than ``floor_T(t - W)`` nor younger than t: the oldest step counts whole.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from demo.log import CLICKS, CONVERSIONS, IMPRESSIONS, DemoEvent

# None is an aggregation of nothing, or of nulls alone.
Value: TypeAlias = int | float | str | list[int] | None
Key: TypeAlias = tuple[int, ...]
T = TypeVar("T", bound=Hashable)
Compute: TypeAlias = Callable[[Sequence[DemoEvent], int], Any]
"""From a key's events, oldest first, and an instant to a value."""
MORE: Mapping[str, Mapping[str, Compute]] = {}

# Entity to the fields that make up its key, in order.
ENTITIES: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id",),
    "video": ("video_id",),
    "user_tab": ("user_id", "tab"),
}

_HOUR_MS = 3_600_000
_WINDOWS_MS = {"5m": _HOUR_MS // 12, "1h": _HOUR_MS, "1d": 24 * _HOUR_MS, "7d": 7 * 24 * _HOUR_MS}
_STEPS = 12
_FLOAT_TOLERANCE = 1e-9


class Oracle:
    """Knows all events and answers for any key at any instant."""

    def __init__(self, events: Iterable[DemoEvent], more: Mapping[str, Mapping[str, Compute]] = MORE) -> None:
        """Index the events; of those with the same topic and id only the first counts.

        Args:
            events: All of them.
            more: By entity and ``group:feature``, how features are computed that are not known here.
        """
        self._more = more
        self._histories: dict[str, defaultdict[Key, list[DemoEvent]]] = {
            entity: defaultdict(list) for entity in ENTITIES
        }
        seen = set()
        for event in events:
            if (event.topic, event.event_id) in seen:
                continue
            seen.add((event.topic, event.event_id))
            for entity, columns in ENTITIES.items():
                key = tuple(int(event.fields[column]) for column in columns)
                self._histories[entity][key].append(event)
        for histories in self._histories.values():
            for history in histories.values():
                history.sort(key=lambda event: (event.time_ms, event.event_id), reverse=True)

    def history(self, entity: str, key: Key) -> list[DemoEvent]:
        """Return the events of a key, each once, oldest first."""
        return self._histories[entity].get(key, [])[::-1]

    def keys(self, entity: str) -> list[Key]:
        """Return every key of an entity that some event touches, in the order of first touch."""
        return list(self._histories[entity])

    def expected(self, entity: str, key: Key, instant_ms: int) -> dict[str, Value]:
        """Return all features of a key, by ``group:feature``.

        Args:
            entity: ``user``, ``video`` or ``user_tab``.
            key: Values of the entity's key columns. A key without events has every feature's empty value.
            instant_ms: The instant of the answer, milliseconds since the epoch, UTC.
        """
        history = _History(self._histories[entity].get(key, []), instant_ms)
        values = {
            f"{group}:{name}": value
            for group, compute in _GROUPS[entity].items()
            for name, value in compute(history).items()
        }
        oldest_first = self.history(entity, key)
        more = self._more.get(entity, {})
        return values | {name: more[name](oldest_first, instant_ms) for name in more if name not in values}

    def features(self) -> list[str]:
        """Return all features that are known, by ``group:feature``."""
        return [name for entity in ENTITIES for name in self.empty(entity)]

    def empty(self, entity: str) -> dict[str, Value]:
        """Return the value that each feature has when nothing ever happened, by ``group:feature``."""
        return self.expected(entity, (), 0)


def same(expected: object, served: object) -> bool:
    """Return whether a served value is the expected one: exactly, or within 1e-9 of it if a float is expected.

    >>> same(0.1 + 0.2, 0.3), same(3, 3.0), same(None, 0), same([1, 2], [1, 2])
    (True, False, False, True)
    """
    if isinstance(expected, float):
        number = isinstance(served, (int, float)) and not isinstance(served, bool)
        return number and math.isclose(expected, float(str(served)), rel_tol=_FLOAT_TOLERANCE)
    if isinstance(expected, list):
        return (
            isinstance(served, list)
            and len(expected) == len(served)
            and all(same(mine, theirs) for mine, theirs in zip(expected, served, strict=True))
        )
    return type(expected) is type(served) and expected == served


class _History:
    """The events of one key, newest first, as seen at one instant."""

    def __init__(self, events: Sequence[DemoEvent], instant_ms: int) -> None:
        self._events = events
        self._instant_ms = instant_ms

    def of(self, topic: str, window: str, kind: str | None = None) -> list[DemoEvent]:
        """Return the events of a topic, and of a kind if one is given, that count in a window; ``all`` is no window."""
        return [
            event
            for event in self._events
            if event.topic == topic
            and (kind is None or event.fields["kind"] == kind)
            and (window == "all" or self._counts(event.time_ms, _WINDOWS_MS[window]))
        ]

    def _counts(self, time_ms: int, size_ms: int) -> bool:
        step_ms = size_ms // _STEPS
        oldest_ms = (self._instant_ms - size_ms) // step_ms * step_ms
        return oldest_ms <= time_ms // step_ms * step_ms <= self._instant_ms


def _user_engagement(history: _History) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for window in ("1h", "1d", "7d"):
        impressions, clicks = history.of(IMPRESSIONS, window), history.of(CLICKS, window)
        values[f"impressions_{window}"] = len(impressions)
        values[f"clicks_{window}"] = len(clicks)
        values[f"watch_s_{window}"] = math.fsum(_watch_s(impressions))
        values[f"ctr_{window}"] = _ratio(clicks, impressions, default=0.0)
    values["likes_7d"] = len(history.of(CONVERSIONS, "7d", "like"))
    values["follows_7d"] = len(history.of(CONVERSIONS, "7d", "follow"))
    return values


def _user_taste(history: _History) -> dict[str, Value]:
    week, ever = history.of(IMPRESSIONS, "7d"), history.of(IMPRESSIONS, "all")
    return {
        "last_videos_7d": list(islice(_distinct(_field(history.of(CLICKS, "7d"), "video_id")), 20)),
        "mean_watch_s_7d": _mean(_watch_s(week)),
        "watch_s_deviation_7d": _deviation(_watch_s(week)),
        "longest_watch_s_7d": max(_watch_s(week), default=None),
        "last_liked_video_7d": _newest(history.of(CONVERSIONS, "7d", "like"), "video_id"),
        "top_tabs_7d": _most_frequent(_field(week, "tab"))[:3],
        "impressions_all": len(ever),
        "tab": _newest(ever, "tab"),
    }


def _video_popularity(history: _History) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for window in ("5m", "1h", "1d"):
        impressions, clicks = history.of(IMPRESSIONS, window), history.of(CLICKS, window)
        values[f"impressions_{window}"] = len(impressions)
        values[f"clicks_{window}"] = len(clicks)
        values[f"long_views_{window}"] = len(history.of(CONVERSIONS, window, "long_view"))
        values[f"ctr_{window}"] = _ratio(clicks, impressions, default=0.0)
    hour, day = history.of(IMPRESSIONS, "1h"), history.of(IMPRESSIONS, "1d")
    values["impressions_change_1h"] = len(hour) / (len(day) / 24) - 1 if day else None
    return values


def _video_quality(history: _History) -> dict[str, Value]:
    week, long_views = history.of(IMPRESSIONS, "7d"), history.of(CONVERSIONS, "7d", "long_view")
    return {
        "watch_share_7d": _mean(_watch_shares(week)),
        "likes_7d": len(history.of(CONVERSIONS, "7d", "like")),
        "forwards_7d": len(history.of(CONVERSIONS, "7d", "forward")),
        "long_view_rate_7d": _ratio(long_views, week, default=None),
        "long_views_7d": len(long_views),
        "impressions_7d": len(week),
        "longest_watch_s_7d": max(_watch_s(week), default=None),
        "shortest_watch_s_7d": min(_watch_s(week), default=None),
        "duration_ms": _newest(history.of(IMPRESSIONS, "all"), "duration_ms"),
    }


def _user_tab_engagement(history: _History) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for window in ("1h", "1d"):
        impressions, clicks = history.of(IMPRESSIONS, window), history.of(CLICKS, window)
        values[f"impressions_{window}"] = len(impressions)
        values[f"clicks_{window}"] = len(clicks)
        values[f"ctr_{window}"] = _ratio(clicks, impressions, default=0.0)
    day = history.of(IMPRESSIONS, "1d")
    values["watch_s_1d"] = math.fsum(_watch_s(day))
    values["first_video_1d"] = next(reversed(_field(day, "video_id")), None)
    values["last_videos_1d"] = _field(day, "video_id")[:5]
    return values


_GROUPS: Mapping[str, Mapping[str, Callable[[_History], dict[str, Value]]]] = {
    "user": {"user_engagement": _user_engagement, "user_taste": _user_taste},
    "video": {"video_popularity": _video_popularity, "video_quality": _video_quality},
    "user_tab": {"user_tab_engagement": _user_tab_engagement},
}


def _field(events: Sequence[DemoEvent], name: str) -> list[int]:
    return [int(event.fields[name]) for event in events]


def _newest(events: Sequence[DemoEvent], name: str) -> int | None:
    return next(iter(_field(events, name)), None)


def _distinct(values: Iterable[T]) -> Iterable[T]:
    """Return each value once, at its first place; newest first, that is its newest occurrence."""
    return dict.fromkeys(values)


def _watch_s(impressions: Sequence[DemoEvent]) -> list[float]:
    return [watch_ms / 1000 for watch_ms in _field(impressions, "watch_ms")]


def _watch_shares(impressions: Sequence[DemoEvent]) -> list[float]:
    """Return which part of each video was watched; one of unknown length is left out, as x/0 is null."""
    pairs = zip(_field(impressions, "watch_ms"), _field(impressions, "duration_ms"), strict=True)
    return [watch_ms / duration_ms for watch_ms, duration_ms in pairs if duration_ms]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of the population."""
    return statistics.pstdev(values) if values else None


def _most_frequent(values: Sequence[int]) -> list[int]:
    return sorted(set(values), key=lambda value: (-values.count(value), value))


def _ratio(numerator: Sequence[object], denominator: Sequence[object], *, default: float | None) -> float | None:
    return len(numerator) / len(denominator) if denominator else default
