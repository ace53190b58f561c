"""Ready rows: what answers need of a row, prepared once and remembered.

Merging tiles, deciding on statuses and writing JSON is the same work for each read of a row, until the row's next
version comes or the next tile boundary passes. Most reads then cost none of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from core.plans import GroupPlan
from core.ports import RowKey
from core.rows import Row, unpack_tail
from core.tiles import finish
from core.windows import NEVER_MS, to_ms
from serving.statuses import INVALID, NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, PRESENT

EPOCH = "1970-01-01T00:00:00Z"

_ROWS_MAX, _TAIL_BYTES_MAX = 10_000, 64 << 20
"""With ten features each, 15 MB, and the tiles of the rows, which may be copied nowhere else."""
_RFC3339_MAX_MS = 253_402_300_799_999
_SECONDS_MAX = 100_000


@dataclass(slots=True)
class ReadyRow:
    """What is served of one row, or of none, from one instant until another.

    Attributes:
        row: The row, or None where there is none.
        from_ms: First instant at which this is served.
        until_ms: First instant at which it is not any more.
        values: In the order of the features' names.
        status: Of all values, or None where each value's own tells it.
        event_time: Newest event time of the row, RFC 3339.
        is_present: Whether every value is there.
    """

    row: Row | None
    from_ms: int
    until_ms: int
    values: Sequence[Any]
    status: str | None
    event_time: str
    _statuses: list[str] | None = None
    _written_time: bytes | None = None
    is_present: bool = field(init=False)
    _cells: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find out what every answer with this row asks."""
        self.is_present = self.status is None and None not in self.values

    @property
    def statuses(self) -> list[str]:
        """The status of each value."""
        if self._statuses is None:
            self._statuses = [self.status or (NULL_VALUE if value is None else PRESENT) for value in self.values]
        return self._statuses

    def written_time(self) -> bytes:
        """Return the event time as JSON."""
        if self._written_time is None:
            self._written_time = kept_json(self.event_time)
        return self._written_time

    def cell(self, place: int) -> bytes:
        """Return the result of one value in an answer that has this row alone, as JSON."""
        cell = self._cells.get(place)
        if cell is None:
            value, status = self.values[place], self.statuses[place]
            result = {"values": [value], "statuses": [status], "event_timestamps": [self.event_time]}
            cell = self._cells[place] = kept_json(result)
        return cell


def kept_json(value: Any) -> bytes:
    """Return JSON that is to be kept.

    What orjson returns keeps the buffer that it was written in: 4 KB of memory for each small number.
    """
    return bytes(memoryview(orjson.dumps(value)))


class ReadyRows:
    """Ready rows of one server, those that were made last; a row counts only as the very object that was prepared."""

    def __init__(
        self, *, empty_lists: bool = True, rows_max: int = _ROWS_MAX, tail_bytes_max: int = _TAIL_BYTES_MAX
    ) -> None:
        """Begin with none.

        Args:
            empty_lists: Whether an empty list is served as such, or as null: Feast's SDK (0.67) raises a TypeError at
                one, whoever serves it.
            rows_max: How many are remembered.
            tail_bytes_max: Of the tiles of these.
        """
        self._empty_lists = empty_lists
        self._ready: dict[RowKey, ReadyRow] = {}
        self._rows_max = rows_max
        self._tail_bytes = 0
        self._tail_bytes_max = tail_bytes_max
        self._missing: dict[bytes, ReadyRow] = {}

    def get_all(
        self, plan: GroupPlan, keys: Sequence[RowKey], rows: Sequence[Row | None], instant_ms: int
    ) -> list[ReadyRow]:
        """Return what is served of rows of one group at an instant.

        Args:
            plan: Of the group.
            keys: Where the rows stand.
            rows: The rows as they were read, or None where there is none.
            instant_ms: Milliseconds.
        """
        return [
            ready
            if ready is not None and ready.row is row and ready.from_ms <= instant_ms < ready.until_ms
            else self._make(plan, key, row, instant_ms)
            for key, row, ready in zip(keys, rows, map(self._ready.get, keys), strict=True)
        ]

    def _make(self, plan: GroupPlan, key: RowKey, row: Row | None, instant_ms: int) -> ReadyRow:
        if row is None:
            return self._none(plan)
        ready = self.serve(plan, row, instant_ms)
        if ready.row is not None:
            self._forget(key)
            self._ready[key] = ready
            self._tail_bytes += _tail_bytes(ready)
            while len(self._ready) > self._rows_max or self._tail_bytes > self._tail_bytes_max:
                self._forget(next(iter(self._ready)))
        return ready

    def _forget(self, key: RowKey) -> None:
        ready = self._ready.pop(key, None)
        if ready is not None:
            self._tail_bytes -= _tail_bytes(ready)

    def serve(self, plan: GroupPlan, row: Row | None, instant_ms: int) -> ReadyRow:
        """Return what is served of one row, or of none, at an instant; it is not remembered."""
        ready = serve_row(plan, row, instant_ms)
        if self._empty_lists:
            return ready
        return replace(ready, values=[None if value == [] else value for value in ready.values])

    def unread(self, plan: GroupPlan) -> ReadyRow:
        """Return what is served of a row that nobody could read: it may be anything, and is told to be no value."""
        if not has_defaults(plan):
            return ReadyRow(None, 0, NEVER_MS, [None] * len(plan.features), INVALID, EPOCH)
        none = self._none(plan)
        return ReadyRow(None, 0, NEVER_MS, none.values, INVALID, EPOCH)

    def _none(self, plan: GroupPlan) -> ReadyRow:
        ready = self._missing.get(plan.fingerprint)
        if ready is None:
            ready = self._missing[plan.fingerprint] = self.serve(plan, None, 0)
        return ready


def _tail_bytes(ready: ReadyRow) -> int:
    return memoryview(ready.row.tail).nbytes if ready.row is not None else 0


def has_defaults(plan: GroupPlan) -> bool:
    """Whether a group's rows that nobody could read are served as what a key without a row has."""
    return plan.group.serving.on_failure == "default"


def serve_row(plan: GroupPlan, row: Row | None, instant_ms: int) -> ReadyRow:
    """Return what is served of a row, or of none, at an instant and until when."""
    if row is None or row.expires_at_ms <= instant_ms:
        return _missing(plan)
    event_time = _rfc3339(row.event_time_ms)
    max_age = plan.group.serving.max_age
    ages_ms = row.event_time_ms + to_ms(max_age) + 1 if max_age is not None else NEVER_MS
    if ages_ms <= instant_ms:
        nothing = [None] * len(plan.features)
        return ReadyRow(row, instant_ms, row.expires_at_ms, nothing, OUTSIDE_MAX_AGE, event_time)
    if row.valid_from_ms <= instant_ms < row.valid_until_ms:
        values, from_ms, until_ms = row.values, row.valid_from_ms, row.valid_until_ms
    else:
        values, until_ms = finish(plan, unpack_tail(row), instant_ms)
        from_ms = instant_ms
    return ReadyRow(row, from_ms, min(until_ms, ages_ms, row.expires_at_ms), values, None, event_time)


def _missing(plan: GroupPlan) -> ReadyRow:
    return ReadyRow(None, 0, NEVER_MS, plan.empty, NOT_FOUND, EPOCH)


def _rfc3339(time_ms: int) -> str:
    # A four-digit year is all that RFC 3339 can write; a producer's clock may be further off than that.
    seconds, rest = divmod(min(time_ms, _RFC3339_MAX_MS), 1000)
    text = _second(seconds)
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"


@lru_cache(maxsize=_SECONDS_MAX)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
