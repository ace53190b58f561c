"""What an aggregation is, and the types of values that it may take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any, ClassVar, TypeAlias

from core.expressions import Expr
from core.problems import Problem, check_flag, check_whole_number
from core.values import ValueType

State: TypeAlias = Any
SCALARS = frozenset((ValueType.INT, ValueType.FLOAT, ValueType.STR, ValueType.BOOL))
NUMBERS = frozenset((ValueType.INT, ValueType.FLOAT))
ORDERED = frozenset((ValueType.INT, ValueType.FLOAT, ValueType.STR))

NUMBER_BYTES = 9
"""A packed number at its largest."""

COUNT_BYTES = 5
"""A packed number of events in a tile, up to four thousand million."""


_BESIDE = {"add": ("add_code",), "merge": ("merge_code", "merge_all", "add_code"), "result": ("never_null",)}
"""What is only true of a class's own method, and not of one that a subclass has in its place.

An ``add`` may be made of ``merge``, so what is written for it goes with either.
"""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How values become a state and states a result.

    Attributes:
        value: What is aggregated, or None where the event itself is.
        accepts: Types that ``value`` may have.
        takes_null: Whether a null value is added or skipped.
        never_null: Whether the result is a number in every state, so that nobody need look.
        bounds: Per setting that is a whole number its least and its largest value.
        exactness: How near the result is to that of all events at once, in words for the reference.
    """

    value: Expr | None = None
    accepts: ClassVar[frozenset[ValueType]] = SCALARS
    takes_null: ClassVar[bool] = False
    never_null: ClassVar[bool] = False
    bounds: ClassVar[Mapping[str, tuple[int, int]]] = {}
    exactness: ClassVar[str] = "exact"

    def __init_subclass__(cls) -> None:
        """Take back what the parent says beside a method that is replaced: a subclass need not know of it."""
        own = vars(cls)
        for name in (name for method, names in _BESIDE.items() if method in own for name in names if name not in own):
            setattr(cls, name, getattr(Aggregation, name))

    def zero(self) -> State:
        """Return the state of nothing."""
        raise NotImplementedError

    def add(self, state: State, value: Any, time_ms: int, event_id: str) -> State:
        """Return the state with one more value; the old state is not used again."""
        raise NotImplementedError

    def merge(self, left: State, right: State) -> State:
        """Return the state of both; neither is changed."""
        raise NotImplementedError

    def merge_all(self, states: Sequence[State]) -> State:
        """Return the state of all, at least one; for states whose copies cost more than their sums, in one go."""
        return reduce(self.merge, states)

    def result(self, state: State) -> Any:
        """Return the feature's value."""
        return state

    def pack(self, state: State) -> State:
        """Return the state as msgpack carries it.

        A packed state is a state like any other: ``add``, ``merge`` and ``result`` take it too. So only what changes
        need be unpacked, and only where a row is written need anyone know that there is a difference.
        """
        return state

    def items(self, state: State) -> int | None:
        """Return how many values a state lists or counts one by one, for people, or None if it does not."""
        return None

    def result_type(self, value_type: ValueType) -> ValueType:
        """Return the type of the result for values of a type."""
        return value_type

    def worst_state_bytes(self, value_bytes: int) -> int:
        """Return an upper estimate of a packed state's size, for the check of the worst row.

        Args:
            value_bytes: Largest size of a packed value.
        """
        return value_bytes

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

    def problems(self, where: str) -> list[Problem]:
        """Report settings that cannot be.

        Args:
            where: Place of the feature.
        """
        kind = type(self).__name__
        # A module that postpones its annotations has their texts.
        flags = [item.name for item in fields(self) if item.type in (bool, "bool")]
        return [
            problem
            for name, (least, most) in self.bounds.items()
            for problem in check_whole_number(where, f"{name} of {kind}", getattr(self, name), least=least, most=most)
        ] + [problem for name in flags for problem in check_flag(where, f"{name} of {kind}", getattr(self, name))]

    @property
    def text(self) -> str:
        """What is computed, in one canonical form: part of the group's fingerprint and of a slot's identity."""
        value = [self.value.text] if self.value is not None else []
        chosen = [f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if item.name != "value"]
        return f"{type(self).__name__}({', '.join(value + chosen)})"
