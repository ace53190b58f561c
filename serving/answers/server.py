"""The feature server: from a request to an answer, one instant for all of it."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import Any, TypeAlias

from core.errors import RequestError
from core.keys import known_partition, partition_key
from core.plans import GroupPlan
from core.ports import Clock, RowKey
from core.rows import Row
from core.windows import to_ms
from serving.answers.assembly import assemble
from serving.answers.at_once import AtOnce
from serving.answers.progress_board import ProgressBoard
from serving.answers.read_plans import COMPUTED, FETCHED, ComputedRead, Planner, ReadPlan
from serving.answers.reads_log import ReadsLog
from serving.answers.ready import ReadyRow, ReadyRows, has_defaults
from serving.answers.ready_entities import BYTES_MAX
from serving.answers.requests import FeaturesRequest, check_request_columns, check_size
from serving.answers.same_again import EntitiesAsked, SameAgain
from serving.on_demand.functions import Computed, Functions, invalid, only_valid, with_invalid
from serving.statuses import INVALID, PRESENT
from serving.tiers.reader import CacheValues, TieredReader
from serving.tiers.wanted import Gaps, Wanted
from serving.turns import Turns

_Place: TypeAlias = tuple[str, int]
"""Entity and partition."""

_NO_GAPS = Gaps()
_BUDGET_S = 0.001
"""Of each turn of the loop, for answers that waited for stores; beyond that, those that come are refused meanwhile."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A request that is being answered.

    Attributes:
        keys: Per group of the plan, and per entity in it, where the row stands.
        places: The same for the partitions.
    """

    request: FeaturesRequest
    plan: ReadPlan
    keys: Sequence[Sequence[RowKey]]
    places: Sequence[Sequence[_Place]]


class FeatureServer:
    """Answers ``get-online-features``."""

    def __init__(
        self,
        *,
        planner: Planner,
        reader: TieredReader,
        progress: ProgressBoard,
        clock: Clock,
        empty_lists: bool = True,
        entities_bytes_max: int = BYTES_MAX,
        reads_log: ReadsLog | None = None,
        functions: Functions | None = None,
    ) -> None:
        self._planner = planner
        self._reader = reader
        self._progress = progress
        self._clock = clock
        self._ready = ReadyRows(empty_lists=empty_lists)
        self._at_once = AtOnce(
            reader=reader, progress=progress, clock=clock, ready=self._ready, bytes_max=entities_bytes_max
        )
        self._same_again = SameAgain(reader=reader, clock=clock, ready=self._ready)
        self._reads_log = reads_log
        self._functions = functions
        self._turns = Turns(budget_s=_BUDGET_S)

    @property
    def line(self) -> Turns:
        """Answers that have waited for stores and wait for their turn now."""
        return self._turns

    @property
    def always_waits(self) -> bool:
        """Whether every answer has to wait for a store: this process keeps no copies."""
        return not self._reader.copies.are_kept

    def waits_for_stores_alone(self, request: FeaturesRequest) -> bool:
        """Whether all of an answer comes from rows, and nothing of it from functions."""
        return self._plan_of(request).is_stored

    def answer(self, request: FeaturesRequest) -> bytes | Coroutine[Any, Any, bytes]:
        """Return the body of the answer in Feast's shape, at once where nothing has to be waited for.

        One result per key column and feature, one value per entity row.

        Raises:
            RequestError: The request cannot be answered as it is.
            StoreError: The record failed.
        """
        plan, reading = self._plan(request), None
        if self._reads_log is not None:
            reading = self._begin(request, plan)
            self._reads_log.reads(chain.from_iterable(reading.keys))
        if plan.entities:
            answered = self._at_once.answer(plan, request.entities, self._versions(request, plan))
            if answered is not None:
                return answered
            asked = self._same_again.begin(plan, request.entities)
            if asked is not None:
                places = {address.place for one in asked for address in one.addresses}
                return self._ask_cache(request, plan, asked, places, self._progress.known(places))
        reading = reading or self._begin(request, plan)
        # Before the rows: progress that is read after them may speak of events that they do not hold yet.
        return self._wait(reading, self._progress.known(_different(reading.places)))

    async def _ask_cache(
        self,
        request: FeaturesRequest,
        plan: ReadPlan,
        asked: Sequence[EntitiesAsked],
        places: Collection[_Place],
        progress: Mapping[_Place, int] | None,
    ) -> bytes:
        if progress is None:
            progress = await self._progress.as_of_ms(places)
        told = await self._reader.ask_cache([key for one in asked for key in one.keys])
        known, versions = progress, self._versions(request, plan)
        answered = await self._turns.result(
            lambda: self._same_again.answer(plan, request.entities, asked, told, known, versions)
        )
        if answered is not None:
            return answered
        return await self._wait(self._begin(request, plan), progress, told)

    async def _wait(
        self, reading: _Reading, progress: Mapping[_Place, int] | None, told: CacheValues | None = None
    ) -> bytes:
        if progress is None:
            progress = await self._progress.as_of_ms(_different(reading.places))
        if self._functions is None or reading.plan.is_stored:
            rows, gaps = await self._rows(reading, told)
            return await self._turns.result(lambda: self._finish(reading, rows, progress, gaps))
        (rows, gaps), fetched = await asyncio.gather(self._rows(reading), _fetch(self._functions, reading))
        ready, instant_ms = self._prepare(reading, rows, gaps)
        inputs = [_inputs(read, reading, ready, fetched) for read in reading.plan.computed]
        computed = await asyncio.gather(
            *(_compute(self._functions, read, given) for read, given in zip(reading.plan.computed, inputs, strict=True))
        )
        on_demand = {COMPUTED: computed, FETCHED: fetched}
        return self._assemble(reading, rows, progress, gaps, ready, on_demand, instant_ms=instant_ms)

    async def _rows(self, reading: _Reading, told: CacheValues | None = None) -> tuple[list[list[Row | None]], Gaps]:
        gaps = Gaps(known_at=self._progress.answered_at(_different(reading.places)))
        wanted = _wanted(reading)
        rows = await self._reader.read(wanted, told=told, gaps=gaps)
        if gaps.why is not None and len(gaps.unread) == len(wanted) and not reading.plan.has_more_than_rows:
            # Nothing at all is known.
            raise gaps.why
        return [[rows.get(key) for key in keys] for keys in reading.keys], gaps

    def _plan_of(self, request: FeaturesRequest) -> ReadPlan:
        return self._planner.plan(
            features=request.features, service=request.feature_service, full_names=request.full_feature_names
        )

    def _plan(self, request: FeaturesRequest) -> ReadPlan:
        plan = self._plan_of(request)
        if not plan.is_stored and self._functions is None:
            raise RequestError(
                404, "features: what is made on demand is answered by workers of the roles ondemand and all alone"
            )  # fmt: skip
        check_size(rows=len(next(iter(request.entities.values()))), features=len(plan.names))
        for computed in plan.computed:
            check_request_columns(computed.feature.request, request.entities, what=computed.feature.name)
        for fetched in plan.fetched:
            # Encoded for its checks: a function must not be asked about keys that are none.
            fetched.keys.encode(request.entities)
        return plan

    def _begin(self, request: FeaturesRequest, plan: ReadPlan) -> _Reading:
        pks: dict[str, list[str]] = {}
        places: dict[str, list[_Place]] = {}
        for read in plan.groups:
            entity, partitions = read.keys.entity, read.plan.group.entity.partitions
            if entity not in pks:
                encoded = read.keys.encode(request.entities)
                pks[entity] = [partition_key(entity, key) for key in encoded]
                places[entity] = [(entity, known_partition(key, partitions)) for key in encoded]
        return _Reading(
            request,
            plan,
            [list(map(_row_key, zip(pks[read.keys.entity], repeat(read.sk), strict=False))) for read in plan.groups],
            [places[read.keys.entity] for read in plan.groups],
        )

    def _finish(
        self,
        reading: _Reading,
        rows: Sequence[Sequence[Row | None]],
        progress: Mapping[_Place, int],
        gaps: Gaps = _NO_GAPS,
    ) -> bytes:
        ready, instant_ms = self._prepare(reading, rows, gaps)
        return self._assemble(reading, rows, progress, gaps, ready, {}, instant_ms=instant_ms)

    def _prepare(
        self, reading: _Reading, rows: Sequence[Sequence[Row | None]], gaps: Gaps
    ) -> tuple[list[list[ReadyRow]], int]:
        """Return what is served of each row, and the answer's instant."""
        written = [max([row.valid_from_ms for row in group if row is not None], default=0) for group in rows]
        instant_ms = max([self._clock.now_ms(), *written])
        ready = [
            self._ready.get_all(read.plan, keys, group, instant_ms)
            for read, keys, group in zip(reading.plan.groups, reading.keys, rows, strict=True)
        ]
        if gaps.unread:
            for read, keys, group in zip(reading.plan.groups, reading.keys, ready, strict=True):
                group[:] = [
                    self._ready.unread(read.plan) if key in gaps.unread else row
                    for key, row in zip(keys, group, strict=True)
                ]
        return ready, instant_ms

    def _assemble(
        self,
        reading: _Reading,
        rows: Sequence[Sequence[Row | None]],
        progress: Mapping[_Place, int],
        gaps: Gaps,
        ready: Sequence[Sequence[ReadyRow]],
        on_demand: Mapping[int, Sequence[Computed]],
        *,
        instant_ms: int,
    ) -> bytes:
        plan, untold = reading.plan, gaps.untold
        return assemble(
            plan,
            reading.request.entities,
            ready,
            on_demand,
            instant_ms=instant_ms,
            # Nothing is known of a row that could not be read, nor up to when.
            min_as_of_ms=0 if gaps.unread else _min_as_of_ms(reading, rows, progress, untold, instant_ms=instant_ms),
            unread=_groups_of(reading, gaps.unread),
            defaults=_groups_of(reading, gaps.unread, has_defaults),
            old=_groups_of(reading, gaps.old),
            versions=self._versions(reading.request, plan),
        )

    def _versions(self, request: FeaturesRequest, plan: ReadPlan) -> list[dict[str, Any]] | None:
        if not request.include_feature_view_version_metadata:
            return None
        names = [read.plan.name for read in plan.groups]
        return [{"name": name, "version": self._planner.version(name)} for name in names]


