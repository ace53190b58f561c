"""Aggregations: how many values become one feature.

States, not results, are kept in tiles, because states merge and results do not: the mean of two means is wrong.
Every state is made of what msgpack can carry. Nulls are skipped, except by ``Latest``, for which null is a state too.
The order of events is (event_time_ms, event_id), never the order of arrival: adding in any order gives one state.
Where a source has no ids, the values decide between events of one time.

To add one, write the class here and append it to ``AGGREGATIONS``; law, codec and oracle tests find it there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from core.expressions import Expr, ValueType

State: TypeAlias = Any
SCALARS = frozenset((ValueType.INT, ValueType.FLOAT, ValueType.STR, ValueType.BOOL))
NUMBERS = frozenset((ValueType.INT, ValueType.FLOAT))
ORDERED = frozenset((ValueType.INT, ValueType.FLOAT, ValueType.STR))

_TWO_64, _TWO_63 = 1 << 64, 1 << 63
_ENTRY_BYTES = 1 + 9 + 2 + 36
"""A time and an event id as long as a UUID, with msgpack's heads: what stands beside a value."""
_SCALAR_BYTES = {ValueType.INT: 9, ValueType.FLOAT: 9, ValueType.BOOL: 1, ValueType.STR: 66}


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How values become a state and states a result.

    Attributes:
        value: What is aggregated, or None where the event itself is.
        accepts: Types that ``value`` may have.
        takes_null: Whether a null value is added or skipped.
        never_null: Whether the result is a number in every state, so that nobody need look.
    """

    value: Expr | None = None
    accepts: ClassVar[frozenset[ValueType]] = SCALARS
    takes_null: ClassVar[bool] = False
    never_null: ClassVar[bool] = False

    def zero(self) -> State:
        """Return the state of nothing."""
        raise NotImplementedError

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Return the state with one more value; the old state is not used again."""
        raise NotImplementedError

    def merge(self, left: State, right: State) -> State:
        """Return the state of both; neither is changed."""
        raise NotImplementedError

    def result(self, state: State) -> Any:
        """Return the feature's value."""
        return state

    def result_type(self, value_type: ValueType) -> ValueType:
        """Return the type of the result for values of a type."""
        return value_type

    def worst_state_bytes(self, value_type: ValueType) -> int:
        """Return an upper estimate of a packed state's size, for the check of the worst row."""
        return _SCALAR_BYTES[value_type]

    def add_code(self, state: str, value: str, add: str) -> str:
        """Return the statements that add a value, for a function that is written for a group.

        By default they call ``add``. What is written instead must do the same, which a law test holds.

        Args:
            state: An expression to read the state from and assign it to.
            value: A name that holds the value; ``time_ms`` and ``event_id`` hold the event's.
            add: A name that holds ``self.add``.
        """
        return f"{state} = {add}({state}, {value}, time_ms, event_id)"

    def merge_code(self, left: str, right: str, merge: str) -> str:
        """Return the statements that merge one named state into another; by default they call ``merge``."""
        return f"{left} = {merge}({left}, {right})"

    @property
    def text(self) -> str:
        """What is computed, in one canonical form: part of the group's fingerprint and of a slot's identity."""
        return f"{type(self).__name__}({self.value.text if self.value is not None else ''})"


@dataclass(frozen=True, slots=True)
class Count(Aggregation):
    """How many events, or how many values that are not null. Nothing is 0."""

    never_null: ClassVar[bool] = True

    def zero(self) -> State:
        """Return 0."""
        return 0

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:  # the port's signature
        """Count one."""
        return state + 1

    def add_code(self, state: str, value: str, add: str) -> str:  # the port's signature
        """Count one."""
        return f"{state} += 1"

    def merge(self, left: State, right: State) -> State:
        """Add up."""
        return left + right

    def merge_code(self, left: str, right: str, merge: str) -> str:  # the port's signature
        """Add up."""
        return f"{left} += {right}"

    def result_type(self, value_type: ValueType) -> ValueType:  # the port's signature
        """Return int."""
        return ValueType.INT


