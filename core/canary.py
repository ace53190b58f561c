"""A canary: an event that nobody has caused. Pure."""

import json
from datetime import UTC, datetime
from typing import Any

from core.definitions import Source
from core.models import columns_of
from core.values import ValueType


def canary_event(source: Source, *, now_ms: int, event_id: str) -> bytes:
    """Return the JSON of a source's canary.

    Args:
        source: One that has a canary.
        now_ms: When it happens, milliseconds since the epoch.
        event_id: Its identity, if the source has any.
    """
    fields: dict[str, Any] = dict(source.canary or {})
    is_number = columns_of(source.model).get(source.event_time) is ValueType.INT
    fields[source.event_time] = now_ms if is_number else datetime.fromtimestamp(now_ms / 1000, UTC).isoformat()
    if source.event_id is not None:
        fields[source.event_id] = event_id
    return json.dumps(fields).encode()
