"""Answers from this process alone: where it has copies of all rows, nobody has to be waited for."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, cast

from core.errors import RequestError
from core.keys import kafka_partition, partition_key
from core.ports import Clock, RowKey
from serving.assembly import assemble_entities
from serving.local import Copy
from serving.progress_board import ProgressBoard
from serving.read_plans import EntityRead, ReadPlan
from serving.ready import ReadyRow, ReadyRows
from serving.ready_entities import ReadyEntities, ReadyEntity, are_good
from serving.tiers import TieredReader

_NEW_SHARE = 4
"""Where more than one in so many is new, their values are prepared together: they may never be asked for again."""
_valid_from = attrgetter("valid_from_ms")


class _Found(NamedTuple):
    """One entity as far as it is here.

    Attributes:
        encoded: Its key.
        copies: Per group, of its row.
    """

    encoded: str
    copies: Sequence[Copy]


class AtOnce:
    """Answers reads of rows that are all copied here."""

    def __init__(
        self, *, reader: TieredReader, progress: ProgressBoard, clock: Clock, ready: ReadyRows, bytes_max: int
    ) -> None:
        """Remember nothing yet.

        Args:
            reader: Has the copies.
            progress: Of the partitions.
            clock: Tells the instant.
            ready: Prepares rows.
            bytes_max: Of what is remembered of entities.
        """
        self._reader = reader
        self._progress = progress
        self._clock = clock
        self._ready = ready
        self._entities = ReadyEntities(bytes_max=bytes_max)
        reader.watch_copies(changed=self._entities.forget, cleared=self._entities.clear)

    def answer(
        self, plan: ReadPlan, entities: Mapping[str, Sequence[Any]], versions: Sequence[Mapping[str, Any]] | None
    ) -> bytes | None:
        """Return the body of an answer, or None if anything of it is not surely known here.

        Args:
            plan: Of the request; all of it comes from rows.
            entities: Key columns of the request.
            versions: Name and active version of each group, if the request asks for them.
        """
        if not all(self._reader.may_copy(group.terms) for group in plan.groups):
            return None
        now_ms, new, rows = self._clock.now_ms(), 0, 0
        found: list[list[ReadyEntity]] = []
        for read in plan.entities:
            keys = read.row_keys(entities)
            if keys is None:
                # Whoever encodes them says what is wrong.
                return None
            mine = self._entities.find(read, keys)
            if None in mine or not _are_good(cast("list[ReadyEntity]", mine), now_ms):
                made = self._make(read, keys, mine, now_ms)
                if made is None:
                    return None
                new += made
            rows += len(keys) * len(read.groups)
            found.append(cast("list[ReadyEntity]", mine))
        instant_ms = max(_instant_ms(mine, now_ms) for mine in found)
        if len(found) > 1 and not all(are_good(mine, instant_ms=instant_ms, now_ms=now_ms) for mine in found):
            # A row of one entity that is newer than our clock makes what we have of another too old.
            return None
        progress = self._progress.known({entity.place for mine in found for entity in mine})
        if progress is None:
            return None
        hears = self._reader.hears()
        self._reader.count_copies(rows)
        return assemble_entities(
            plan,
            entities,
            found,
            instant_ms=instant_ms,
            min_as_of_ms=min(
                max(progress[entity.place], entity.as_of_ms) if hears and entity.is_told else entity.as_of_ms
                for mine in found
                for entity in mine
            ),
            versions=versions,
            are_new=new * _NEW_SHARE > sum(map(len, found)),
        )

    def _make(self, read: EntityRead, keys: Sequence[Any], mine: list[ReadyEntity | None], now_ms: int) -> int | None:
        """Put what is missing into a list, and what is good no more; return how many, or None if a copy is missing."""
        instant_ms = _instant_ms([entity for entity in mine if entity is not None], now_ms)
        missing = [
            number
            for number, entity in enumerate(mine)
            if entity is None or not are_good((entity,), instant_ms=instant_ms, now_ms=now_ms)
        ]
        found = self._find(read, [keys[number] for number in missing], [mine[number] for number in missing], now_ms)
        if found is None:
            return None
        written = [copy.row.valid_from_ms for one in found for copy in one.copies if copy.row is not None]
        instant_ms = max([instant_ms, *written])
        pks = [partition_key(read.keys.entity, one.encoded) for one in found]
        by_group = [
            self._ready.get_all(
                group.plan,
                [RowKey(pk, group.sk) for pk in pks],
                [one.copies[place].row for one in found],
                instant_ms,
            )
            for place, group in enumerate(read.groups)
        ]
        partitions = read.groups[0].plan.group.entity.partitions
        for number, pk, one, rows in zip(missing, pks, found, zip(*by_group, strict=True), strict=True):
            place = read.keys.entity, kafka_partition(one.encoded, partitions)
            entity = mine[number] = _entity(rows, one, place, instant_ms)
            self._entities.keep(read, keys[number], pk, entity)
        # What was good may be none at a later instant.
        return len(missing) if _are_good(cast("list[ReadyEntity]", mine), now_ms) else None

    def _find(
        self, read: EntityRead, keys: Sequence[Any], known: Sequence[ReadyEntity | None], now_ms: int
    ) -> list[_Found] | None:
        """Return what is here of entities, or None if anything is not surely known.

        Args:
            read: Of which groups.
            keys: Values of the entities' key columns.
            known: What was made of them before, of copies that may be good although a tile boundary has passed.
            now_ms: The present.
        """
        unsure = [number for number, entity in enumerate(known) if entity is None or entity.sure_until_ms < now_ms]
        # Where one is not here many are not, and whoever asks the stores for them encodes all keys once more.
        if unsure and self._look_up(read, [keys[unsure[0]]], now_ms) is None:
            return None
        looked_up = self._look_up(read, [keys[number] for number in unsure], now_ms)
        if looked_up is None:
            return None
        found = iter(looked_up)
        return [
            self._again(read, entity) if entity is not None and entity.sure_until_ms >= now_ms else next(found)
            for entity in known
        ]

    def _look_up(self, read: EntityRead, keys: Sequence[Any], now_ms: int) -> list[_Found] | None:
        if not keys:
            return []
        try:
            encoded = read.encode(keys)
        except RequestError:
            # Told with the row's number where all of them are encoded.
            return None
        pks = [partition_key(read.keys.entity, key) for key in encoded]
        by_group = []
        for group in read.groups:
            copies = self._reader.copies([RowKey(pk, group.sk) for pk in pks], now_ms=now_ms)
            if copies is None:
                return None
            by_group.append(copies)
        return list(map(_Found, encoded, zip(*by_group, strict=True)))

    def _again(self, read: EntityRead, entity: ReadyEntity) -> _Found:
        """Return an entity's copies once more; as nobody has looked them up, they would seem to be of no use."""
        for group, copy in zip(read.groups, entity.copies, strict=True):
            self._reader.use_copy(RowKey(partition_key(read.keys.entity, entity.encoded), group.sk), copy)
        return _Found(entity.encoded, entity.copies)


def _entity(rows: Sequence[ReadyRow], found: _Found, place: tuple[str, int], instant_ms: int) -> ReadyEntity:
    stored = [copy.row for copy in found.copies]
    return ReadyEntity(
        found.encoded,
        rows,
        found.copies,
        place,
        as_of_ms=min(row.as_of_ms if row is not None else 0 for row in stored),
        valid_from_ms=max(row.valid_from_ms if row is not None else 0 for row in stored),
        # A row that is over is served as none, but only from now on.
        from_ms=max(ready.from_ms if ready.row is row else instant_ms for ready, row in zip(rows, stored, strict=True)),
        until_ms=min(ready.until_ms for ready in rows),
        sure_until_ms=min(copy.sure_until_ms for copy in found.copies),
        is_told=all(copy.is_told for copy in found.copies),
    )


def _are_good(entities: Sequence[ReadyEntity], now_ms: int) -> bool:
    return are_good(entities, instant_ms=_instant_ms(entities, now_ms), now_ms=now_ms)


def _instant_ms(entities: Sequence[ReadyEntity], now_ms: int) -> int:
    return max(now_ms, max(map(_valid_from, entities), default=0))