@dataclass(frozen=True, slots=True)
class Sum(Aggregation):
    """The sum; of nothing it is 0.

    Integers wrap at 64 bits as in polars, numpy and Java: of all 64-bit rules only this one gives the same sum in
    every order of events.
    """

    accepts: ClassVar[frozenset[ValueType]] = NUMBERS

    def zero(self) -> State:
        """Return 0."""
        return 0

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:  # the port's signature
        """Add one value."""
        return self.merge(state, value)

    def merge(self, left: State, right: State) -> State:
        """Add up."""
        total = left + right
        if type(total) is float or -_TWO_63 <= total < _TWO_63:
            return total
        return (total + _TWO_63) % _TWO_64 - _TWO_63

    def add_code(self, state: str, value: str, add: str) -> str:  # the port's signature
        """Add up; what leaves 64 bits is left to ``add``."""
        total = f"total = {state} + {value}"
        return f"{total}\n{state} = total if {-_TWO_63} <= total < {_TWO_63} else {add}({state}, {value}, 0, '')"

    def merge_code(self, left: str, right: str, merge: str) -> str:
        """Add up; what leaves 64 bits is left to ``merge``."""
        total = f"total = {left} + {right}"
        return f"{total}\n{left} = total if {-_TWO_63} <= total < {_TWO_63} else {merge}({left}, {right})"


@dataclass(frozen=True, slots=True)
class Mean(Aggregation):
    """The arithmetic mean, a float; of nothing it is null."""

    accepts: ClassVar[frozenset[ValueType]] = NUMBERS

    def zero(self) -> State:
        """Return the sum and the number of nothing."""
        return (0.0, 0)

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:  # the port's signature
        """Add one value."""
        return (state[0] + value, state[1] + 1)

    def add_code(self, state: str, value: str, add: str) -> str:  # the port's signature
        """Add one value."""
        return f"total, number = {state}\n{state} = (total + {value}, number + 1)"

    def merge(self, left: State, right: State) -> State:
        """Add up sums and numbers."""
        return (left[0] + right[0], left[1] + right[1])

    def result(self, state: State) -> Any:
        """Divide."""
        return state[0] / state[1] if state[1] else None

    def result_type(self, value_type: ValueType) -> ValueType:  # the port's signature
        """Return float."""
        return ValueType.FLOAT

    def worst_state_bytes(self, value_type: ValueType) -> int:  # the port's signature
        """Return the size of a pair."""
        return 19


@dataclass(frozen=True, slots=True)
class Min(Aggregation):
    """The smallest value; of nothing it is null."""

    accepts: ClassVar[frozenset[ValueType]] = ORDERED

    def zero(self) -> State:
        """Return null."""
        return None

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:  # the port's signature
        """Keep the smaller."""
        return value if state is None or value < state else state

    def add_code(self, state: str, value: str, add: str) -> str:  # the port's signature
        """Keep the smaller."""
        return f"known = {state}\nif known is None or {value} < known:\n    {state} = {value}"

    def merge(self, left: State, right: State) -> State:
        """Keep the smaller."""
        if left is None or right is None:
            return right if left is None else left
        return min(left, right)


@dataclass(frozen=True, slots=True)
class Max(Aggregation):
    """The largest value; of nothing it is null."""

    accepts: ClassVar[frozenset[ValueType]] = ORDERED

    def zero(self) -> State:
        """Return null."""
        return None

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:  # the port's signature
        """Keep the larger."""
        return value if state is None or value > state else state

    def add_code(self, state: str, value: str, add: str) -> str:  # the port's signature
        """Keep the larger."""
        return f"known = {state}\nif known is None or {value} > known:\n    {state} = {value}"

    def merge(self, left: State, right: State) -> State:
        """Keep the larger."""
        if left is None or right is None:
            return right if left is None else left
        return max(left, right)


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

    def worst_state_bytes(self, value_type: ValueType) -> int:
        """Return the size of time, id and value."""
        return _ENTRY_BYTES + _SCALAR_BYTES[value_type]


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

    def result_type(self, value_type: ValueType) -> ValueType:  # the port's signature
        """Return list."""
        return ValueType.LIST

    def worst_state_bytes(self, value_type: ValueType) -> int:
        """Return the size of a full list."""
        return 3 + self.n * (_ENTRY_BYTES + _SCALAR_BYTES[value_type])

    @property
    def text(self) -> str:
        """What is computed."""
        value = self.value.text if self.value is not None else ""
        return f"LastN({value}, n={self.n}, distinct={self.distinct})"


AGGREGATIONS: tuple[type[Aggregation], ...] = (Count, Sum, Mean, Min, Max, Last, Latest, LastN)


def _youth(entry: Sequence[Any]) -> tuple[int, str, bool, Any]:
    time_ms, event_id, value = entry
    return time_ms, event_id, value is not None, value
