"""What must become of a record, as its own model answers: pydantic asked plainly, beside all that is clever in decoding.

Of the demo's models the answer is whole: which reason, or which keys, id and time. Of a lax model it is that nothing is
taken that the model refuses, and that what it takes is refused only for a reason that the model does not know.
"""

from typing import NamedTuple

from pydantic import ValidationError

from agents.decode import EVENT_ID_BYTES_MAX, RECORD_BYTES_MAX
from core.windows import FUTURE_MS, to_ms
from features.videos_events import VideoEvent
from tests.fakes import Record
from tests.fuzz.domain import REGISTRY

_TIME_MAX_MS = 2**53
_FED = {
    topic: {group.entity.name for group in REGISTRY.groups if source in group.sources}
    for topic, source in REGISTRY.sources.items()
}


class Update(NamedTuple):
    """What one event does to one key."""

    entity: str
    key: str
    event_id: str
    event_time_ms: int


class Expected(NamedTuple):
    """What may become of a record.

    Attributes:
        reasons: Of which it may be buried.
        updates: What it does otherwise, or None where only the decoder knows.
    """

    reasons: frozenset[str]
    updates: frozenset[Update] | None = None


_BURIED_FOR_SURE = {reason: Expected(frozenset({reason}), frozenset()) for reason in ("malformed", "too_large")}


def expect(record: Record) -> Expected:
    """Return what may become of a record."""
    source = REGISTRY.sources[record.topic]
    if record.value is None:
        return _BURIED_FOR_SURE["malformed"]
    if len(record.value) > RECORD_BYTES_MAX:
        return _BURIED_FOR_SURE["too_large"]
    try:
        event = source.model.model_validate_json(record.value)
    except ValidationError:
        return _BURIED_FOR_SURE["malformed"]
    if not isinstance(event, VideoEvent):
        return Expected(frozenset({"malformed", "too_large", "overflow", "late", "future"}))
    return _expect_video(event, record, to_ms(source.lateness))


def _expect_video(event: VideoEvent, record: Record, lateness_ms: int) -> Expected:
    if event.time_ms > _TIME_MAX_MS or len(event.event_id.encode()) > EVENT_ID_BYTES_MAX:
        return _BURIED_FOR_SURE["malformed"]
    if record.timestamp - event.time_ms > lateness_ms:
        return Expected(frozenset({"late"}), frozenset())
    if event.time_ms - record.timestamp > FUTURE_MS:
        return Expected(frozenset({"future"}), frozenset())
    keys = {
        "user": f"i{event.user_id}",
        "video": f"i{event.video_id}",
        "user_tab": f"i{event.user_id}|i{event.tab}",
    }
    updates = (Update(entity, keys[entity], event.event_id, event.time_ms) for entity in _FED[record.topic])
    return Expected(frozenset(), frozenset(updates))
