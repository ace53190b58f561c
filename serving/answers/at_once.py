"""Answers from this process alone: where it has copies of all rows, nobody has to be waited for."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast

from core.errors import RequestError
from core.ports import Clock
from serving.answers.entity_maker import EntityMaker, FoundRows, addresses, answer_of, not_good
from serving.answers.progress_board import ProgressBoard
from serving.answers.read_plans import EntityRead, ReadPlan
from serving.answers.ready import ReadyRows
from serving.answers.ready_entities import ReadyEntity
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
        self._copies = reader.copies
        self._progress = progress
        self._clock = clock
        self._entities = EntityMaker(ready, bytes_max=bytes_max)
        self._copies.watch(changed=self._entities.forget, cleared=self._entities.clear)

    def answer(
        self, plan: ReadPlan, entities: Mapping[str, Sequence[Any]], versions: Sequence[Mapping[str, Any]] | None
    ) -> bytes | None:
        """Return the body of an answer, or None if anything of it is not surely known here.

        Args:
            plan: Of the request; all of it comes from rows.
            entities: Key columns of the request.
            versions: Name and active version of each group, if the request asks for them.
        """
        if not all(self._copies.may_hold(group.terms) for group in plan.groups):
            return None
        now_ms, new, rows = self._clock.now_ms(), 0, 0
        found: list[list[ReadyEntity]] = []
        for read in plan.entities:
            keys = read.row_keys(entities)
            if keys is None:
                # Whoever encodes them says what is wrong.
                return None
            mine = self._entities.find(read, keys)
            missing = not_good(mine, now_ms=now_ms)
            if missing:
                made = self._find(read, keys, mine, missing, now_ms)
                if made is None or not self._entities.fill(read, keys, mine, made, now_ms=now_ms):
                    return None
                new += len(missing)
            rows += len(keys) * len(read.groups)
            found.append(cast("list[ReadyEntity]", mine))
        progress = self._progress.known({entity.address.place for mine in found for entity in mine})
        if progress is None:
            return None
        answer = answer_of(
            plan,
            entities,
            found,
            progress,
            hears=self._copies.hears(),
            now_ms=now_ms,
            new=new,
            versions=versions,
        )
        if answer is not None:
            self._reader.count_copies(rows)
        return answer

    def _find(
        self,
        read: EntityRead,
        keys: Sequence[Any],
        mine: Sequence[ReadyEntity | None],
        missing: Sequence[int],
        now_ms: int,
    ) -> dict[int, FoundRows] | None:
        """Return what is here of entities, or None if anything is not surely known.

        Args:
            read: Of which groups.
            keys: Values of the entities' key columns.
            mine: What was made of them before, of copies that may be good although a tile boundary has passed.
            missing: Places of those that are wanted.
            now_ms: The present.
        """
        sure = {
            number: entity
            for number in missing
            if (entity := mine[number]) is not None and entity.sure_until_ms >= now_ms
        }
        unsure = [keys[number] for number in missing if number not in sure]
        # Where one is not here many are not, and whoever asks the stores for them encodes all keys once more.
        first = self._look_up(read, unsure[:1], now_ms)
        others = self._look_up(read, unsure[1:], now_ms) if first is not None else None
        if first is None or others is None:
            return None
        found = chain(first, others)
        return {number: self._again(sure[number]) if number in sure else next(found) for number in missing}

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
            copies = self._copies.sure([address.keys[number] for address in places], now_ms=now_ms)
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
            self._copies.use(key, copy)
        return FoundRows(entity.address, [copy.row for copy in entity.copies], entity.copies)
