"""A canary: an event that nobody has caused, and which groups can tell that it came. Pure."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from core.definitions import Aggregate, FeatureGroup, OneOf, Source
from core.expressions import Expr, Fields
from core.models import columns_of
from core.values import ValueType
from core.windows import seconds

_EVERY_MAX = seconds(1)

_INT_BITS = 66
"""Of 128, so that what is left is an integer of 64 bits with a sign."""


def canary_event(source: Source, *, now_ms: int, identity: UUID, pick: Callable[[Sequence[Any]], Any]) -> bytes:
    """Return the JSON of a source's canary.

    Args:
        source: One that has a canary.
        now_ms: When it happens, milliseconds since the epoch.
        identity: Its own, if the source has any.
        pick: Chooses a value where there are several.
    """
    told = (source.canary or {}).items()
    fields = {name: pick(value.values) if isinstance(value, OneOf) else value for name, value in told}
    columns = columns_of(source.model)
    is_number = columns.get(source.event_time) is ValueType.INT
    fields[source.event_time] = now_ms if is_number else datetime.fromtimestamp(now_ms / 1000, UTC).isoformat()
    if source.event_id is not None:
        is_number = columns.get(source.event_id) is ValueType.INT
        fields[source.event_id] = identity.int >> _INT_BITS if is_number else f"canary-{identity}"
    return json.dumps(fields).encode()


def watches(group: FeatureGroup, source: Source, event: bytes) -> bool:
    """Whether a group's row tells soon that a source's canary came: one of its features takes it."""
    mine = [feature for feature in group.features if isinstance(feature, Aggregate)]
    mine = [feature for feature in mine if feature.source.topic == source.topic]
    return tells_soon(group) and any(adds(feature, event) for feature in mine)


def tells_soon(group: FeatureGroup) -> bool:
    """Whether an event shows in a group's answers soon: a row that is seldom written is late by its definition.

    So is a copy that is held where changes are not heard of. Nor is a time that is none.
    """
    every = group.writing.every
    return isinstance(every, timedelta) and every <= _EVERY_MAX and group.serving.tier != "local"


def adds(feature: Aggregate, event: bytes) -> bool:
    """Whether an event adds to a feature: its ``where`` holds, and there is a value.

    What depends on the event's time or id is taken for granted: those are others each time.

    Raises:
        EventError: An expression overflows.
        ValidationError: It is no event of the feature's source.
    """
    value = feature.aggregation.value if not feature.aggregation.takes_null else None
    columns, fields = columns_of(feature.source.model), _fields(feature.source, event)

    def evaluate(expression: Expr) -> Any:
        differs = expression.columns() & {feature.source.event_time, feature.source.event_id}
        return True if differs else expression.compile(columns)(fields)

    holds = feature.where is None or bool(evaluate(feature.where))
    return holds and (value is None or evaluate(value) is not None)


def _fields(source: Source, event: bytes) -> Fields:
    fields: Mapping[str, Any] = vars(source.model.model_validate_json(event))
    return {name: value.value if isinstance(value, Enum) else value for name, value in fields.items()}
