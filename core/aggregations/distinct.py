"""Counting different values approximately, with the CPC sketch of Apache DataSketches.

Of the sketches there this one is the smallest for its error, and smaller still for few values, as most tiles have
(docs/decisions/0017-sketches-that-merge-exactly.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from datasketches import cpc_sketch, cpc_union

from core.aggregations.port import Aggregation, State
from core.values import ValueType


@dataclass(frozen=True, slots=True)
class ApproxDistinct(Aggregation):
    """How many different values, nearly, an int; of nothing it is 0.

    A state is bytes, or a sketch while values are added. Any order of adding and merging gives the same bytes.

    Attributes:
        precision: 8 to 14. The standard error is 0.69 / sqrt(2 ** precision): 2.2 % for 10, 1.1 % for 12; a state has
            at most 0.6 bytes * 2 ** precision. Some ten values are counted exactly, nearly always.
    """

    bounds: ClassVar[Mapping[str, tuple[int, int]]] = {"precision": (8, 14)}
    exactness: ClassVar[str] = "standard error 0.69 / sqrt(2 ** `precision`), 2.2 % by default"

    precision: int = 10

    def zero(self) -> State:
        """Return no bytes."""
        return b""

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Add one value."""
        sketch = self._sketch(state)
        # The library takes an empty text for no value at all.
        sketch.update(f"={value}" if type(value) is str else value)
        return sketch

    def merge(self, left: State, right: State) -> State:
        """Unite both in a new sketch."""
        return self.merge_all((left, right))

    def merge_all(self, states: Sequence[State]) -> State:
        """Unite all in a new sketch."""
        union = cpc_union(self.precision)
        for state in states:
            union.update(self._sketch(state))
        return union.get_result()

    def result(self, state: State) -> Any:
        """Return the estimate, rounded."""
        return round(self._plain(state).get_estimate())

    def pack(self, state: State) -> State:
        """Return the sketch's bytes, none for nothing."""
        if type(state) is bytes:
            return state
        return b"" if state.is_empty() else self._plain(state).serialize()

    def result_type(self, value_type: ValueType) -> ValueType:
        """Return int."""
        return ValueType.INT

    def worst_state_bytes(self, value_bytes: int) -> int:
        """Return a little more than the largest size that the library documents for each precision."""
        return 3 + 64 + 5 * (1 << self.precision) // 8

    def _sketch(self, state: State) -> Any:
        if type(state) is not bytes:
            return state
        return cpc_sketch.deserialize(state) if state else cpc_sketch(self.precision)

    def _plain(self, state: State) -> Any:
        """Return the sketch as a function of its values alone.

        A sketch that only ever was added to keeps a better estimate, which depends on the order of adding.
        """
        return self._sketch(state) if type(state) is bytes else self.merge_all((state,))
