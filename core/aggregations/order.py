"""Aggregations that choose by the order of events: (event_time_ms, event_id), never the order of arrival.

Where a source has no ids, the values decide between events of one time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from core.aggregations.port import Aggregation, State
from core.values import ValueType

_ENTRY_BYTES = 1 + 9 + 2 + 36
"""A time and an event id as long as a UUID, with msgpack's heads: what stands beside a value."""


@dataclass(frozen=True, slots=True)
class First(Aggregation):
    """The oldest value that is not null; of nothing it is null."""

    def zero(self) -> State:
        """Return null."""
        return None

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Keep the older, nearly always the one that is there."""
        if state is not None and time_ms > state[0]:
            return state
        entry = (time_ms, event_id, value)
        return entry if state is None or _youth(entry) < _youth(state) else state

    def add_code(self, state: str, value: str, add: str) -> str:
        """Keep the older; nearly every event is younger than the one that is there."""
        added = f"{state} = {add}(known, {value}, time_ms, event_id)"
        return f"known = {state}\nif known is None or time_ms <= known[0]:\n    {added}"

    def merge(self, left: State, right: State) -> State:
        """Keep the older."""
        if left is None or right is None:
            return right if left is None else left
        return right if _youth(right) < _youth(left) else left

    def result(self, state: State) -> Any:
        """Return the value alone."""
        return None if state is None else state[2]

    def worst_state_bytes(self, value_bytes: int) -> int:
        """Return the size of time, id and value."""
        return _ENTRY_BYTES + value_bytes


@dataclass(frozen=True, slots=True)
class Last(Aggregation):
    """The youngest value that is not null; of nothing it is null."""

    def zero(self) -> State:
        """Return null."""
        return None

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Keep the younger."""
        entry = (time_ms, event_id, value)
        if state is None or time_ms > state[0] or (time_ms == state[0] and _youth(entry) > _youth(state)):
            return entry
        return state

    def add_code(self, state: str, value: str, add: str) -> str:
        """Keep the younger; nearly every event is younger than those before it."""
        younger = (
            f"known = {state}\nif known is None or time_ms > known[0]:\n    {state} = (time_ms, event_id, {value})"
        )
        return f"{younger}\nelif time_ms == known[0]:\n    {state} = {add}(known, {value}, time_ms, event_id)"

    def merge(self, left: State, right: State) -> State:
        """Keep the younger."""
        if left is None or right is None:
            return right if left is None else left
        return right if _youth(right) > _youth(left) else left

    def result(self, state: State) -> Any:
        """Return the value alone."""
        return None if state is None else state[2]

    def worst_state_bytes(self, value_bytes: int) -> int:
        """Return the size of time, id and value."""
        return _ENTRY_BYTES + value_bytes


@dataclass(frozen=True, slots=True)
class Latest(Last):
    """The state that the youngest event told, null included; for attributes that change, not for actions."""

    takes_null: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class LastN(Aggregation):
    """The youngest ``n`` values, youngest first; of nothing the empty list.

    Attributes:
        n: How many at the most, 1 to 1,000.
        distinct: Whether a value stands only once, at its youngest event.
    """

    bounds: ClassVar[Mapping[str, tuple[int, int]]] = {"n": (1, 1000)}

    n: int = 10
    distinct: bool = False

    def zero(self) -> State:
        """Return the empty list."""
        return []

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Put one value into its place, nearly always the first one."""
        entry = (time_ms, event_id, value)
        youth = _youth(entry)
        if self.distinct:
            for place, other in enumerate(state):
                if other[2] == value:
                    if _youth(other) >= youth:
                        return state
                    del state[place]
                    break
        place = 0
        if state and time_ms <= state[0][0]:
            place = next((place for place, other in enumerate(state) if _youth(other) < youth), len(state))
        if place < self.n:
            state.insert(place, entry)
            del state[self.n :]
        return state

    def merge(self, left: State, right: State) -> State:
        """Sort both together, youngest first, and cut.

        A value that either side has cut off is older than ``n`` others of that side, so it cannot come back.
        """
        merged = sorted((*left, *right), key=_youth, reverse=True)
        if not self.distinct:
            return merged[: self.n]
        seen: set[Any] = set()
        kept = []
        for entry in merged:
            if entry[2] not in seen:
                seen.add(entry[2])
                kept.append(entry)
                if len(kept) == self.n:
                    break
        return kept

    def result(self, state: State) -> Any:
        """Return the values alone."""
        return [entry[2] for entry in state]

    def items(self, state: State) -> int | None:
        """Return the length of the list."""
        return len(state)

    def result_type(self, value_type: ValueType) -> ValueType:
        """Return list."""
        return ValueType.LIST

    def worst_state_bytes(self, value_bytes: int) -> int:
        """Return the size of a full list."""
        return 3 + self.n * (_ENTRY_BYTES + value_bytes)


def _youth(entry: Sequence[Any]) -> tuple[int, str, bool, Any]:
    time_ms, event_id, value = entry
    return time_ms, event_id, value is not None, value
