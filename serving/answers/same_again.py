"""Answers from the cache: what it has of an entity is mostly what it had before, and then nothing is made once more.

Every row is read; what is saved is to decode it, to prepare it and to write it as JSON. This is for groups of which the
process keeps no copies (``serving.answers.at_once``): each reader gets what the cache has at that moment.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

from core.errors import RequestError
from core.ports import Clock, RowKey
from core.rows import Row
from serving.answers.entity_maker import EntityMaker, FoundRows, addresses, answer_of, not_good
from serving.answers.read_plans import EntityRead, ReadPlan
from serving.answers.ready import ReadyRows
from serving.answers.ready_entities import BYTES_MAX, Address, ReadyEntity
from serving.tiers.reader import CacheValues, TieredReader
from serving.tiers.wanted import Wanted


@dataclass(frozen=True, slots=True)
class EntitiesAsked:
    """What is asked of one entity.

    Attributes:
        read: The shape.
        row_keys: Per row of the request, the values of its key columns.
        addresses: Per row of the request.
        different: The same, each once.
    """

    read: EntityRead
    row_keys: Sequence[Any]
    addresses: Sequence[Address]
    different: Collection[Address]

    @property
    def keys(self) -> Iterator[RowKey]:
        """All rows that are asked for, each once."""
        return chain.from_iterable(address.keys for address in self.different)


class SameAgain:
    """Answers reads of rows that all come from the cache."""

    def __init__(self, *, reader: TieredReader, clock: Clock, ready: ReadyRows, bytes_max: int = BYTES_MAX) -> None:
        """Remember nothing yet.

        Args:
            reader: Knows which rows the bytes of the cache are.
            clock: Tells the instant.
            ready: Prepares rows.
            bytes_max: Of what is remembered of entities.
        """
        self._reader = reader
        self._clock = clock
        self._entities = EntityMaker(ready, bytes_max=bytes_max)
        reader.watch_versions(self._entities.forget)

    def begin(self, plan: ReadPlan, entities: Mapping[str, Sequence[Any]]) -> list[EntitiesAsked] | None:
        """Return what the cache is to be asked for, or None where it alone cannot answer, or a key is none."""
        if not all(self._reader.only_cached(group.terms) for group in plan.groups):
            return None
        asked = []
        for read in plan.entities:
            keys = read.row_keys(entities)
            if keys is None:
                return None
            known = self._entities.find(read, keys)
            unknown = [key for key, entity in zip(keys, known, strict=True) if entity is None]
            try:
                new = iter(addresses(read, unknown)) if unknown else iter(())
            except RequestError:
                # Told with the row's number where all of them are encoded.
                return None
            places = [entity.address if entity is not None else next(new) for entity in known]
            asked.append(EntitiesAsked(read, keys, places, dict(zip(keys, places, strict=True)).values()))
        return asked

    def answer(
        self,
        plan: ReadPlan,
        entities: Mapping[str, Sequence[Any]],
        asked: Sequence[EntitiesAsked],
        told: CacheValues,
        progress: Mapping[tuple[str, int], int],
        versions: Sequence[Mapping[str, Any]] | None,
    ) -> bytes | None:
        """Return the body of an answer, or None if the cache does not tell all of it.

        Args:
            plan: Of the request; all of it comes from rows.
            entities: Key columns of the request.
            asked: What ``begin`` said.
            told: What the cache said.
            progress: Of the entities' partitions, from before it was asked.
            versions: Name and active version of each group, if the request asks for them.
        """
        if told.values is None:
            return None
        now_ms, new, rows = self._clock.now_ms(), 0, 0
        found: list[list[ReadyEntity]] = []
        for one in asked:
            mine = self._same(one, told.values)
            missing = not_good(mine, now_ms=now_ms)
            if missing:
                made = self._find(one, missing, told)
                if made is None or not self._entities.fill(one.read, one.row_keys, mine, made, now_ms=now_ms):
                    return None
                new += len(missing)
            rows += len(one.different) * len(one.read.groups)
            found.append(cast("list[ReadyEntity]", mine))
        # The cache was asked after the progress was read, so nothing that it tells of is missing in the rows.
        answer = answer_of(plan, entities, found, progress, hears=True, now_ms=now_ms, new=new, versions=versions)
        if answer is not None:
            self._reader.count_cached(rows, (want for one in asked for want in _wanted(one.read, one.different)))
        return answer

    def _same(self, asked: EntitiesAsked, values: Mapping[RowKey, bytes]) -> list[ReadyEntity | None]:
        """Return the entities of which the cache has what it had; others have served nothing newer of them since."""
        get = values.get
        return [
            entity if entity is not None and entity.packed == tuple(map(get, entity.address.keys)) else None
            for entity in self._entities.find(asked.read, asked.row_keys)
        ]

    def _find(self, asked: EntitiesAsked, missing: Sequence[int], told: CacheValues) -> dict[int, FoundRows] | None:
        """Return the rows of some entities, or None if the cache does not tell all of them."""
        places = [asked.addresses[number] for number in missing]
        rows = self._reader.known(list(_wanted(asked.read, places)), told)
        values = told.values or {}
        found: dict[int, FoundRows] = {}
        for number, address in zip(missing, places, strict=True):
            mine: list[Row | None] = []
            for key in address.keys:
                if key not in rows:
                    return None
                mine.append(rows[key])
            found[number] = FoundRows(address, mine, packed=tuple(values[key] for key in address.keys))
        return found


def _wanted(read: EntityRead, places: Iterable[Address]) -> "chain[Wanted]":
    return chain.from_iterable(
        [Wanted(key, group.terms) for key, group in zip(address.keys, read.groups, strict=True)] for address in places
    )
