"""On-demand features and sources: what they are made from, and what may come out. Pure.

Their functions run elsewhere (``serving.on_demand``), so that one that hangs, fails or eats memory costs its own
features alone; here is what must hold of what they are given and of what they return.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from core.entity import Entity
from core.keys import INT64_MAX, INT64_MIN
from core.values import TEXT_BYTES_MAX, Value, ValueType
from core.windows import milliseconds


@dataclass(frozen=True, slots=True)
class OnDemandFeature:
    """A value that is computed when it is asked for, from the request and from other features; it is never stored.

    Attributes:
        name: Name under which it is served.
        function: A function of a module, called once per key with the parameters below by their names.
        returns: Type of what it returns; it may also return None.
        features: By parameter, the feature that it is given: ``group:feature``, or ``source:value``.
        request: By parameter, the type of the request's column of that name.
        default: Served where the function returns None.
    """

    name: str
    function: Callable[..., Value] = field(kw_only=True)
    returns: ValueType = field(kw_only=True)
    features: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    request: Mapping[str, ValueType] = field(default_factory=dict, kw_only=True)
    default: Value = field(default=None, kw_only=True)
    unit: str = field(default="", kw_only=True)
    description: str = field(default="", kw_only=True)

    @property
    def text(self) -> str:
        """What is computed, as one would write it."""
        given = {**self.features, **{name: name for name in self.request}}
        return f"{self.function.__name__}({', '.join(f'{name}={what}' for name, what in given.items())})"


@dataclass(frozen=True, slots=True)
class OnDemandGroup:
    """On-demand features that are asked for by one group's name.

    Attributes:
        deadline: How long an answer waits for each of them.
    """

    name: str
    features: tuple[OnDemandFeature, ...] = field(kw_only=True)
    owner: str = field(kw_only=True)
    description: str = field(default="", kw_only=True)
    deadline: timedelta = field(default=milliseconds(50), kw_only=True)


@dataclass(frozen=True, slots=True)
class OnDemandSource:
    """Values that may not be stored or live elsewhere: fetched when they are asked for, served and forgotten.

    Attributes:
        name: They are asked for as ``name:value``, and may be given to on-demand features as such.
        entity: Whose values they are.
        fetch: An async function of a module, called once per answer with the entity's key columns by their names, each
            a list. It returns one item per key, in their order: a value by each name, or None where nothing is known.
        returns: By the name of a value, its type.
        deadline: How long an answer waits for it.
    """

    name: str
    entity: Entity = field(kw_only=True)
    fetch: Callable[..., Awaitable[Sequence[Mapping[str, Value] | None]]] = field(kw_only=True)
    returns: Mapping[str, ValueType] = field(kw_only=True)
    owner: str = field(kw_only=True)
    description: str = field(default="", kw_only=True)
    deadline: timedelta = field(default=milliseconds(50), kw_only=True)


def fits(value: Any, kind: ValueType) -> bool:
    """Whether a value may stand in a column of a type.

    >>> fits(3, ValueType.FLOAT), fits(None, ValueType.INT), fits(True, ValueType.INT), fits(1e999, ValueType.FLOAT)
    (True, True, False, False)
    """
    if value is None:
        return True
    if type(value) is int:
        return kind in (ValueType.INT, ValueType.FLOAT) and INT64_MIN <= value <= INT64_MAX
    if type(value) is float:
        return kind is ValueType.FLOAT and math.isfinite(value)
    if type(value) is str:
        return kind is ValueType.STR and _is_text(value)
    return type(value) is bool and kind is ValueType.BOOL


def _is_text(value: str) -> bool:
    """Whether a text has bytes, and not too many: half of a surrogate pair, which JSON may hold, has none."""
    try:
        return len(value.encode()) <= TEXT_BYTES_MAX
    except UnicodeEncodeError:
        return False
