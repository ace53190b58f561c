"""What a source's pydantic model means to expressions and keys: its columns and their types."""

from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo

from core.values import ValueType

_CHARACTER_BYTES = 4
_PLAIN = {bool: ValueType.BOOL, int: ValueType.INT, float: ValueType.FLOAT, str: ValueType.STR}


def columns_of(model: type[BaseModel]) -> dict[str, ValueType]:
    """Return the fields of a model that expressions can read, with their types.

    A field of another type (a nested model, a datetime) is left out: it may exist, but no expression can name it.

    >>> class Click(BaseModel):
    ...     user_id: int
    ...     kind: Literal["a", "b"] | None = None
    ...     items: list[int] = []
    >>> {name: kind.value for name, kind in columns_of(Click).items()}
    {'user_id': 'int', 'kind': 'str', 'items': 'list'}
    """
    found = {name: value_type_of(info.annotation) for name, info in model.model_fields.items()}
    return {name: kind for name, kind in found.items() if kind is not None}


def value_type_of(annotation: Any) -> ValueType | None:
    """Return the type that values of an annotation have, or None if it is none that expressions know."""
    annotation = _bare(annotation)
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        kinds = {value_type_of(argument) for argument in get_args(annotation) if argument is not NoneType}
        return kinds.pop() if len(kinds) == 1 else None
    if origin is Literal:
        kinds = {value_type_of(type(argument)) for argument in get_args(annotation) if argument is not None}
        return kinds.pop() if len(kinds) == 1 else None
    if origin in (list, tuple, set, frozenset):
        return ValueType.LIST
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        kinds = {value_type_of(type(member.value)) for member in annotation}
        return kinds.pop() if len(kinds) == 1 else None
    return _PLAIN.get(annotation)


def choices_of(model: type[BaseModel], field: str) -> tuple[Any, ...] | None:
    """Return the values that a field of a ``Literal`` or ``Enum`` type can have, or None if it may have any.

    >>> class Click(BaseModel):
    ...     kind: Literal["a", "b"] | None = None
    ...     user_id: int
    >>> choices_of(Click, "kind"), choices_of(Click, "user_id")
    (('a', 'b'), None)
    """
    return _choices(model.model_fields[field].annotation)


def _choices(annotation: Any) -> tuple[Any, ...] | None:
    annotation = _bare(annotation)
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        parts = [_choices(argument) for argument in get_args(annotation) if argument is not NoneType]
        known = [part for part in parts if part is not None]
        return tuple(choice for part in known for choice in part) if len(known) == len(parts) else None
    if origin is Literal:
        return tuple(choice for choice in get_args(annotation) if choice is not None)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return tuple(member.value for member in annotation)
    return None


def text_bytes_max(model: type[BaseModel], field: str) -> int | None:
    """Return how many bytes a text of a field has at the most, or None if the model does not say.

    A ``max_length`` counts characters, of up to four bytes each.

    >>> from pydantic import Field
    >>> class Click(BaseModel):
    ...     kind: Literal["a", "été"]
    ...     page: Annotated[str, Field(max_length=10)] | None = None
    ...     note: str
    >>> [text_bytes_max(Click, name) for name in ("kind", "page", "note")]
    [5, 40, None]
    """
    info = model.model_fields[field]
    return _text_bytes(info.annotation, info.metadata)


def _text_bytes(annotation: Any, constraints: Iterable[Any]) -> int | None:
    bounds: list[int | None] = [_CHARACTER_BYTES * length for item in constraints for length in _lengths(item)]
    if get_origin(annotation) is Annotated:
        bounds.append(_text_bytes(get_args(annotation)[0], get_args(annotation)[1:]))
    elif get_origin(annotation) in (Union, UnionType):
        parts = [_text_bytes(argument, ()) for argument in get_args(annotation) if argument is not NoneType]
        known = [part for part in parts if part is not None]
        bounds.append(max(known) if len(known) == len(parts) else None)
    elif choices := _choices(annotation):
        bounds.append(max(len(str(choice).encode()) for choice in choices))
    return min((bound for bound in bounds if bound is not None), default=None)


def _lengths(constraint: Any) -> list[int]:
    """Return what a constraint says of a text's length: pydantic and annotated-types have several that do."""
    inner = constraint.metadata if isinstance(constraint, FieldInfo) else [constraint]
    lengths = [getattr(item, "max_length", None) for item in inner]
    return [length for length in lengths if isinstance(length, int)]


def list_item_type(model: type[BaseModel], field: str) -> ValueType | None:
    """Return the type of the items of a list field, or None if it is none that keys know."""
    annotation = model.model_fields[field].annotation
    arguments = [_bare(argument) for argument in get_args(annotation) if argument is not NoneType]
    if arguments and get_origin(arguments[0]) in (list, tuple, set, frozenset):
        arguments = list(get_args(arguments[0]))
    return value_type_of(arguments[0]) if arguments else None


def is_event_time(annotation: Any) -> bool:
    """Whether a field can tell an event's time: an int in milliseconds or a datetime."""
    if annotation is int or annotation is AwareDatetime:
        return True
    return isinstance(annotation, type) and issubclass(annotation, datetime)


def _bare(annotation: Any) -> Any:
    """Return an annotation without its constraints, which pydantic strips from the outermost one only."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
