"""Decoding: from a record's bytes to the values that some group needs, or to the reason why not. Pure.

Expressions are evaluated here, once per event, not per entity or group: what is sent on are values of expressions. So
an overflow is found before anything was counted, and is decided per source offset like every other flaw of an event.
What happens to the fields of an event is written out once per source, as one function.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import xxhash

from agents.fields import DETAIL_MAX, RECORD_BYTES_MAX, FieldReader
from agents.places import Place, Places, every_place, place_of
from core.code import Code
from core.definitions import Aggregate, Entity, FeatureGroup, Registry, Source
from core.errors import EventError
from core.expressions import Explode, Expr, Writer, col
from core.models import columns_of
from core.values import TEXT_BYTES_MAX, ValueType
from core.windows import FUTURE_MS, to_ms

__all__ = ["EVENT_ID_BYTES_MAX", "RECORD_BYTES_MAX", "Decoded", "Place", "SourceDecoder", "Target", "decoders_of"]

EVENT_ID_BYTES_MAX = 128

_TIME_MAX_MS = 1 << 53
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Target:
    """An entity that a source touches.

    Attributes:
        names: Texts of the expressions that the entity's groups need.
        places: Where their values stand in ``Decoded.values``.
    """

    entity: Entity
    names: list[str]
    places: list[int]


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """One good event.

    Attributes:
        check: 16 bits of a hash over the record's value.
        places: Per target, in their order: where the event belongs, each key once.
        values: Values of the source's expressions.
    """

    event_time_ms: int
    event_id: str
    check: int
    places: list[Sequence[Place]]
    values: list[Any]


class SourceDecoder:
    """Decodes the records of one source."""

    def __init__(
        self, source: Source, groups: Iterable[FeatureGroup], *, places: dict[Entity, Places] | None = None
    ) -> None:
        """Write the source's function out.

        Args:
            source: What is decoded.
            groups: Those that it may feed.
            places: By entity, to be shared with the decoders of other sources; those that are missing are added.
        """
        self.source = source
        columns = columns_of(source.model)
        wanted = _expressions(source, groups)
        every = {text: expression for expressions in wanted.values() for text, expression in expressions.items()}
        numbers = {text: number for number, text in enumerate(sorted(every))}
        entities = {group.entity.name: group.entity for group in groups}
        self.targets = [
            Target(entities[name], sorted(expressions), [numbers[text] for text in sorted(expressions)])
            for name, expressions in sorted(wanted.items())
        ]
        reader = FieldReader(source.model)
        self._read = reader.read
        self._project = _projection(
            source,
            self.targets,
            [every[text] for text in sorted(every)],
            columns,
            reader.attributes,
            {} if places is None else places,
        )

    def decode(self, value: bytes | None, record_time_ms: int) -> Decoded:
        """Decode the value of one record.

        Args:
            value: JSON.
            record_time_ms: Kafka's timestamp of the record: lateness and future depend on it alone, never on a clock.

        Raises:
            EventError: The event cannot be used; the reason is ``malformed``, ``too_large``, ``overflow``, ``late``
                or ``future``.
        """
        return self._project(self._read(value), value, record_time_ms)


def decoders_of(registry: Registry) -> dict[str, SourceDecoder]:
    """Return a decoder for each source; the place of a key is remembered once, whatever sources touch it."""
    places: dict[Entity, Places] = {}
    return {topic: SourceDecoder(one, registry.groups, places=places) for topic, one in registry.sources.items()}


def _projection(
    source: Source,
    targets: Sequence[Target],
    expressions: Sequence[Expr],
    columns: Mapping[str, ValueType],
    attributes: Mapping[str, str],
    places: dict[Entity, Places],
) -> Callable[[Any, bytes | None, int], Decoded]:
    """Write the function from an event's fields, its bytes and its record's time to what is sent on.

    An event with several flaws is told by the first of them, in this order: time, id, keys, values, age.
    """
    code = Code("def project(fields, value, record_time_ms):")
    out = Writer(code, columns, attributes)
    code.add(f"time_ms = fields.{attributes[source.event_time]}")
    with code.block(f"if time_ms.__class__ is not int or not 0 <= time_ms <= {_TIME_MAX_MS}:"):
        code.add(f"time_ms = {code.name('instant', partial(_instant, source.event_time))}(time_ms)")
    if source.event_id is None:
        code.add("event_id = ''")
    else:
        code.add(f"event_id = fields.{attributes[source.event_id]}")
        short = f"event_id.__class__ is str and event_id.isascii() and 0 < len(event_id) <= {EVENT_ID_BYTES_MAX}"
        with code.block(f"if not ({short}):"):
            code.add(f"event_id = {code.name('identity', partial(_identity, source.event_id))}(event_id)")
    with code.block("try:"):
        found = [_write_places(out, target.entity, source.keys, places) for target in targets]
        code.add("pass")
    with code.block("except ValueError as error:"):
        code.add(f"raise {code.name('refuse', _refuse_key)}(error) from error")
    values = [out.value(expression) for expression in expressions]
    for value, expression in zip(values, expressions, strict=True):
        if expression.type_in(columns) is ValueType.STR:
            # A character has four bytes at the most, so short texts, which nearly all are, need no encoding.
            with code.block(f"if {value} is not None and len({value}) > {TEXT_BYTES_MAX // 4}:"):
                code.add(f"{code.name('check', _check_text)}({value}, {code.name('text', expression.text)})")
    lateness_ms = to_ms(source.lateness)
    with code.block(f"if not {-FUTURE_MS} <= record_time_ms - time_ms <= {lateness_ms}:"):
        code.add(f"raise {code.name('refuse', _refuse_age)}(record_time_ms - time_ms, {lateness_ms})")
    check = f"{code.name('hash', xxhash.xxh3_64_intdigest)}(value) & 0xFFFF"
    decoded = f"time_ms, event_id, {check}, [{', '.join(found)}], [{', '.join(values)}]"
    code.add(f"return {code.name('Decoded', Decoded)}({decoded})")
    return code.compile()


def _instant(field: str, time: Any) -> int:
    """Return an event's time in milliseconds since the epoch, whatever its model says it is."""
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise EventError("malformed", f"{field}: a time without a time zone")
        time = (time - _EPOCH) // timedelta(milliseconds=1)
    if type(time) is not int or not 0 <= time <= _TIME_MAX_MS:
        raise EventError("malformed", f"{field}: not milliseconds since the epoch")
    return time


