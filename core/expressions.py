"""Expressions: small typed trees over an event's fields, as data.

Data, not lambdas: a tree can be checked against the source's model before anything runs, printed in the catalogue,
hashed into the group's version, and compiled: to a closure for the stream, and to other targets where it must mean
the same. Meaning (SEMANTICS: Values): null in, null out; a null condition is false; x/0 and NaN are null; integers
have 64 bits and leaving them is an ``EventError``.

To add an operator: one entry in ``ARITHMETIC`` or ``COMPARISONS`` of ``core.values``, or one class here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from core.errors import DefinitionError
from core.values import ARITHMETIC, COMPARISONS, Value, ValueType, bounded, finite, type_of

Fields: TypeAlias = Mapping[str, Any]
Evaluate: TypeAlias = Callable[[Fields], Any]


class Expr:
    """An expression. Two expressions mean the same if their ``text`` is the same.

    Comparison operators build expressions, so use ``text`` to compare trees.
    """

    __slots__ = ()

    @property
    def text(self) -> str:
        """The expression as one would write it, in one canonical form."""
        raise NotImplementedError

    def type_in(self, columns: Mapping[str, ValueType]) -> ValueType:
        """Return the type of the expression.

        Raises:
            DefinitionError: A column is unknown or an operator does not fit its operands.
        """
        raise NotImplementedError

    def compile(self, columns: Mapping[str, ValueType]) -> Evaluate:
        """Return a function from an event's fields to the value; ``type_in`` has been asked before."""
        raise NotImplementedError

    def columns(self) -> frozenset[str]:
        """Return the names of the fields that the expression reads."""
        raise NotImplementedError

    def is_in(self, *values: Value) -> "Expr":
        """Whether the value is one of these; null for null."""
        return IsIn(self, values)

    def is_null(self) -> "Expr":
        """Whether the value is null; never null itself."""
        return IsNull(self)

    def __add__(self, other: "Operand") -> "Expr":
        return Binary("+", self, as_expr(other))

    def __radd__(self, other: "Operand") -> "Expr":
        return Binary("+", as_expr(other), self)

    def __sub__(self, other: "Operand") -> "Expr":
        return Binary("-", self, as_expr(other))

    def __rsub__(self, other: "Operand") -> "Expr":
        return Binary("-", as_expr(other), self)

    def __mul__(self, other: "Operand") -> "Expr":
        return Binary("*", self, as_expr(other))

    def __rmul__(self, other: "Operand") -> "Expr":
        return Binary("*", as_expr(other), self)

    def __truediv__(self, other: "Operand") -> "Expr":
        return Binary("/", self, as_expr(other))

    def __rtruediv__(self, other: "Operand") -> "Expr":
        return Binary("/", as_expr(other), self)

    def __eq__(self, other: "Operand") -> "Expr":  # type: ignore[override]  # builds a tree, as in polars
        return Binary("==", self, as_expr(other))

    def __ne__(self, other: "Operand") -> "Expr":  # type: ignore[override]  # builds a tree, as in polars
        return Binary("!=", self, as_expr(other))

    def __lt__(self, other: "Operand") -> "Expr":
        return Binary("<", self, as_expr(other))

    def __le__(self, other: "Operand") -> "Expr":
        return Binary("<=", self, as_expr(other))

    def __gt__(self, other: "Operand") -> "Expr":
        return Binary(">", self, as_expr(other))

    def __ge__(self, other: "Operand") -> "Expr":
        return Binary(">=", self, as_expr(other))

    def __and__(self, other: "Operand") -> "Expr":
        return Logic("&", self, as_expr(other))

    def __or__(self, other: "Operand") -> "Expr":
        return Logic("|", self, as_expr(other))

    def __invert__(self) -> "Expr":
        return Not(self)

    def __hash__(self) -> int:
        return hash(self.text)

    def __bool__(self) -> bool:
        raise DefinitionError(
            f"{self.text} has no truth of its own: combine conditions with &, | and ~, not and, or, not"
        )

    def __repr__(self) -> str:
        return self.text


Operand: TypeAlias = Expr | int | float | str | bool


