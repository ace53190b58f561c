"""Expressions: small typed trees over an event's fields, as data.

Data, not lambdas: a tree can be checked against the source's model before anything runs, printed in the catalogue,
hashed into the group's version, and written out: as Python for the stream, and for other targets where it must mean
the same. Meaning (SEMANTICS: Values): null in, null out; a null condition is false; x/0 and NaN are null; integers
have 64 bits and leaving them is an ``EventError``.

To add an operator: its sign, and if it compares that in ``COMPARISONS`` of ``core.values`` too, or one class here.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeAlias

from core.code import Code
from core.errors import DefinitionError
from core.keys import INT64_MAX, INT64_MIN
from core.values import COMPARISONS, Value, ValueType, bounded, finite, type_of

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

    def write(self, out: "Writer") -> str:
        """Write the statements that compute the value, and return a name for it; ``type_in`` has been asked before."""
        raise NotImplementedError

    def compile(self, columns: Mapping[str, ValueType]) -> Evaluate:
        """Return a function from an event's fields to the value."""
        return Writer.function(self, columns)

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


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes expressions into a function that has an event's ``fields``; what several of them need is computed once.

    Attributes:
        columns: Types of the fields.
        attributes: Names of the attributes that the fields are, or None where they are a mapping.
    """

    code: Code
    columns: Mapping[str, ValueType]
    attributes: Mapping[str, str] | None = None
    _written: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    @classmethod
    def function(
        cls, expression: Expr, columns: Mapping[str, ValueType], attributes: Mapping[str, str] | None = None
    ) -> Evaluate:
        """Return a function for one expression alone."""
        code = Code("def evaluate(fields):")
        code.add(f"return {cls(code, columns, attributes).value(expression)}")
        return code.compile()

    def value(self, expression: Expr) -> str:
        """Return a name for the value of an expression, which is computed by now."""
        written = self._written.get(expression.text)
        if written is None:
            written = self._written[expression.text] = expression.write(self)
        return written

    def new(self, text: str) -> str:
        """Assign an expression in Python to a name of its own, and return that."""
        name = f"v{next(self._numbers)}"
        self.code.add(f"{name} = {text}")
        return name

    def field(self, name: str) -> str:
        """Return how a field is read."""
        if self.attributes is None:
            return f"fields[{self.code.name('field', name)}]"
        return f"fields.{self.attributes[name]}"

    def branch(self, expression: Expr | None) -> str:
        """Return how an expression is computed that must not be unless its value is taken; nothing is null."""
        if expression is None:
            return "None"
        return f"{self.code.name('branch', self.function(expression, self.columns, self.attributes))}(fields)"

    def are_known(self, *operands: tuple[Expr, str]) -> str:
        """Return the condition that no operand is null; a constant never is."""
        unknown = [f"{name} is not None" for expression, name in operands if not isinstance(expression, Literal)]
        return " and ".join(unknown) or "True"


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

    def write(self, out: Writer) -> str:
        """Read the field; an integer beyond 64 bits and a float that is no number never get past here.

        Nor does an integer that is the default of a float field, which pydantic takes as it is: 1 and 1.0 have other
        bytes, so a sketch would count them as two values.
        """
        value = out.new(out.field(self.name))
        if out.columns[self.name] is ValueType.INT:
            _write_bounded(out, value, self.name)
        elif out.columns[self.name] is ValueType.FLOAT:
            out.code.add(f"if {value} is not None:\n    {value} = {out.code.name('finite', finite)}(float({value}))")
        return value

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

    def write(self, out: Writer) -> str:
        """Name the constant."""
        return out.code.name("constant", self.value)

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

    def write(self, out: Writer) -> str:
        """Compute as 64-bit integers or as doubles, chosen by the types."""
        operands = [(side, out.value(side)) for side in (self.left, self.right)]
        types = [side.type_in(out.columns) for side in (self.left, self.right)]
        left, right = (name for _, name in operands)
        if types[0] is not types[1] or (self.sign == "/" and types[0] is ValueType.INT):
            left, right = (_as_float(out, *operand, kind) for operand, kind in zip(operands, types, strict=True))
        guard = f"{out.are_known(*operands)}{f' and {right}' if self.sign == '/' else ''}"
        value = out.new(f"{left} {self.sign} {right} if {guard} else None")
        if self.sign not in COMPARISONS:
            if self.type_in(out.columns) is ValueType.INT:
                _write_bounded(out, value, self.text)
            else:
                is_finite = out.code.name("isfinite", math.isfinite)
                out.code.add(f"if {value} is not None and not {is_finite}({value}):\n    {value} = None")
        return value

    def columns(self) -> frozenset[str]:
        """Return what both operands read."""
        return self.left.columns() | self.right.columns()


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

    def write(self, out: Writer) -> str:
        """Evaluate both sides, so that an overflow does not depend on their order; one side may decide alone."""
        left, right, decisive = out.value(self.left), out.value(self.right), self.sign == "|"
        undecided = f"None if {left} is None or {right} is None else {not decisive}"
        return out.new(f"{decisive} if {left} is {decisive} or {right} is {decisive} else {undecided}")

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

    def write(self, out: Writer) -> str:
        """Turn the condition round."""
        condition = out.value(self.condition)
        return out.new(f"None if {condition} is None else not {condition}")

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

    def write(self, out: Writer) -> str:
        """Look the value up in a set."""
        value, choices = out.value(self.value), out.code.name("choices", frozenset(self.choices))
        return out.new(f"None if {value} is None else {value} in {choices}")

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

    def write(self, out: Writer) -> str:
        """Ask for None."""
        return out.new(f"{out.value(self.value)} is None")

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


def _write_bounded(out: Writer, value: str, what: str) -> None:
    """Refuse an integer that does not fit in 64 bits; ``what`` says whose it is."""
    is_out = f"{value} is not None and not {INT64_MIN} <= {value} <= {INT64_MAX}"
    out.code.add(f"if {is_out}:\n    {out.code.name('bounded', bounded)}({value}, {out.code.name('what', what)})")


def _as_float(out: Writer, expression: Expr, value: str, kind: ValueType) -> str:
    """Return a number as a double: as one it is compared, and as one it is divided."""
    if kind is ValueType.FLOAT:
        return value
    if isinstance(expression, Literal):
        return out.code.name("constant", float(expression.value or 0))
    return out.new(f"None if {value} is None else float({value})")
