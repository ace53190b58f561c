"""Makes ready entities of rows, wherever these were read, and answers of ready entities."""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from core.keys import known_partition, partition_key
from core.ports import RowKey
from core.rows import Row
from core.windows import NEVER_MS
from serving.answers.assembly import assemble_entities
from serving.answers.read_plans import EntityRead, ReadPlan
from serving.answers.ready import ReadyRow, ReadyRows
from serving.answers.ready_entities import Address, ReadyEntities, ReadyEntity, are_good
from serving.tiers.local import Copy

_NEW_SHARE = 4
"""Where more than one in so many is new, their values are prepared together: they may never be asked for again."""
_valid_from = attrgetter("valid_from_ms")


class FoundRows(NamedTuple):
    """The rows of one entity.

    Attributes:
        address: Where they stand.
        rows: Per group, or None where there is none.
        copies: Per group, which local copy it is of; or none at all.
        packed: Per group, what a store had; or none at all.
    """

    address: Address
    rows: Sequence[Row | None]
    copies: Sequence[Copy] = ()
    packed: Sequence[bytes] = ()


class EntityMaker:
    """Makes ready entities and remembers those that are asked for again."""

    def __init__(self, ready: ReadyRows, *, bytes_max: int) -> None:
        """Remember nothing yet.

        Args:
            ready: Prepares rows.
            bytes_max: Of what is remembered of entities.
        """
        self._ready = ready
        self._entities = ReadyEntities(bytes_max=bytes_max)

    def find(self, read: EntityRead, keys: Sequence[Any]) -> list[ReadyEntity | None]:
        """Return what is known under the values of key columns."""
        return self._entities.find(read, keys)

    def forget(self, pks: Iterable[str]) -> None:
        """Forget entities of which a row has changed."""
        self._entities.forget(pks)

    def clear(self) -> None:
        """Forget everything."""
        self._entities.clear()

    def fill(
        self,
        read: EntityRead,
        keys: Sequence[Any],
        mine: list[ReadyEntity | None],
        found: Mapping[int, FoundRows],
        *,
        now_ms: int,
    ) -> bool:
        """Put entities into a list, made of their rows; return whether all in it are good then.

        Args:
            read: Of which groups.
            keys: Values of the entities' key columns.
            mine: What is there already; the rest is None, or good no more.
            found: The rows of the rest, by its place in the list.
            now_ms: The present.
        """
        kept = [entity for number, entity in enumerate(mine) if entity is not None and number not in found]
        written = [row.valid_from_ms for one in found.values() for row in one.rows if row is not None]
        instant = max([instant_ms(kept, now_ms), *written])
        by_group = [
            self._ready.get_all(
                group.plan,
                [one.address.keys[place] for one in found.values()],
                [one.rows[place] for one in found.values()],
                instant,
            )
            for place, group in enumerate(read.groups)
        ]
        for (number, one), rows in zip(found.items(), zip(*by_group, strict=True), strict=True):
            entity = mine[number] = _entity(rows, one, instant)
            self._entities.keep(read, keys[number], entity)
        # What was good may be none at a later instant.
        return not not_good(mine, now_ms=now_ms)


def addresses(read: EntityRead, keys: Sequence[Any]) -> list[Address]:
    """Return where entities are.

    Raises:
        RequestError: The values of a key column can be no key.
    """
    entity, partitions = read.keys.entity, read.groups[0].plan.group.entity.partitions
    names = [group.sk for group in read.groups]
    found = []
    for encoded in read.encode(keys):
        pk = partition_key(entity, encoded)
        found.append(
            Address(encoded, (entity, known_partition(encoded, partitions)), tuple(RowKey(pk, sk) for sk in names))
        )
    return found


def instant_ms(entities: Sequence[ReadyEntity], now_ms: int) -> int:
    """Return the instant of an answer with some entities: no row of it is newer."""
    return max(now_ms, max(map(_valid_from, entities), default=0))


def not_good(entities: Sequence[ReadyEntity | None], *, now_ms: int) -> list[int]:
    """Return the places in a list where none is, or one of which an answer cannot be made now."""
    known = [entity for entity in entities if entity is not None]
    instant = instant_ms(known, now_ms)
    if len(known) == len(entities) and are_good(known, instant_ms=instant, now_ms=now_ms):
        return []
    return [
        number
        for number, entity in enumerate(entities)
        if entity is None or not are_good((entity,), instant_ms=instant, now_ms=now_ms)
    ]


def answer_of(
    plan: ReadPlan,
    asked: Mapping[str, Sequence[Any]],
    found: Sequence[Sequence[ReadyEntity]],
    progress: Mapping[tuple[str, int], int],
    *,
    hears: bool,
    now_ms: int,
    new: int,
    versions: Sequence[Mapping[str, Any]] | None,
) -> bytes | None:
    """Return the body of an answer, or None if what is known of one entity is too old for another.

    Args:
        plan: Of the request; all of it comes from rows.
        asked: Key columns of the request.
        found: Per entity of the plan, and per row of the request, what is served.
        progress: Of the entities' partitions, from before their rows were read.
        hears: Whether every change of what copies were told of has been announced here.
        now_ms: The present.
        new: How many of the entities were made just now.
        versions: Name and active version of each group, if the request asks for them.
    """
    instant = max(instant_ms(mine, now_ms) for mine in found)
    if len(found) > 1 and not all(are_good(mine, instant_ms=instant, now_ms=now_ms) for mine in found):
        # A row of one entity that is newer than our clock makes what we have of another too old.
        return None
    return assemble_entities(
        plan,
        asked,
        found,
        instant_ms=instant,
        min_as_of_ms=min(
            max(progress[entity.address.place], entity.as_of_ms) if hears and entity.is_told else entity.as_of_ms
            for mine in found
            for entity in mine
        ),
        versions=versions,
        are_new=new * _NEW_SHARE > sum(map(len, found)),
    )


def _entity(rows: Sequence[ReadyRow], found: FoundRows, instant: int) -> ReadyEntity:
    return ReadyEntity(
        found.address,
        rows,
        found.copies,
        found.packed,
        as_of_ms=min(row.as_of_ms if row is not None else 0 for row in found.rows),
        valid_from_ms=max(row.valid_from_ms if row is not None else 0 for row in found.rows),
        from_ms=max(
            [
                # A row that is over is served as none, but only from now on.
                *(ready.from_ms if ready.row is row else instant for ready, row in zip(rows, found.rows, strict=True)),
                # Nor before it was read: then the clock was put back, and nobody knows how old it is.
                *(copy.read_at_ms for copy in found.copies),
            ]
        ),
        until_ms=min(ready.until_ms for ready in rows),
        sure_until_ms=min((copy.sure_until_ms for copy in found.copies), default=NEVER_MS),
        is_told=all(copy.is_told for copy in found.copies),
        is_present=all(row.is_present for row in rows),
    )
