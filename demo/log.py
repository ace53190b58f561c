"""The demo's events: two days of a real short-video log, as three topics.

One row of the log is one exposure of a video to a user, with what the user did. It becomes an impression, a click if
there was one, and a conversion for each thing that went further. Some rows stand in the log more than once, as their
publisher left them; the ids of their events repeat, and the platform must not count them twice.

Source and licence of the data: ``demo/data/LICENSE.md``.
"""

import gzip
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources

IMPRESSIONS, CLICKS, CONVERSIONS = "impressions", "clicks", "conversions"

_OF_ALL = ("event_id", "time_ms", "user_id", "video_id", "tab")
FIELDS = {
    IMPRESSIONS: frozenset((*_OF_ALL, "watch_ms", "duration_ms")),
    CLICKS: frozenset(_OF_ALL),
    CONVERSIONS: frozenset((*_OF_ALL, "kind")),
}
"""The fields that the events of each topic have."""

LOG_FILE = "kuairand_two_days.csv.gz"

# Column of the log to the kind of conversion it stands for.
_CONVERSIONS = {"long_view": "long_view", "is_like": "like", "is_follow": "follow", "is_forward": "forward"}


@dataclass(frozen=True, slots=True)
class DemoEvent:
    """One event as a producer sends it.

    Attributes:
        topic: Source topic.
        key: Kafka key: the user's id.
        time_ms: When it happened, milliseconds since the epoch, UTC; also in ``fields``.
        fields: The message before it is turned into JSON, ``event_id`` and ``time_ms`` included.
    """

    topic: str
    key: str
    time_ms: int
    fields: dict[str, int | str]

    @property
    def event_id(self) -> str:
        """Return the id that repeats when the log repeats a row."""
        return str(self.fields["event_id"])


def load_log(shift_to_end_ms: int | None = None) -> list[DemoEvent]:
    """Return all events of the log, oldest first; of one row the impression, then the click, then conversions.

    Args:
        shift_to_end_ms: Instant at which the newest event shall have happened, milliseconds since the epoch; all
            others keep their distance to it. None leaves the times of May 2022.

    >>> log = load_log(shift_to_end_ms=1_800_000_000_000)
    >>> len(log), log[-1].time_ms
    (52473, 1800000000000)
    """
    header, *rows = _lines()
    columns = header.split(",")
    parsed = [(text, dict(zip(columns, map(int, text.split(",")), strict=True))) for text in rows]
    shift_ms = 0 if shift_to_end_ms is None else shift_to_end_ms - max(row["time_ms"] for _, row in parsed)
    return [event for text, row in parsed for event in _events(text, row, shift_ms)]


def happening(
    events: Sequence[DemoEvent], *, since: Sequence[DemoEvent], start_ms: int, events_per_s: float
) -> list[DemoEvent]:
    """Return events as if they happened one after the other from an instant on.

    An event that repeats another one repeats its time too: that is how a producer sends an event twice.

    Args:
        events: In the order in which they shall happen.
        since: What happened before.
        start_ms: When the first one happens, milliseconds since the epoch.
        events_per_s: How many happen in a second.
    """
    happened = {event.event_id: event for event in since}
    return [
        happened.setdefault(event.event_id, _at(event, start_ms + int(index * 1000 / events_per_s)))
        for index, event in enumerate(events)
    ]


def _at(event: DemoEvent, time_ms: int) -> DemoEvent:
    return replace(event, time_ms=time_ms, fields={**event.fields, "time_ms": time_ms})


def _lines() -> list[str]:
    packed = resources.files("demo").joinpath("data", LOG_FILE).read_bytes()
    return gzip.decompress(packed).decode("ascii").splitlines()


def _events(text: str, row: dict[str, int], shift_ms: int) -> Iterator[DemoEvent]:
    watched = {"watch_ms": row["play_time_ms"], "duration_ms": row["duration_ms"]}
    yield _event(IMPRESSIONS, "impression", text, row, shift_ms, watched)
    if row["is_click"]:
        yield _event(CLICKS, "click", text, row, shift_ms, {})
    for column, kind in _CONVERSIONS.items():
        if row[column]:
            yield _event(CONVERSIONS, kind, text, row, shift_ms, {"kind": kind})


def _event(
    topic: str, kind: str, text: str, row: dict[str, int], shift_ms: int, more: dict[str, int] | dict[str, str]
) -> DemoEvent:
    time_ms = row["time_ms"] + shift_ms
    fields: dict[str, int | str] = {
        # The row as published, not as shifted: the id of an event is the same in every replay.
        "event_id": hashlib.blake2b(f"{text}|{kind}".encode("ascii"), digest_size=8).hexdigest(),
        "time_ms": time_ms,
        "user_id": row["user_id"],
        "video_id": row["video_id"],
        "tab": row["tab"],
        **more,
    }
    return DemoEvent(topic, str(row["user_id"]), time_ms=time_ms, fields=fields)
