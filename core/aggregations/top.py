"""Aggregations that find the most frequent values: exactly, or within a bound.

Both count per value. ``TopK`` is exact or null; ``ApproxTopK`` forgets the rare ones when there are too many.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from core.aggregations.port import COUNT_BYTES, Aggregation, State
from core.values import ValueType

COUNTED = frozenset((ValueType.INT, ValueType.STR, ValueType.BOOL))
"""Floats are measured, not counted: 0.1 + 0.2 and 0.3 would be two values."""

_N_MAX, _COUNTERS_MAX = 100, 1000


@dataclass(frozen=True, slots=True)
class TopK(Aggregation):
    """The ``n`` most frequent values, the most frequent first and the smaller first of equally frequent ones.

    Of nothing the empty list. Where there are more different values than ``values_max`` it is null, never a guess: for
    values without such a bound there is ``ApproxTopK``.

    Attributes:
        n: How many values at the most, 1 to 100.
        values_max: How many different values there may be, in a tile and in the window, 1 to 1,000.
    """

    accepts: ClassVar[frozenset[ValueType]] = COUNTED
    bounds: ClassVar[Mapping[str, tuple[int, int]]] = {"n": (1, _N_MAX), "values_max": (1, _COUNTERS_MAX)}
    exactness: ClassVar[str] = "exact, or null above `values_max` different values"

    n: int = 10
    values_max: int = 50

    def zero(self) -> State:
        """Return no counts; null will stand for too many."""
        return {}

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Count one."""
        if state is None:
            return None
        state[value] = state.get(value, 0) + 1
        return state if len(state) <= self.values_max else None

    def merge(self, left: State, right: State) -> State:
        """Add up per value."""
        return self.merge_all((left, right))

    def merge_all(self, states: Sequence[State]) -> State:
        """Add up per value."""
        if any(state is None for state in states):
            return None
        counts = _sum(states)
        return counts if len(counts) <= self.values_max else None

    def result(self, state: State) -> Any:
        """Return the values alone."""
        return None if state is None else _most_frequent(state, self.n)

    def items(self, state: State) -> int | None:
        """Return how many values are counted."""
        return None if state is None else len(state)

    def result_type(self, value_type: ValueType) -> ValueType:
        """Return list."""
        return ValueType.LIST

    def worst_state_bytes(self, value_bytes: int) -> int:
        """Return the size of a full table."""
        return 3 + self.values_max * (value_bytes + COUNT_BYTES)


@dataclass(frozen=True, slots=True)
class ApproxTopK(Aggregation):
    """The ``n`` most frequent values of however many, nearly; order as in ``TopK``. Of nothing the empty list.

    Exact as long as there are at most ``counters`` different values. Beyond, what the rare half has is taken from all,
    so that of N events each count is too small by at most ``2 N / counters``, and no value with more is forgotten.
    Which ones are depends on the order of events, and that is the same for every owner of a partition.

    Attributes:
        n: How many values at the most, 1 to 100.
        counters: How many values are counted at a time, 2 to 1,000.

    Source: Misra, Gries, Finding repeated elements, 1982; merged as in Agarwal et al., Mergeable summaries, 2012.
    """

    accepts: ClassVar[frozenset[ValueType]] = COUNTED
    bounds: ClassVar[Mapping[str, tuple[int, int]]] = {"n": (1, _N_MAX), "counters": (2, _COUNTERS_MAX)}
    exactness: ClassVar[str] = "each count at most 2 N / `counters` too small"

    n: int = 10
    counters: int = 50

    def zero(self) -> State:
        """Return what was taken from all counts so far, and no counts."""
        return [0, {}]

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Count one; if there are too many, make room for as many again as are kept."""
        counts = state[1]
        counts[value] = counts.get(value, 0) + 1
        return state if len(counts) <= self.counters else self._cut(state[0], counts, keep=self.counters // 2)

    def merge(self, left: State, right: State) -> State:
        """Add up per value."""
        counts = _sum((left[1], right[1]))
        taken = left[0] + right[0]
        return [taken, counts] if len(counts) <= self.counters else self._cut(taken, counts, keep=self.counters)

    def result(self, state: State) -> Any:
        """Return the values alone."""
        return _most_frequent(state[1], self.n)

    def items(self, state: State) -> int | None:
        """Return how many values are counted."""
        return len(state[1])

    def result_type(self, value_type: ValueType) -> ValueType:
        """Return list."""
        return ValueType.LIST

    def worst_state_bytes(self, value_bytes: int) -> int:
        """Return the size of a full table."""
        return 4 + COUNT_BYTES + self.counters * (value_bytes + COUNT_BYTES)

    @staticmethod
    def _cut(taken: int, counts: dict[Any, int], *, keep: int) -> State:
        """Take the largest count that is not kept from all: at least ``keep`` + 1 lose as much, hence the bound."""
        cut = sorted(counts.values(), reverse=True)[keep]
        return [taken + cut, {value: count - cut for value, count in counts.items() if count > cut}]


def _sum(tables: Iterable[Mapping[Any, int]]) -> dict[Any, int]:
    counts: dict[Any, int] = {}
    for table in tables:
        for value, count in table.items():
            counts[value] = counts.get(value, 0) + count
    return counts


def _most_frequent(counts: Mapping[Any, int], n: int) -> list[Any]:
    return sorted(counts, key=lambda value: (-counts[value], value))[:n]
