"""How long the texts of an expression can be: what the model declares of the fields that they come from. Pure."""

from collections.abc import Iterator

from pydantic import BaseModel

from core.choice import When
from core.expressions import Column, Expr, Literal
from core.models import text_bytes_max


def longest_text(expression: Expr, model: type[BaseModel], *, undeclared_bytes: int) -> int:
    """Return how many bytes a text of an expression has at the most.

    Args:
        expression: One whose values are texts.
        model: The source's.
        undeclared_bytes: What is taken for a field of which the model declares nothing.
    """
    sizes = [len(str(part.value).encode()) for part in _texts(expression) if isinstance(part, Literal)]
    for part in _texts(expression):
        if isinstance(part, Column):
            declared = text_bytes_max(model, part.name)
            sizes.append(undeclared_bytes if declared is None else declared)
    return max(sizes, default=undeclared_bytes)


def undeclared_fields(expression: Expr, model: type[BaseModel]) -> list[str]:
    """Return the fields that texts of an expression come from and of whose length the model says nothing."""
    names = {part.name for part in _texts(expression) if isinstance(part, Column)}
    return sorted(name for name in names if text_bytes_max(model, name) is None)


def _texts(expression: Expr | None) -> Iterator[Column | Literal]:
    """Yield what may become the expression's value: nothing but a choice chooses, and nothing makes a text longer."""
    match expression:
        case Column() | Literal():
            yield expression
        case When(value=value, other=other):
            yield from _texts(value)
            yield from _texts(other)
