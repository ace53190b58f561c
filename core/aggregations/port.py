"""What an aggregation is, and the types of values that it may take."""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from core.expressions import Expr, ValueType

State: TypeAlias = Any
SCALARS = frozenset((ValueType.INT, ValueType.FLOAT, ValueType.STR, ValueType.BOOL))
NUMBERS = frozenset((ValueType.INT, ValueType.FLOAT))
ORDERED = frozenset((ValueType.INT, ValueType.FLOAT, ValueType.STR))

SCALAR_BYTES = {ValueType.INT: 9, ValueType.FLOAT: 9, ValueType.BOOL: 1, ValueType.STR: 66}
"""A packed value at its largest; a text of 64 characters is taken for a long one."""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How values become a state and states a result.

    Attributes:
        value: What is aggregated, or None where the event itself is.
        accepts: Types that ``value`` may have.
        takes_null: Whether a null value is added or skipped.
    """

    value: Expr | None = None
    accepts: ClassVar[frozenset[ValueType]] = SCALARS
    takes_null: ClassVar[bool] = False

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
        return SCALAR_BYTES[value_type]

    @property
    def text(self) -> str:
        """What is computed, in one canonical form: part of the group's fingerprint and of a slot's identity."""
        return f"{type(self).__name__}({self.value.text if self.value is not None else ''})"
