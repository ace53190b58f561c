"""Pushes: what a client may ask to send, checked at the edge. Pure.

A push names a source and brings columns; a row of them is one event. Feast's SDK knows no sources of ours: it writes to
a feature view. That may be a source by name, or a group that has one source, since its events are all that feeds it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from core.definitions import Registry
from core.errors import RequestError

ROWS_MAX = 10_000
COLUMNS_MAX = 500

_ONLINE = ("online", "online_and_offline")


class _PushBody(msgspec.Struct):
    push_source_name: str
    df: dict[str, list[msgspec.Raw]]
    to: str = "online"


class _WriteBody(msgspec.Struct):
    feature_view_name: str
    df: dict[str, list[msgspec.Raw]]


@dataclass(frozen=True, slots=True)
class Push:
    """What a client wants to send.

    Attributes:
        columns: Values as they stood in the body, per column and row.
        rows: How many.
    """

    topic: str
    columns: Mapping[str, Sequence[bytes]]
    rows: int


class Mistake(NamedTuple):
    """Something wrong with one row."""

    row: int
    what: str


class RefusedRowsError(RequestError):
    """Rows that are no events of the source; nothing was sent.

    Attributes:
        mistakes: All of them, at least one.
    """

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        first, others = mistakes[0], len(mistakes) - 1
        more = f"; and {others} mistake{'s' if others > 1 else ''} more" if others else ""
        super().__init__(422, f"row {first.row}: {first.what}{more}; nothing was sent")
        self.mistakes = mistakes


_push_decoder = msgspec.json.Decoder(_PushBody)
_write_decoder = msgspec.json.Decoder(_WriteBody)


def parse_push(body: bytes, registry: Registry) -> Push:
    """Return the push in a body of ``POST /push``.

    Raises:
        RequestError: 400 or 422; it names the field.
    """
    asked = _decoded(_push_decoder, body)
    if asked.to not in _ONLINE:
        raise RequestError(
            422,
            f"to: {asked.to[:64]!r}; an event enters through its topic, for online and offline: {' or '.join(_ONLINE)}",
        )
    if asked.push_source_name not in registry.sources:
        raise RequestError(
            422, f"there is no source {asked.push_source_name[:64]!r}; there are {', '.join(sorted(registry.sources))}",
            "PushSourceNotFoundException",
        )  # fmt: skip
    return _push(asked.push_source_name, asked.df)


def parse_write(body: bytes, registry: Registry) -> Push:
    """Return the push in a body of ``POST /write-to-online-store``, which Feast's SDK sends.

    Its view is a source by name, or a group that has one source: nothing writes a row but its aggregator.

    Raises:
        RequestError: 400, 404 or 422; it names the field.
    """
    asked = _decoded(_write_decoder, body)
    name = asked.feature_view_name
    if name in registry.sources:
        return _push(name, asked.df)
    group = next((group for group in registry.groups if group.name == name), None)
    if group is None:
        raise RequestError(
            404, f"there is no source and no feature group {name[:64]!r}; the sources are "
            f"{', '.join(sorted(registry.sources))}", "FeastObjectNotFoundException",
        )  # fmt: skip
    topics = [source.topic for source in group.sources]
    if len(topics) > 1:
        raise RequestError(
            400, f"feature group {name!r} is computed from {', '.join(topics)}: send an event to one of them with "
            "POST /push, or name it as the feature view"
        )  # fmt: skip
    return _push(topics[0], asked.df)


def _decoded(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(422, f"the request is not as expected: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"the body is no JSON: {error}") from error


def _push(topic: str, df: Mapping[str, Sequence[msgspec.Raw]]) -> Push:
    if not 0 < len(df) <= COLUMNS_MAX:
        raise RequestError(422, f"df: {len(df)} columns, 1 to {COLUMNS_MAX} are allowed")
    lengths = {len(values) for values in df.values()}
    if len(lengths) > 1:
        raise RequestError(
            422, f"df: all columns must have one length; they have {', '.join(map(str, sorted(lengths)))}"
        )
    rows = lengths.pop()
    if not 0 < rows <= ROWS_MAX:
        raise RequestError(422, f"df: {rows} rows, 1 to {ROWS_MAX} are allowed in one request")
    return Push(topic, {name: [bytes(value).strip() for value in values] for name, values in df.items()}, rows)