def col(name: str) -> Expr:
    """Return the value of an event's field.

    >>> (col("watch_ms") / 1000).text
    '(watch_ms / 1000)'
    """
    return Column(name)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Column(Expr):
    """A field of the event."""

    name: str

    @property
    def text(self) -> str:
        """The field's name."""
        return self.name

    def type_in(self, columns: Mapping[str, ValueType]) -> ValueType:
        """Look the column up."""
        if self.name not in columns:
            raise DefinitionError(f"unknown field {self.name!r}; there are {', '.join(sorted(columns))}")
        return columns[self.name]

    def compile(self, columns: Mapping[str, ValueType]) -> Evaluate:
        """Read the field; an integer beyond 64 bits and a float that is no number never get past here.

        Nor does an integer that is the default of a float field, which pydantic takes as it is: 1 and 1.0 have other
        bytes, so a sketch would count them as two values.
        """
        name = self.name
        if columns[name] is ValueType.INT:
            return lambda fields: bounded(fields[name], name)
        if columns[name] is ValueType.FLOAT:
            return lambda fields: None if (value := fields[name]) is None else finite(float(value))
        return lambda fields: fields[name]

    def columns(self) -> frozenset[str]:
        """Return the field."""
        return frozenset((self.name,))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Literal(Expr):
    """A constant."""

    value: Value

    @property
    def text(self) -> str:
        """The constant as Python writes it."""
        return repr(self.value)

    def type_in(self, columns: Mapping[str, ValueType]) -> ValueType:
        """Return the constant's type."""
        return type_of(self.value)

    def compile(self, columns: Mapping[str, ValueType]) -> Evaluate:
        """Return the constant."""
        value = self.value
        return lambda _fields: value

    def columns(self) -> frozenset[str]:
        """Return nothing."""
        return frozenset()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Binary(Expr):
    """Arithmetic or a comparison of two operands."""

    sign: str
    left: Expr
    right: Expr

    @property
    def text(self) -> str:
        """Both operands in brackets."""
        return f"({self.left.text} {self.sign} {self.right.text})"

    def type_in(self, columns: Mapping[str, ValueType]) -> ValueType:
        """Return the result's type: a comparison is a bool, a division a float."""
        left, right = self.left.type_in(columns), self.right.type_in(columns)
        numbers = left.is_number and right.is_number
        if self.sign in COMPARISONS:
            if numbers or (left is right and left is not ValueType.LIST):
                return ValueType.BOOL
            raise DefinitionError(f"cannot compare {left.value} with {right.value} in {self.text}")
        if not numbers:
            raise DefinitionError(
                f"cannot compute {self.text}: {left.value} {self.sign} {right.value}; numbers are needed"
            )
        if self.sign == "/" or ValueType.FLOAT in (left, right):
            return ValueType.FLOAT
        return ValueType.INT

    def compile(self, columns: Mapping[str, ValueType]) -> Evaluate:
        """Compute as 64-bit integers or as doubles, chosen by the types."""
        left, right = self.left.compile(columns), self.right.compile(columns)
        as_float = self.sign == "/" or self.left.type_in(columns) is not self.right.type_in(columns)
        apply = (COMPARISONS | ARITHMETIC)[self.sign]
        check = self._check(columns)

        def evaluate(fields: Fields) -> Any:
            a, b = left(fields), right(fields)
            if a is None or b is None:
                return None
            if as_float:
                a, b = float(a), float(b)
            return check(apply(a, b))

        return evaluate

    def columns(self) -> frozenset[str]:
        """Return what both operands read."""
        return self.left.columns() | self.right.columns()

    def _check(self, columns: Mapping[str, ValueType]) -> Callable[[Any], Any]:
        if self.sign in COMPARISONS:
            return lambda value: value
        if self.type_in(columns) is ValueType.INT:
            text = self.text
            return lambda value: bounded(value, text)
        return finite


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Logic(Expr):
    """``&`` or ``|`` of two conditions, with null as "unknown" (Kleene), as in SQL and polars."""

    sign: str
    left: Expr
    right: Expr

    @property
    def text(self) -> str:
        """Both conditions in brackets."""
        return f"({self.left.text} {self.sign} {self.right.text})"

    def type_in(self, columns: Mapping[str, ValueType]) -> ValueType:
        """Return bool; both sides must be conditions."""
        for side in (self.left, self.right):
            if side.type_in(columns) is not ValueType.BOOL:
                raise DefinitionError(f"{side.text} is no condition in {self.text}")
        return ValueType.BOOL

    def compile(self, columns: Mapping[str, ValueType]) -> Evaluate:
        """Evaluate both sides, so that an overflow does not depend on their order; one side may decide alone."""
        left, right, decisive = self.left.compile(columns), self.right.compile(columns), self.sign == "|"

        def evaluate(fields: Fields) -> Any:
            a, b = left(fields), right(fields)
            if a is decisive or b is decisive:
                return decisive
            return None if a is None or b is None else not decisive

        return evaluate

    def columns(self) -> frozenset[str]:
        """Return what both sides read."""
        return self.left.columns() | self.right.columns()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Not(Expr):
    """The opposite of a condition; null stays null."""

    condition: Expr

    @property
    def text(self) -> str:
        """The condition with a tilde, in brackets: without them it reads as the opposite of what follows."""
        return f"(~{self.condition.text})"

    def type_in(self, columns: Mapping[str, ValueType]) -> ValueType:
        """Return bool."""
        if self.condition.type_in(columns) is not ValueType.BOOL:
            raise DefinitionError(f"{self.condition.text} is no condition in {self.text}")
        return ValueType.BOOL

    def compile(self, columns: Mapping[str, ValueType]) -> Evaluate:
        """Turn the condition round."""
        condition = self.condition.compile(columns)

        def evaluate(fields: Fields) -> Any:
            value = condition(fields)
            return None if value is None else not value

        return evaluate

    def columns(self) -> frozenset[str]:
        """Return what the condition reads."""
        return self.condition.columns()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class IsIn(Expr):
    """Whether a value is one of a few constants."""

    value: Expr
    choices: tuple[Value, ...]

    @property
    def text(self) -> str:
        """The value and its choices, in the order given."""
        return f"{self.value.text}.is_in({', '.join(repr(choice) for choice in self.choices)})"

    def type_in(self, columns: Mapping[str, ValueType]) -> ValueType:
        """Return bool; there are choices, and they have the value's type."""
        own = self.value.type_in(columns)
        if not self.choices:
            raise DefinitionError(f"{self.text} has nothing to choose from; give at least one value")
        for choice in self.choices:
            if type_of(choice) is not own:
                raise DefinitionError(f"{choice!r} is no {own.value} in {self.text}")
        return ValueType.BOOL

    def compile(self, columns: Mapping[str, ValueType]) -> Evaluate:
        """Look the value up in a set."""
        value, choices = self.value.compile(columns), frozenset(self.choices)

        def evaluate(fields: Fields) -> Any:
            found = value(fields)
            return None if found is None else found in choices

        return evaluate

    def columns(self) -> frozenset[str]:
        """Return what the value reads."""
        return self.value.columns()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class IsNull(Expr):
    """Whether a value is null."""

    value: Expr

    @property
    def text(self) -> str:
        """The value and the question."""
        return f"{self.value.text}.is_null()"

    def type_in(self, columns: Mapping[str, ValueType]) -> ValueType:
        """Return bool."""
        self.value.type_in(columns)
        return ValueType.BOOL

    def compile(self, columns: Mapping[str, ValueType]) -> Evaluate:
        """Ask for None."""
        value = self.value.compile(columns)
        return lambda fields: value(fields) is None

    def columns(self) -> frozenset[str]:
        """Return what the value reads."""
        return self.value.columns()


@dataclass(frozen=True, slots=True)
class Explode:
    """In a source's ``keys``: the event touches every distinct item of a list."""

    column: str


def explode(column: Expr) -> Explode:
    """Make one event touch every distinct item of a list field: an impression of ten videos is one event.

    Raises:
        DefinitionError: The expression is not a plain field.
    """
    if not isinstance(column, Column):
        raise DefinitionError(f"explode takes a field, not {column!r}")
    return Explode(column.name)


def as_expr(operand: Operand | None) -> Expr:
    """Return an operand as an expression: a constant becomes a literal."""
    return operand if isinstance(operand, Expr) else Literal(operand)
