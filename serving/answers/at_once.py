"""Answers from this process alone: where it has copies of all rows, nobody has to be waited for."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from core.errors import RequestError
from core.ports import Clock
from serving.answers.entity_maker import EntityMaker, FoundRows, addresses, all_good, answer_of, instant_ms
from serving.answers.progress_board import ProgressBoard
from serving.answers.read_plans import EntityRead, ReadPlan
from serving.answers.ready import ReadyRows
from serving.answers.ready_entities import ReadyEntity, are_good
from serving.tiers.reader import TieredReader


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
        self._entities = EntityMaker(ready, bytes_max=bytes_max)
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
            if None in mine or not all_good(cast("list[ReadyEntity]", mine), now_ms=now_ms):
                made = self._make(read, keys, mine, now_ms)
                if made is None:
                    return None
                new += made
            rows += len(keys) * len(read.groups)
            found.append(cast("list[ReadyEntity]", mine))
        progress = self._progress.known({entity.address.place for mine in found for entity in mine})
        if progress is None:
            return None
        answer = answer_of(
            plan, entities, found, progress, hears=self._reader.hears(), now_ms=now_ms, new=new, versions=versions
        )
        if answer is not None:
            self._reader.count_copies(rows)
        return answer

    def _make(self, read: EntityRead, keys: Sequence[Any], mine: list[ReadyEntity | None], now_ms: int) -> int | None:
        """Put what is missing into a list, and what is good no more; return how many, or None if a copy is missing."""
        instant = instant_ms([entity for entity in mine if entity is not None], now_ms)
        missing = [
            number
            for number, entity in enumerate(mine)
            if entity is None or not are_good((entity,), instant_ms=instant, now_ms=now_ms)
        ]
        found = self._find(read, [keys[number] for number in missing], [mine[number] for number in missing], now_ms)
        if found is None:
            return None
        rows = dict(zip(missing, found, strict=True))
        return len(missing) if self._entities.fill(read, keys, mine, rows, now_ms=now_ms) else None

    def _find(
        self, read: EntityRead, keys: Sequence[Any], known: Sequence[ReadyEntity | None], now_ms: int
    ) -> list[FoundRows] | None:
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
            self._again(entity) if entity is not None and entity.sure_until_ms >= now_ms else next(found)
            for entity in known
        ]

    def _look_up(self, read: EntityRead, keys: Sequence[Any], now_ms: int) -> list[FoundRows] | None:
        if not keys:
            return []
        try:
            places = addresses(read, keys)
        except RequestError:
            # Told with the row's number where all of them are encoded.
            return None
        by_group = []
        for number in range(len(read.groups)):
            copies = self._reader.copies([address.keys[number] for address in places], now_ms=now_ms)
            if copies is None:
                return None
            by_group.append(copies)
        return [
            FoundRows(address, [copy.row for copy in copies], copies)
            for address, copies in zip(places, zip(*by_group, strict=True), strict=True)
        ]

    def _again(self, entity: ReadyEntity) -> FoundRows:
        """Return an entity's copies once more; as nobody has looked them up, they would seem to be of no use."""
        for key, copy in zip(entity.address.keys, entity.copies, strict=True):
            self._reader.use_copy(key, copy)
        return FoundRows(entity.address, [copy.row for copy in entity.copies], entity.copies)
