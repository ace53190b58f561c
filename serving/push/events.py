"""Pushed events: from the row of a push to an event of its source, all rows of a request or none. Pure.

A row is read exactly as the dispatcher will read it, so what is accepted is not buried later. Values are passed on byte
for byte: no number is read and written again.

A client that got no answer sends the same request again, and Feast's SDK does so by itself. So every event needs an
identity that a repetition has too. Where its row has none, it is derived from the row's content, the request's
``Idempotency-Key`` and how many equal rows stand before it. A row without id, key and time could be a repetition or a
second event, and nobody could tell: it is refused.
"""

import hashlib
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec

from core.definitions import Source
from core.errors import EventError, RequestError
from core.models import columns_of
from core.values import ValueType

EVENT_BYTES_MAX = 900_000
"""Below the 1 MiB that brokers take by default, with its key and headers."""
IDEMPOTENCY_KEY_CHARS_MAX = 256

_FEAST_TIME, _FEAST_CREATED = "event_timestamp", "created"
_NULL = b"null"


class _Pushed(Protocol):
    @property
    def places(self) -> list[Sequence[tuple[int, str]]]: ...


class EventReader(Protocol):
    """Reads an event as the dispatcher does."""

    @property
    def source(self) -> Source:
        """What it reads."""
        ...

    def decode(self, value: bytes | None, record_time_ms: int) -> _Pushed:
        """Return the event.

        Raises:
            EventError: It cannot be used.
        """
        ...


class Outgoing(NamedTuple):
    """An event on its way to the source's topic.

    Attributes:
        key: Encoded key of the first entity, by name, that it touches, or None if it touches none.
        value: JSON.
    """

    key: bytes | None
    value: bytes


class EventMaker:
    """Makes events of the rows of a push to one source."""

    def __init__(self, reader: EventReader, *, idempotency_key: str, now_ms: int) -> None:
        """Make events.

        Args:
            reader: Of the source.
            idempotency_key: The request's, or empty.
            now_ms: Time of an event whose row has none, and of the record that it will be.

        Raises:
            RequestError: 400: the key is too long.
        """
        if len(idempotency_key) > IDEMPOTENCY_KEY_CHARS_MAX:
            raise RequestError(
                400, f"Idempotency-Key: {len(idempotency_key)} characters, the limit is {IDEMPOTENCY_KEY_CHARS_MAX}"
            )
        self._reader = reader
        self._source = source = reader.source
        self._idempotency_key = idempotency_key
        self._now_ms = now_ms
        columns = columns_of(source.model)
        self._time_is_number = columns.get(source.event_time) is ValueType.INT
        self._id_is_number = source.event_id is not None and columns.get(source.event_id) is ValueType.INT
        self._seen: Counter[bytes] = Counter()

    def make(self, row: Mapping[str, bytes]) -> Outgoing:
        """Return the event of a row.

        Args:
            row: Values by column, as JSON.

        Raises:
            EventError: The row is no event; ``mistakes`` has everything that is wrong.
        """
        source, mistakes = self._source, list[str]()
        fields = {name: value for name, value in row.items() if self._is_field(name)}
        try:
            time = self._time(row)
        except ValueError as error:
            mistakes.append(f"{_FEAST_TIME}: {error}")
            time = self._now()
        if source.event_id is not None and row.get(source.event_id, _NULL) == _NULL:
            if time is None and not self._idempotency_key:
                mistakes.append(
                    f"{source.event_id}: without it, {source.event_time} or an Idempotency-Key header nobody could "
                    "tell a repetition of this request from another event"
                )
            fields[source.event_id] = self._derive_id(row)
        fields[source.event_time] = self._now() if time is None else time
        value = b"{%b}" % b",".join(b"%b:%b" % (msgspec.json.encode(name), raw) for name, raw in fields.items())
        if len(value) > EVENT_BYTES_MAX:
            raise EventError("too_large", f"{len(value)} bytes, the limit of a pushed event is {EVENT_BYTES_MAX}")
        places = self._read(value, mistakes)
        return Outgoing(next((key.encode() for found in places for _, key in found), None), value)

    def _read(self, value: bytes, mistakes: list[str]) -> list[Sequence[tuple[int, str]]]:
        """Return partitions and keys that an event touches, unless there is anything wrong with it."""
        try:
            places = self._reader.decode(value, self._now_ms).places
        except EventError as error:
            mistakes += error.mistakes
            if len(mistakes) == len(error.mistakes):
                raise
            places = []
        if mistakes:
            raise EventError("malformed", mistakes[0], tuple(mistakes))
        return places

    def _is_field(self, name: str) -> bool:
        """Whether a column is the event's; those that Feast adds to every row only if the model names them."""
        return name not in (_FEAST_TIME, _FEAST_CREATED) or name in self._source.model.model_fields

    def _time(self, row: Mapping[str, bytes]) -> bytes | None:
        """Return the event time as its model wants it, or None if the row has none."""
        name = self._source.event_time
        own = row.get(name, _NULL)
        if own != _NULL and name != _FEAST_TIME:
            return own
        feast = row.get(_FEAST_TIME, _NULL)
        return None if feast == _NULL else self._from_feast(feast)

    def _from_feast(self, raw: bytes) -> bytes:
        text = msgspec.json.decode(raw)
        if not isinstance(text, str):
            return raw
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text[:64]!r} is no time; write it as ISO 8601") from None
        # Feast's SDK leaves the zone out and means UTC.
        return self._written(time if time.tzinfo is not None else time.replace(tzinfo=UTC))

    def _now(self) -> bytes:
        return self._written(datetime.fromtimestamp(self._now_ms / 1000, tz=UTC))

    def _written(self, time: datetime) -> bytes:
        return msgspec.json.encode(round(time.timestamp() * 1000) if self._time_is_number else time)

    def _derive_id(self, row: Mapping[str, bytes]) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        parts = [self._source.topic.encode(), self._idempotency_key.encode(errors="surrogateescape")]
        for name in sorted(row):
            # When Feast made the row is no part of what happened.
            if name not in (_FEAST_CREATED, self._source.event_id):
                parts += [name.encode(), row[name]]
        for part in parts:
            digest.update(len(part).to_bytes(4, "big") + part)
        content = digest.digest()
        digest.update(self._seen[content].to_bytes(4, "big"))
        self._seen[content] += 1
        if self._id_is_number:
            return b"%d" % (int.from_bytes(digest.digest()[:8], "big") >> 1)
        return msgspec.json.encode(str(uuid.UUID(bytes=digest.digest(), version=5)))
