"""A choice between two values, ``when(...).then(...).otherwise(...)``: an expression that is written in steps."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.errors import DefinitionError
from core.expressions import Expr, Operand, Writer, as_expr
from core.values import ValueType


def when(condition: Expr) -> "When":
    """Begin ``when(condition).then(value).otherwise(value)``; a null condition takes ``otherwise``."""
    return When(as_expr(condition))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class When(Expr):
    """A choice between two values; without ``otherwise`` the other value is null."""

    condition: Expr
    value: Expr | None = None
    other: Expr | None = None

    def then(self, value: Operand) -> "When":
        """Give the value where the condition holds."""
        return When(self.condition, as_expr(value), self.other)

    def otherwise(self, value: Operand) -> "When":
        """Give the value where the condition is false or null."""
        return When(self.condition, self.value, as_expr(value))

    @property
    def text(self) -> str:
        """The whole choice."""
        other = f".otherwise({self.other.text})" if self.other is not None else ""
        return f"when({self.condition.text}).then({self.value.text if self.value is not None else ''}){other}"

    def type_in(self, columns: Mapping[str, ValueType]) -> ValueType:
        """Return the common type of both values."""
        if self.value is None:
            raise DefinitionError(f"{self.text} lacks its then(value)")
        if self.condition.type_in(columns) is not ValueType.BOOL:
            raise DefinitionError(f"{self.condition.text} is no condition in {self.text}")
        own = self.value.type_in(columns)
        if self.other is None or (other := self.other.type_in(columns)) is own:
            return own
        if own.is_number and other.is_number:
            return ValueType.FLOAT
        raise DefinitionError(f"{self.text} is either {own.value} or {other.value}; both must have one type")

    def write(self, out: Writer) -> str:
        """Compute the branch that is taken alone."""
        value, other = out.branch(self.value), out.branch(self.other)
        chosen = out.new(f"{value} if {out.value(self.condition)} else {other}")
        if self.type_in(out.columns) is ValueType.FLOAT:
            out.code.add(f"if {chosen} is not None:\n    {chosen} = float({chosen})")
        return chosen

    def columns(self) -> frozenset[str]:
        """Return what all parts read."""
        return self.condition.columns().union(
            *(part.columns() for part in (self.value, self.other) if part is not None)
        )