def _identity(field: str, value: Any) -> str:
    event_id = str(value)
    size = len(event_id) if event_id.isascii() else len(event_id.encode(errors="surrogatepass"))
    if not 0 < size <= EVENT_ID_BYTES_MAX:
        raise EventError("malformed", f"{field}: {size} bytes, 1 to {EVENT_ID_BYTES_MAX} are allowed")
    return event_id


def _check_text(value: str, text: str) -> None:
    size = len(value.encode())
    if size > TEXT_BYTES_MAX:
        raise EventError("too_large", f"{text[:200]}: {size} bytes, the limit of a value is {TEXT_BYTES_MAX}")


def _refuse_key(error: ValueError) -> EventError:
    return EventError("malformed", f"key: {error}"[:DETAIL_MAX])


def _refuse_age(age_ms: int, lateness_ms: int) -> EventError:
    """Return what is wrong with an event that is so much older than its record, or younger."""
    if age_ms > 0:
        return EventError(
            "late",
            f"its time is {age_ms / 1000:.0f} s before it came, its source allows {lateness_ms / 1000:g} s (lateness)",
        )
    return EventError("future", f"its time is {-age_ms / 1000:.0f} s after it came, {FUTURE_MS / 1000:g} s are allowed")


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


def _write_places(out: Writer, entity: Entity, keys: Mapping[str, Expr | Explode], places: dict[Entity, Places]) -> str:
    """Write the places of an entity that an event touches; return the name of them."""
    parts = [keys.get(name, col(name)) for name in entity.keys]
    values = ", ".join(
        out.new(out.field(part.column)) if isinstance(part, Explode) else out.value(part) for part in parts
    )
    exploded = [isinstance(part, Explode) for part in parts]
    if any(exploded):
        return out.new(f"{out.code.name('places', partial(every_place, entity.partitions, exploded))}({values})")
    if all(part.type_in(out.columns) in _KEY_TYPES for part in parts if isinstance(part, Expr)):
        # 1 and True would be one key of a dictionary, but none of these has both.
        kept = places.setdefault(entity, Places(entity.partitions))
        return out.new(f"{out.code.name('places', kept)}[{values}]")
    return out.new(f"{out.code.name('place', partial(place_of, entity.partitions))}({values})")


_KEY_TYPES = (ValueType.INT, ValueType.STR)
