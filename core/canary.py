"""A canary: an event that nobody has caused. Pure."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from core.definitions import Source
from core.models import columns_of
from core.values import ValueType

_INT_BITS = 66
"""Of 128, so that what is left is an integer of 64 bits with a sign."""


def canary_event(source: Source, *, now_ms: int, identity: UUID) -> bytes:
    """Return the JSON of a source's canary.

    Args:
        source: One that has a canary.
        now_ms: When it happens, milliseconds since the epoch.
        identity: Its own, if the source has any.
    """
    fields: dict[str, Any] = dict(source.canary or {})
    columns = columns_of(source.model)
    is_number = columns.get(source.event_time) is ValueType.INT
    fields[source.event_time] = now_ms if is_number else datetime.fromtimestamp(now_ms / 1000, UTC).isoformat()
    if source.event_id is not None:
        is_number = columns.get(source.event_id) is ValueType.INT
        fields[source.event_id] = identity.int >> _INT_BITS if is_number else f"canary-{identity}"
    return json.dumps(fields).encode()
