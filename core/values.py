"""Values: the types that fields and features have, and what arithmetic and comparisons do to them.

Integers have 64 bits, a division by zero and everything that is not finite is null (SEMANTICS: Values).
"""

import math
from enum import Enum
from typing import TypeAlias

from core.errors import DefinitionError, EventError
from core.keys import INT64_MAX, INT64_MIN

TEXT_BYTES_MAX = 1024
"""Limit of a text that is aggregated, as of a key: without one a single event could make a row that no topic takes."""

Value: TypeAlias = int | float | str | bool | None


class ValueType(Enum):
    """Type of a column or an expression; each may also be null."""

    INT = "int"
    FLOAT = "float"
    STR = "str"
    BOOL = "bool"
    LIST = "list"

    @property
    def is_number(self) -> bool:
        """Whether arithmetic works on it."""
        return self in (ValueType.INT, ValueType.FLOAT)


def type_of(value: Value) -> ValueType:
    """Return the type of a constant.

    Raises:
        DefinitionError: It has none that expressions know, or is out of bounds.
    """
    for kind, value_type in (
        (bool, ValueType.BOOL),
        (int, ValueType.INT),
        (float, ValueType.FLOAT),
        (str, ValueType.STR),
    ):
        if isinstance(value, kind):
            if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
                raise DefinitionError("an integer constant must fit in 64 bits")
            if isinstance(value, float) and not math.isfinite(value):
                raise DefinitionError(f"the constant {value} is no finite number")
            return value_type
    raise DefinitionError(f"{value!r} is no constant of a type that expressions know")


def bounded(value: int | None, what: str) -> int | None:
    """Return an integer that fits in 64 bits.

    Raises:
        EventError: It does not; ``what`` says whose it is.
    """
    if value is None or INT64_MIN <= value <= INT64_MAX:
        return value
    raise EventError("overflow", f"{what[:200]} leaves 64 bits")


def finite(value: float | None) -> float | None:
    """Return a number, or null for infinity and NaN."""
    return value if value is not None and math.isfinite(value) else None


COMPARISONS = frozenset(("==", "!=", "<", "<=", ">", ">="))
