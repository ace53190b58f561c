"""Topics that were made anew: the record remembers every topic's id (SEMANTICS: Rows and versions of rows).

Kafka gives a topic another id when it is deleted and made again, and forgets the groups' offsets of the old one. Its
offsets begin at 0 again: the stamps of rows would take all new events for replays, rows written under new offsets would
be refused as old, and an empty changelog would pass for one that has no rows yet. So ids are kept in the record, a
list per topic; a worker that meets another than the last stops with both, and ``freshet topics accept`` appends it.

The length of the list is the incarnation: the epoch in the versions of rows counts those of the repartition topic and
its changelog.
"""

from collections.abc import Iterable, Mapping

import msgspec

from core.errors import ConfigurationError, StoreError
from core.ports import RowKey, Store, StoredRow
from core.topics import changelog_topic, repartition_topic
from core.versions import version_bytes

_DEADLINE_MS = 5_000


async def remember_topic_ids(record: Store, found: Mapping[str, str]) -> dict[str, int]:
    """Check the ids of topics against those in the record, and enter those of topics that were never seen.

    Args:
        record: The record.
        found: Id by topic, as the broker tells them now.

    Returns:
        Per topic how often it was made anew and accepted since.

    Raises:
        ConfigurationError: Topics were made anew; all are told, with both ids.
        StoreError: The record failed.
    """
    known = await _read(record, found)
    anew = [
        f"topic {topic} was made anew: its id is {found[topic]} and was {ids[-1]}, so offsets of the old one mean "
        f"nothing; see docs/how-to/recover.md, then `freshet topics accept {topic}`"
        for topic, ids in sorted(known.items())
        if ids[-1] != found[topic]
    ]
    if anew:
        raise ConfigurationError("\n".join(anew))
    await _write(record, {topic: [topic_id] for topic, topic_id in found.items() if topic not in known})
    return {topic: len(known[topic]) - 1 if topic in known else 0 for topic in found}


async def accept_topic_ids(record: Store, found: Mapping[str, str]) -> list[str]:
    """Enter the ids of topics that were made anew; return which were."""
    known = await _read(record, found)
    anew = {
        topic: [*known.get(topic, ()), topic_id]
        for topic, topic_id in found.items()
        if known.get(topic, [""])[-1] != topic_id
    }
    await _write(record, anew)
    return sorted(anew)


def epochs(entities: Iterable[str], incarnations: Mapping[str, int]) -> dict[str, int]:
    """Return each entity's epoch: how often its repartition topic or its changelog was made anew.

    >>> epochs(["user", "video"], {"freshet.user": 1, "freshet.user.changelog": 2})
    {'user': 3, 'video': 0}
    """
    return {
        entity: incarnations.get(repartition_topic(entity), 0) + incarnations.get(changelog_topic(entity), 0)
        for entity in entities
    }


async def _read(record: Store, topics: Iterable[str]) -> dict[str, list[str]]:
    values = await record.read([_place(topic) for topic in topics], deadline_ms=_DEADLINE_MS)
    return {place.sk: msgspec.msgpack.decode(value[8:], type=list[str]) for place, value in values.items()}


async def _write(record: Store, lists: Mapping[str, list[str]]) -> None:
    rows = [
        StoredRow(_place(topic), len(ids), version_bytes(len(ids)) + msgspec.msgpack.encode(ids))
        for topic, ids in lists.items()
    ]
    if rows and await record.write(rows, deadline_ms=_DEADLINE_MS) < len(rows):
        # Workers that start together enter the same; anything else is a mistake.
        stored = await _read(record, lists)
        if any(stored.get(topic) != ids for topic, ids in lists.items()):
            raise StoreError("the ids of topics were entered by somebody else at the same time: start again")


def _place(topic: str) -> RowKey:
    return RowKey("#topics", topic)
