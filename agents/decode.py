"""Decoding: from a record's bytes to the values that some group needs, or to the reason why not. Pure.

Expressions are evaluated here, once per event, not per entity or group: what is sent on are values of expressions. So
an overflow is found before anything was counted, and is decided per source offset like every other flaw of an event.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from operator import itemgetter
from typing import Any, NamedTuple

import xxhash
from pydantic import BaseModel, ConfigDict, ValidationError

from core.definitions import Aggregate, Entity, FeatureGroup, Source
from core.errors import EventError
from core.expressions import Evaluate, Explode, Expr, col
from core.keys import encode_key
from core.models import columns_of
from core.values import TEXT_BYTES_MAX, ValueType
from core.windows import FUTURE_MS, to_ms

EVENT_ID_BYTES_MAX = 128
RECORD_BYTES_MAX = 1 << 20

_TIME_MAX_MS = 1 << 53
_DETAIL_MAX = 500
_MISTAKES_MAX = 50
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Target:
    """An entity that a source touches.

    Attributes:
        names: Texts of the expressions that the entity's groups need.
        places: Where their values stand in ``Decoded.values``.
        texts: Those of the places whose values are texts.
    """

    entity: Entity
    names: list[str]
    places: list[int]
    texts: list[int]


class Decoded(NamedTuple):
    """One good event.

    Attributes:
        check: 16 bits of a hash over the record's value.
        keys: Per target, in their order: the encoded keys that the event touches, each once.
        values: Values of the source's expressions.
    """

    event_time_ms: int
    event_id: str
    check: int
    keys: list[list[str]]
    values: list[Any]


class SourceDecoder:
    """Decodes the records of one source."""

    def __init__(self, source: Source, groups: Iterable[FeatureGroup]) -> None:
        self.source = source
        self._model = _strict(source.model)
        # Pydantic takes a default as it is, also where an enum's value was asked for.
        self._enums = [name for name, info in source.model.model_fields.items() if isinstance(info.default, Enum)]
        self._time_field = source.event_time
        self._lateness_ms = to_ms(source.lateness)
        columns = columns_of(source.model)
        wanted = _expressions(source, groups)
        every = {text: expression for expressions in wanted.values() for text, expression in expressions.items()}
        self._evaluate: list[Evaluate] = [every[text].compile(columns) for text in sorted(every)]
        places = {text: place for place, text in enumerate(sorted(every))}
        self._texts = {places[text]: text for text in places if every[text].type_in(columns) is ValueType.STR}
        entities = {group.entity.name: group.entity for group in groups}
        self.targets = [
            Target(
                entities[name],
                sorted(expressions),
                [places[text] for text in sorted(expressions)],
                [places[text] for text in sorted(expressions) if places[text] in self._texts],
            )
            for name, expressions in sorted(wanted.items())
        ]
        self._keys = [_key_reader(target.entity, source.keys, columns) for target in self.targets]

    def decode(self, value: bytes | None, record_time_ms: int) -> Decoded:
        """Decode the value of one record.

        Args:
            value: JSON.
            record_time_ms: Kafka's timestamp of the record: lateness and future depend on it alone, never on a clock.

        Raises:
            EventError: The event cannot be used; the reason is ``malformed``, ``too_large``, ``overflow``, ``late``
                or ``future``.
        """
        fields = self._fields(value)
        event_time_ms = self._event_time(fields)
        event_id = self._event_id(fields)
        try:
            keys = [read(fields) for read in self._keys]
        except ValueError as error:
            raise EventError("malformed", f"key: {error}"[:_DETAIL_MAX]) from error
        values = [evaluate(fields) for evaluate in self._evaluate]
        self._check_texts(values)
        if record_time_ms - event_time_ms > self._lateness_ms:
            late_s = (record_time_ms - event_time_ms) / 1000
            raise EventError("late", f"{late_s:.0f} s before its record, {self._lateness_ms / 1000:g} s are allowed")
        if event_time_ms - record_time_ms > FUTURE_MS:
            early_s = (event_time_ms - record_time_ms) / 1000
            raise EventError("future", f"{early_s:.0f} s after its record, {FUTURE_MS / 1000:g} s are allowed")
        return Decoded(event_time_ms, event_id, xxhash.xxh3_64_intdigest(value or b"") & 0xFFFF, keys, values)

    def _fields(self, value: bytes | None) -> Mapping[str, Any]:
        if value is None:
            raise EventError("malformed", "the record has no value")
        if len(value) > RECORD_BYTES_MAX:
            raise EventError("too_large", f"{len(value)} bytes, the limit is {RECORD_BYTES_MAX}")
        try:
            fields = vars(self._model.model_validate_json(value))
        except ValidationError as error:
            each = tuple(
                _told(one) for one in error.errors(include_url=False, include_context=False, include_input=False)
            )
            more = f" (and {len(each) - 1} more)" if len(each) > 1 else ""
            raise EventError("malformed", f"{each[0]}{more}"[:_DETAIL_MAX], each[:_MISTAKES_MAX]) from error
        for name in self._enums:
            fields[name] = getattr(fields[name], "value", fields[name])
        return fields

    def _event_time(self, fields: Mapping[str, Any]) -> int:
        time = fields[self._time_field]
        if isinstance(time, datetime):
            if time.tzinfo is None:
                raise EventError("malformed", f"{self.source.event_time}: a time without a time zone")
            time = (time - _EPOCH) // timedelta(milliseconds=1)
        if type(time) is not int or not 0 <= time <= _TIME_MAX_MS:
            raise EventError("malformed", f"{self.source.event_time}: not milliseconds since the epoch")
        return time

    def _event_id(self, fields: Mapping[str, Any]) -> str:
        if self.source.event_id is None:
            return ""
        event_id = str(fields[self.source.event_id])
        size = len(event_id) if event_id.isascii() else len(event_id.encode(errors="surrogatepass"))
        if not 0 < size <= EVENT_ID_BYTES_MAX:
            raise EventError(
                "malformed", f"{self.source.event_id}: {size} bytes, 1 to {EVENT_ID_BYTES_MAX} are allowed"
            )
        return event_id

    def _check_texts(self, values: Sequence[Any]) -> None:
        for place, text in self._texts.items():
            value = values[place]
            # A character has four bytes at the most, so short texts, which nearly all are, need no encoding.
            if value and len(value) * 4 > TEXT_BYTES_MAX and (size := len(value.encode())) > TEXT_BYTES_MAX:
                raise EventError("too_large", f"{text[:200]}: {size} bytes, the limit of a value is {TEXT_BYTES_MAX}")


def _told(mistake: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in mistake["loc"]) or "value"
    return f"{where}: {mistake['msg']}"[:_DETAIL_MAX]


def _strict(model: type[BaseModel]) -> type[BaseModel]:
    """Return the model with infinity and NaN refused, which JSON lacks and pydantic accepts, and enums as values."""
    return type(
        model.__name__,
        (model,),
        {"model_config": ConfigDict(allow_inf_nan=False, use_enum_values=True), "__module__": model.__module__},
    )


def _expressions(source: Source, groups: Iterable[FeatureGroup]) -> dict[str, dict[str, Expr]]:
    wanted: dict[str, dict[str, Expr]] = {}
    for group in groups:
        for feature in group.features:
            if isinstance(feature, Aggregate) and feature.source.topic == source.topic:
                mine = wanted.setdefault(group.entity.name, {})
                for expression in (feature.aggregation.value, feature.where):
                    if expression is not None:
                        mine[expression.text] = expression
    return wanted


def _key_reader(
    entity: Entity, keys: Mapping[str, Expr | Explode], columns: Mapping[str, Any]
) -> Callable[[Mapping[str, Any]], list[str]]:
    """Return a function from an event's fields to the encoded keys of an entity that it touches, each once."""
    parts = [keys.get(name, col(name)) for name in entity.keys]
    readers = [_part_reader(part, columns) for part in parts]
    if not any(isinstance(part, Explode) for part in parts):
        if len(readers) == 1:
            (only,) = readers
            return lambda fields: [encode_key((_key_part(only(fields)),))]
        return lambda fields: [encode_key([_key_part(read(fields)) for read in readers])]

    def read_all(fields: Mapping[str, Any]) -> list[str]:
        found: list[Sequence[Any]] = [()]
        for part, read in zip(parts, readers, strict=True):
            value = read(fields)
            items = (value or ()) if isinstance(part, Explode) else (value,)
            found = [(*key, _key_part(item)) for key in found for item in items]
        return list(dict.fromkeys(encode_key(key) for key in found))

    return read_all


def _part_reader(part: Expr | Explode, columns: Mapping[str, Any]) -> Evaluate:
    if isinstance(part, Explode):
        return itemgetter(part.column)
    return part.compile(columns)


def _key_part(value: Any) -> Any:
    if type(value) is int or type(value) is str:
        return value
    if value is None:
        raise ValueError("it is null")
    return getattr(value, "value", value)
