"""Aggregations that calculate: how many, how much, between which bounds."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from core.aggregations.port import NUMBER_BYTES, NUMBERS, ORDERED, Aggregation, State
from core.values import ValueType

_TWO_64, _TWO_63 = 1 << 64, 1 << 63


@dataclass(frozen=True, slots=True)
class Count(Aggregation):
    """How many events, or how many values that are not null. Nothing is 0."""

    never_null: ClassVar[bool] = True

    def zero(self) -> State:
        """Return 0."""
        return 0

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Count one."""
        return state + 1

    def add_code(self, state: str, value: str, add: str) -> str:
        """Count one."""
        return f"{state} += 1"

    def merge(self, left: State, right: State) -> State:
        """Add up."""
        return left + right

    def merge_code(self, left: str, right: str, merge: str) -> str:
        """Add up."""
        return f"{left} += {right}"

    def result_type(self, value_type: ValueType) -> ValueType:
        """Return int."""
        return ValueType.INT

    def worst_state_bytes(self, value_bytes: int) -> int:
        """Return the size of a number, whatever is counted."""
        return NUMBER_BYTES


@dataclass(frozen=True, slots=True)
class Sum(Aggregation):
    """The sum; of nothing it is 0.

    Integers wrap at 64 bits as in polars, numpy and Java: of all 64-bit rules only this one gives the same sum in
    every order of events.
    """

    accepts: ClassVar[frozenset[ValueType]] = NUMBERS
    exactness: ClassVar[str] = "integers exact, floats within 1e-9"

    def zero(self) -> State:
        """Return 0."""
        return 0

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Add one value."""
        return self.merge(state, value)

    def merge(self, left: State, right: State) -> State:
        """Add up."""
        total = left + right
        if type(total) is float or -_TWO_63 <= total < _TWO_63:
            return total
        return (total + _TWO_63) % _TWO_64 - _TWO_63

    def add_code(self, state: str, value: str, add: str) -> str:
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
    exactness: ClassVar[str] = "within 1e-9"

    def zero(self) -> State:
        """Return the sum and the number of nothing."""
        return (0.0, 0)

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Add one value."""
        return (state[0] + value, state[1] + 1)

    def add_code(self, state: str, value: str, add: str) -> str:
        """Add one value."""
        return f"total, number = {state}\n{state} = (total + {value}, number + 1)"

    def merge(self, left: State, right: State) -> State:
        """Add up sums and numbers."""
        return (left[0] + right[0], left[1] + right[1])

    def result(self, state: State) -> Any:
        """Divide."""
        return state[0] / state[1] if state[1] else None

    def result_type(self, value_type: ValueType) -> ValueType:
        """Return float."""
        return ValueType.FLOAT

    def worst_state_bytes(self, value_bytes: int) -> int:
        """Return the size of a pair."""
        return 19


@dataclass(frozen=True, slots=True)
class Variance(Aggregation):
    """The variance, of the population unless ``sample=True``; of too few values for it, null.

    Kept as number, mean and sum of squared distances from the mean: a sum of squares would lose every digit of the
    variance of large numbers that are close together, as times are.

    Attributes:
        sample: Whether the values are a sample, so that the divisor is one less than their number, which must be two
            at least (``VAR_SAMP`` in SQL), or all that there is (``VAR_POP``), of which one has the variance 0.

    Source: Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
    """

    accepts: ClassVar[frozenset[ValueType]] = NUMBERS
    exactness: ClassVar[str] = "within 1e-9"

    sample: bool = False

    def zero(self) -> State:
        """Return number, mean and squared distances of nothing."""
        return (0, 0.0, 0.0)

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Add one value."""
        number, mean, squares = state
        number += 1
        distance = value - mean
        mean += distance / number
        return (number, mean, squares + distance * (value - mean))

    def add_code(self, state: str, value: str, add: str) -> str:
        """Add one value."""
        return (
            f"number, mean, squares = {state}\nnumber += 1\ndistance = {value} - mean\nmean += distance / number\n"
            f"{state} = (number, mean, squares + distance * ({value} - mean))"
        )

    def merge(self, left: State, right: State) -> State:
        """Put both about their common mean."""
        if not left[0] or not right[0]:
            return left if left[0] else right
        number = left[0] + right[0]
        distance = right[1] - left[1]
        mean = left[1] + distance * right[0] / number
        return (number, mean, left[2] + right[2] + distance * distance * left[0] * right[0] / number)

    def result(self, state: State) -> Any:
        """Divide."""
        divisor = state[0] - self.sample
        return state[2] / divisor if divisor > 0 else None

    def result_type(self, value_type: ValueType) -> ValueType:
        """Return float."""
        return ValueType.FLOAT

    def worst_state_bytes(self, value_bytes: int) -> int:
        """Return the size of a number and two floats."""
        return 28


@dataclass(frozen=True, slots=True)
class StdDev(Variance):
    """The standard deviation, of the population unless ``sample=True``; of too few values for it, null."""

    def result(self, state: State) -> Any:
        """Take the root of the variance, which is no number where distances have left the doubles."""
        variance = Variance.result(self, state)
        return math.sqrt(variance) if variance is not None and variance >= 0 else None


@dataclass(frozen=True, slots=True)
class Min(Aggregation):
    """The smallest value; of nothing it is null."""

    accepts: ClassVar[frozenset[ValueType]] = ORDERED

    def zero(self) -> State:
        """Return null."""
        return None

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Keep the smaller."""
        return value if state is None or value < state else state

    def add_code(self, state: str, value: str, add: str) -> str:
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

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Keep the larger."""
        return value if state is None or value > state else state

    def add_code(self, state: str, value: str, add: str) -> str:
        """Keep the larger."""
        return f"known = {state}\nif known is None or {value} > known:\n    {state} = {value}"

    def merge(self, left: State, right: State) -> State:
        """Keep the larger."""
        if left is None or right is None:
            return right if left is None else left
        return max(left, right)
