"""Checking constants: a field that has few values is compared with one of them, or never equal. Pure."""

from collections.abc import Iterator

from pydantic import BaseModel

from core.choice import When
from core.expressions import Binary, Column, Expr, IsIn, IsNull, Literal, Logic, Not
from core.models import choices_of
from core.problems import Problem, suggestion
from core.values import Value


def check_constants(where: str, expression: Expr, model: type[BaseModel]) -> list[Problem]:
    """Report constants that a field of a ``Literal`` or ``Enum`` type is compared with and never has.

    The expression has passed the check of its types.
    """
    choices = {name: choices_of(model, name) for name in expression.columns()}
    return [
        Problem(
            where,
            f"{model.__name__}.{name} is never {constant!r}",
            remedy=suggestion(str(constant), map(str, choices[name] or ())),
        )
        for name, constant in _compared(expression)
        if choices[name] is not None and constant not in (choices[name] or ())
    ]


def _compared(expression: Expr | None) -> Iterator[tuple[str, Value]]:
    """Yield the fields that are compared with constants, and the constants."""
    match expression:
        case Binary(sign="==" | "!=", left=Column(name), right=Literal(constant)):
            yield name, constant
        case Binary(sign="==" | "!=", left=Literal(constant), right=Column(name)):
            yield name, constant
        case IsIn(value=Column(name), choices=constants):
            yield from ((name, constant) for constant in constants)
        case Binary(left=left, right=right) | Logic(left=left, right=right):
            yield from _compared(left)
            yield from _compared(right)
        case Not(condition=inner) | IsNull(value=inner) | IsIn(value=inner):
            yield from _compared(inner)
        case When(condition=condition, value=value, other=other):
            for part in (condition, value, other):
                yield from _compared(part)