def _groups_of(
    reading: _Reading, rows: Collection[RowKey], counts: Callable[[GroupPlan], bool] = lambda _: True
) -> list[str]:
    """Return the names of the groups that any of some rows is of, of those that count."""
    if not rows:
        return []
    return [
        read.plan.name
        for read, keys in zip(reading.plan.groups, reading.keys, strict=True)
        if counts(read.plan) and not set(keys).isdisjoint(rows)
    ]


async def _fetch(functions: Functions, reading: _Reading) -> list[Computed]:
    """Return the columns that sources are asked for, in the plan's order."""
    entities = reading.request.entities
    sources = await asyncio.gather(
        *(
            functions.fetch(
                read.source,
                {name: entities[name] for name in read.keys.columns},
                deadline_ms=to_ms(read.source.deadline),
            )
            for read in reading.plan.fetched
        )
    )
    return [columns[name] for read, columns in zip(reading.plan.fetched, sources, strict=True) for name in read.names]


def _inputs(
    read: ComputedRead, reading: _Reading, ready: Sequence[Sequence[ReadyRow]], fetched: Sequence[Computed]
) -> dict[str, Computed]:
    """Return what an on-demand feature is given: what would be served of its inputs, and columns of the request."""
    columns = {}
    for name in read.feature.request:
        values = reading.request.entities[name]
        columns[name] = Computed(values, [PRESENT] * len(values))
    for name, (group, number) in read.inputs.items():
        if group == FETCHED:
            columns[name] = fetched[number]
            continue
        place = reading.plan.groups[group].places[number]
        columns[name] = Computed(
            [row.values[place] for row in ready[group]], [row.statuses[place] for row in ready[group]]
        )
    return columns


