"""Checking entities, sources, and whether a source has the keys of the entities that it feeds. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from core.check_features import check_expression, is_model
from core.definitions import Entity, Source
from core.expressions import Explode, col
from core.models import columns_of, is_event_time, list_item_type
from core.packs import PACK_UPDATES_MAX
from core.problems import (
    Problem,
    check_clashes,
    check_listed,
    check_name,
    check_span,
    check_whole_number,
    listed,
    suggestion,
)
from core.values import ValueType
from core.windows import days

PARTITIONS_MAX = 1024
LATENESS_MAX = days(90)
DEDUPE_MAX = days(7)
DEDUPE_IDS_MAX = 500_000_000
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_OWN_TOPICS = "freshet."
_KEY_TYPES = (ValueType.INT, ValueType.STR)


def check_entity(entity: Entity) -> Iterator[Problem]:
    """Report all problems of an entity."""
    where = f"entity {entity.name}"
    yield from check_name(where, entity.name)
    yield from check_listed(where, "keys", entity.keys)
    for name in listed(entity.keys):
        yield from check_name(where, name)
    yield from check_clashes(f"{where}, key", listed(entity.keys))
    yield from check_whole_number(where, "partitions", entity.partitions, least=1, most=PARTITIONS_MAX)


def check_source(source: Source, entities: Sequence[Entity]) -> Iterator[Problem]:
    """Report all problems of a source and of the entities that it feeds."""
    where = f"source {source.topic}"
    yield from _check_topic(where, source.topic)
    yield from check_span(where, "lateness", source.lateness, most=LATENESS_MAX)
    yield from check_span(where, "dedupe", source.dedupe, most=DEDUPE_MAX)
    yield from check_whole_number(
        where, "dedupe_ids_max", source.dedupe_ids_max, least=PACK_UPDATES_MAX, most=DEDUPE_IDS_MAX
    )
    if not is_model(source.model):
        yield Problem(where, f"{source.model!r} is no pydantic model", remedy="give a subclass of pydantic.BaseModel")
        return
    yield from _check_event_time(f"{where}, event_time", source)
    yield from _check_event_id(f"{where}, event_id", source)
    names = list(dict.fromkeys(name for entity in entities for name in listed(entity.keys)))
    for name in names:
        yield from key_type(source, name)[0]
    for name in source.keys:
        if name not in names:
            reason = f"keys names {name}, which is no key of an entity that it feeds"
            yield Problem(where, reason, remedy=suggestion(name, names), severity="warning")


def key_type(source: Source, name: str) -> tuple[list[Problem], ValueType | None]:
    """Return the type of an entity's key column in a source.

    Returns:
        Either problems, or no problem and int or str.
    """
    where = f"source {source.topic}, key {name}"
    told = source.keys.get(name, col(name))
    if isinstance(told, Explode):
        return _item_type(where, source, told.column)
    if name not in source.keys and name not in source.model.model_fields:
        reason = f"{source.model.__name__} has no field {name}, and keys does not say where it is"
        return [Problem(where, reason, remedy=f'add it, or keys={{"{name}": col("...")}}')], None
    problems, own = check_expression(where, told, source.model)
    if own is None or own in _KEY_TYPES:
        return problems, own
    remedy = 'take each item with explode(col("..."))' if own is ValueType.LIST else "give an int or a str"
    return [Problem(where, f"a {own.value} is no key", remedy=remedy)], None


def check_key_types(feeds: Iterable[tuple[Entity, Source]]) -> Iterator[Problem]:
    """Report keys that are integers in one source and strings in another: 1 and "1" are two keys."""
    topics: dict[tuple[str, str], dict[ValueType, set[str]]] = {}
    for entity, source in feeds:
        if is_model(source.model):
            for name in listed(entity.keys):
                own = key_type(source, name)[1]
                if own is not None:
                    topics.setdefault((entity.name, name), {}).setdefault(own, set()).add(source.topic)
    for (entity_name, name), kinds in topics.items():
        if len(kinds) > 1:
            told = " and ".join(f"{kind.value} in {', '.join(sorted(where))}" for kind, where in kinds.items())
            remedy = "give it one type in all models: 1 and '1' are two keys"
            yield Problem(f"entity {entity_name}, key {name}", f"it is {told}", remedy=remedy)


def check_one_meaning(entities: Sequence[Entity], sources: Sequence[Source]) -> Iterator[Problem]:
    """Report two different entities of one name and two different sources of one topic."""
    for name in sorted({str(entity.name) for entity in entities}):
        alike = [entity for entity in entities if str(entity.name) == name]
        if any(entity != alike[0] for entity in alike):
            yield Problem(f"entity {name}", "two different entities have this name", remedy="define it once")
    for topic in sorted({str(source.topic) for source in sources}):
        meanings = [_meaning(source) for source in sources if str(source.topic) == topic]
        if any(meaning != meanings[0] for meaning in meanings):
            yield Problem(f"source {topic}", "two different sources read this topic", remedy="define it once")


def _check_topic(where: str, topic: Any) -> Iterator[Problem]:
    if not isinstance(topic, str) or not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        yield Problem(where, "Kafka allows no such topic name", remedy="use at most 249 letters, digits, . _ and -")
    elif topic.startswith(_OWN_TOPICS):
        yield Problem(where, f"topics that begin with {_OWN_TOPICS} are Freshet's own", remedy="rename the topic")


def _check_event_time(where: str, source: Source) -> Iterator[Problem]:
    fields = source.model.model_fields
    if source.event_time not in fields:
        reason = f"{source.model.__name__} has no field {source.event_time}"
        yield Problem(where, reason, remedy=suggestion(str(source.event_time), fields))
    elif not is_event_time(fields[source.event_time].annotation):
        remedy = "make it an int in milliseconds or a datetime, and never null"
        yield Problem(where, f"the field {source.event_time} tells no time", remedy=remedy)


def _check_event_id(where: str, source: Source) -> Iterator[Problem]:
    fields, name = source.model.model_fields, source.event_id
    if name is None:
        return
    if name not in fields:
        yield Problem(where, f"{source.model.__name__} has no field {name}", remedy=suggestion(str(name), fields))
    elif fields[name].annotation not in (int, str):
        # Null ids would all be one id: all but the first of such events would be dropped as its repetitions.
        remedy = "make it a str or an int, and never null"
        yield Problem(where, f"the field {name} is no identity", remedy=remedy)


def _item_type(where: str, source: Source, column: str) -> tuple[list[Problem], ValueType | None]:
    columns = columns_of(source.model)
    if column not in columns:
        problems, _ = check_expression(where, col(column), source.model)
        return problems, None
    own = list_item_type(source.model, column) if columns[column] is ValueType.LIST else None
    if own in _KEY_TYPES:
        return [], own
    reason = f"explode takes a list of int or str, and {column} is none"
    return [Problem(where, reason, remedy="name such a list, or leave explode out")], None


def _meaning(source: Source) -> list[Any]:
    # Sources themselves are not compared: their keys hold expressions, whose == builds a tree.
    keys = sorted((name, repr(value)) for name, value in source.keys.items())
    return [
        source.model,
        source.event_time,
        source.event_id,
        source.lateness,
        source.dedupe,
        source.dedupe_ids_max,
        keys,
        source.canary,
    ]
