"""Answers from this process alone: where it has copies of all rows, nobody has to be waited for."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, cast

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


class AtOnce:
    """Answers reads of rows that are all copied here."""

    def __init__(self, *, reader: TieredReader, progress: ProgressBoard, clock: Clock, ready: ReadyRows) -> None:
        self._reader = reader
        self._progress = progress
        self._clock = clock
        self._ready = ready
        self._entities = ReadyEntities()
        reader.watch_copies(changed=self._entities.forget, cleared=self._entities.clear)

    def answer(
        self,
        plan: ReadPlan,
        entities: Mapping[str, Sequence[Any]],
        versions: Sequence[Mapping[str, Any]] | None,
    ) -> bytes | None:
        """Return the body of an answer, or None if anything of it is not surely known here.

        Args:
            plan: Of the request; all of it comes from rows.
            entities: Key columns of the request.
            versions: Name and active version of each group, if the request asks for them.
        """
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
        self._reader.count_copies(rows)
        return assemble_entities(
            plan,
            entities,
            found,
            instant_ms=instant_ms,
            min_as_of_ms=min(max(progress[entity.place], entity.as_of_ms) for mine in found for entity in mine),
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
        try:
            encoded = read.encode([keys[number] for number in missing])
        except RequestError:
            # Told with the row's number where all of them are encoded.
            return None
        pks = [partition_key(read.keys.entity, key) for key in encoded]
        copies, ready = [], []
        for group in read.groups:
            some = self._reader.copies(group.terms, [RowKey(pk, group.sk) for pk in pks], now_ms=now_ms)
            if some is None:
                return None
            copies.append(some)
        written = [copy.row.valid_from_ms for some in copies for copy in some if copy.row is not None]
        instant_ms = max([instant_ms, *written])
        for group, some in zip(read.groups, copies, strict=True):
            of_group = [RowKey(pk, group.sk) for pk in pks]
            ready.append(self._ready.get_all(group.plan, of_group, [copy.row for copy in some], instant_ms))
        partitions = read.groups[0].plan.group.entity.partitions
        for number, pk, key, of_copies, of_rows in zip(
            missing, pks, encoded, zip(*copies, strict=True), zip(*ready, strict=True), strict=True
        ):
            place = read.keys.entity, kafka_partition(key, partitions)
            entity = mine[number] = _entity(of_rows, of_copies, place, instant_ms)
            self._entities.keep(read, keys[number], pk, entity)
        # What was good may be none at a later instant.
        return len(missing) if _are_good(cast("list[ReadyEntity]", mine), now_ms) else None


def _entity(rows: Sequence[ReadyRow], copies: Sequence[Copy], place: tuple[str, int], instant_ms: int) -> ReadyEntity:
    stored = [copy.row for copy in copies]
    return ReadyEntity(
        rows,
        place,
        as_of_ms=min(row.as_of_ms if row is not None else 0 for row in stored),
        valid_from_ms=max(row.valid_from_ms if row is not None else 0 for row in stored),
        # A row that is over is served as none, but only from now on.
        from_ms=max(ready.from_ms if ready.row is row else instant_ms for ready, row in zip(rows, stored, strict=True)),
        until_ms=min(ready.until_ms for ready in rows),
        sure_until_ms=min(copy.sure_until_ms for copy in copies),
    )


def _are_good(entities: Sequence[ReadyEntity], now_ms: int) -> bool:
    return are_good(entities, instant_ms=_instant_ms(entities, now_ms), now_ms=now_ms)


def _instant_ms(entities: Sequence[ReadyEntity], now_ms: int) -> int:
    return max(now_ms, max(map(_valid_from, entities), default=0))