async def _compute(functions: Functions, read: ComputedRead, inputs: Mapping[str, Computed]) -> Computed:
    """Return an on-demand feature's column; where an input is no value, nor is what would be made of it."""
    is_valid = [INVALID not in statuses for statuses in zip(*(one.statuses for one in inputs.values()), strict=True)]
    columns = {name: one.values for name, one in inputs.items()}
    if not all(is_valid):
        columns = only_valid(columns, is_valid)
    if not any(is_valid):
        return invalid(len(is_valid))
    computed = await functions.compute(read.group.name, read.feature, columns, deadline_ms=to_ms(read.group.deadline))
    return computed if all(is_valid) else with_invalid(computed, is_valid)


_row_key: Callable[[tuple[str, str]], RowKey] = partial(tuple.__new__, RowKey)
"""Makes a ``RowKey`` of a pair in half of the time that its own way takes: an answer may need thousands."""


def _different(places: Sequence[Sequence[_Place]]) -> set[_Place]:
    return set().union(*places)


def _wanted(reading: _Reading) -> list[Wanted]:
    return [
        Wanted(key, read.terms)
        for read, keys in zip(reading.plan.groups, reading.keys, strict=True)
        for key in dict.fromkeys(keys)
    ]


def _min_as_of_ms(
    reading: _Reading,
    rows: Sequence[Sequence[Row | None]],
    progress: Mapping[_Place, int],
    untold: Collection[RowKey],
    *,
    instant_ms: int,
) -> int:
    """Return up to when every row of the answer is known to be complete: up to its instant, if there is none."""
    complete = []
    known: list[int] = []
    before: Sequence[_Place] | None = None
    for keys, group, own in zip(reading.keys, rows, reading.places, strict=True):
        if own is not before:
            # Groups of one entity share their places.
            known, before = [progress[place] for place in own], own
        as_of_ms = [row.as_of_ms if row is not None else 0 for row in group]
        told = [0 if key in untold else ms for key, ms in zip(keys, known, strict=True)] if untold else known
        complete.append(min(map(max, told, as_of_ms)))
    return min(complete, default=instant_ms)
