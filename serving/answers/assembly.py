"""Assembly: an answer in Feast's shape, as JSON, from pieces that are prepared. Pure.

Feast answers by columns: per feature its values, their statuses and event times, one for each entity. Statuses and
times are mostly the same in all columns of a group, so they are written once and repeated as bytes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeVar

import orjson

from serving.answers.read_plans import EntityRead, ReadPlan
from serving.answers.ready import EPOCH, ReadyRow
from serving.answers.ready_entities import ReadyEntity
from serving.on_demand.functions import Computed
from serving.statuses import PRESENT

T = TypeVar("T")

_LENGTHS_MAX = 1_000
_values, _event_time, _is_present = attrgetter("values"), attrgetter("event_time"), attrgetter("is_present")


def assemble(
    plan: ReadPlan,
    entities: Mapping[str, Sequence[Any]],
    ready: Sequence[Sequence[ReadyRow]],
    on_demand: Mapping[int, Sequence[Computed]] = MappingProxyType({}),
    *,
    instant_ms: int,
    min_as_of_ms: int,
    versions: Sequence[Mapping[str, Any]] | None,
    unread: Sequence[str] = (),
    defaults: Sequence[str] = (),
    old: Sequence[str] = (),
) -> bytes:
    """Return the answer's body.

    Args:
        plan: Of the request.
        entities: Key columns of the request.
        ready: Per group of the plan, and per entity in it, what is served.
        on_demand: By ``COMPUTED`` and ``FETCHED``, the columns of the plan that are no row's.
        instant_ms: The answer's instant.
        min_as_of_ms: Up to when every row is known to be complete.
        versions: Name and active version of each group, if the request asks for them.
        unread: Names of groups of which rows could not be read.
        defaults: Those of them whose defaults are served for these.
        old: Names of groups of which old copies are served.
    """
    metadata: dict[str, Any] = {}
    if versions is not None:
        metadata["feature_view_metadata"] = versions
    if unread:
        metadata["unread"] = unread
    if defaults:
        metadata["defaults"] = defaults
    if old:
        metadata["old"] = old
    # Most answers have nothing on demand, and these are the fast ones.
    if on_demand:
        results = _mixed(plan, ready, on_demand)
    else:
        results = _cells(plan, ready) if len(next(iter(entities.values()))) == 1 else _columns(plan, ready)
    return _body(plan, entities, _listed(results), metadata, instant_ms=instant_ms, min_as_of_ms=min_as_of_ms)


def assemble_entities(
    plan: ReadPlan,
    entities: Mapping[str, Sequence[Any]],
    ready: Sequence[Sequence[ReadyEntity]],
    *,
    instant_ms: int,
    min_as_of_ms: int,
    versions: Sequence[Mapping[str, Any]] | None,
    are_new: bool,
) -> bytes:
    """Return the body of an answer that comes from rows alone.

    Args:
        plan: Of the request.
        entities: Key columns of the request.
        ready: Per entity of the plan, and per row of the request, what is served.
        instant_ms: The answer's instant.
        min_as_of_ms: Up to when every row is known to be complete.
        versions: Name and active version of each group, if the request asks for them.
        are_new: Whether so many were made just now that preparing their values one by one does not pay.
    """
    answered = list(zip(plan.entities, ready, strict=True))
    parts: Iterable[bytes]
    if len(next(iter(entities.values()))) == 1:
        parts = _listed(_placed(plan, [mine[0].cells(read) for read, mine in answered]))
    else:
        columns = [_entity_columns(read, mine, are_new=are_new) for read, mine in answered]
        parts = chain.from_iterable(_placed(plan, columns))
    metadata = {"feature_view_metadata": versions} if versions is not None else {}
    return _body(plan, entities, parts, metadata, instant_ms=instant_ms, min_as_of_ms=min_as_of_ms)


def _placed(plan: ReadPlan, columns: Sequence[Iterable[T]]) -> list[T]:
    """Return columns of a plan's entities in the order of the plan."""
    if len(columns) == 1:
        return list(columns[0])
    by_place: dict[int, T] = {}
    for read, mine in zip(plan.entities, columns, strict=True):
        by_place.update(zip(read.columns, mine, strict=True))
    return [by_place[place] for place in range(len(plan.order))]


def _listed(results: Iterable[bytes]) -> tuple[bytes, bytes]:
    return b",", b",".join(results)


def _body(
    plan: ReadPlan,
    entities: Mapping[str, Sequence[Any]],
    results: Iterable[bytes],
    more: Mapping[str, Any],
    *,
    instant_ms: int,
    min_as_of_ms: int,
) -> bytes:
    """Return an answer: all of a large one is copied once, here, so its results come in pieces, each after a comma."""
    head = {"feature_names": plan.feature_names, "instant_ms": instant_ms, "min_as_of_ms": min_as_of_ms, **more}
    keys = b",".join(_key_result(entities[name]) for name in plan.key_columns)
    return b"".join((b'{"metadata":', orjson.dumps(head), b',"results":[', keys, *results, b"]}"))


def _key_result(values: Sequence[Any]) -> bytes:
    return b"".join((b'{"values":', orjson.dumps(values), _same(len(values), PRESENT), _epochs(len(values))))


def _cells(plan: ReadPlan, ready: Sequence[Sequence[ReadyRow]]) -> list[bytes]:
    return [ready[group][0].cell(plan.groups[group].places[place]) for group, place in plan.order]


def _columns(plan: ReadPlan, ready: Sequence[Sequence[ReadyRow]]) -> list[bytes]:
    groups = [_GroupColumns(rows) for rows in ready]
    return [groups[group].column(plan.groups[group].places[place]) for group, place in plan.order]


def _entity_columns(read: EntityRead, ready: Sequence[ReadyEntity], *, are_new: bool) -> Iterator[tuple[bytes, ...]]:
    """Yield the results of an entity's features, each in pieces, after a comma."""
    rows = zip(*[entity.rows for entity in ready], strict=True)
    if are_new:
        groups = [_GroupColumns(mine) for mine in rows]
        for group, place in read.features:
            yield b",", groups[group].column(place)
        return
    are_present = all(map(_is_present, ready))
    times = zip(*[entity.event_times() for entity in ready], strict=True)
    groups = [
        _GroupColumns(mine, times=b"[%b]" % b",".join(written), are_present=are_present)
        for mine, written in zip(rows, times, strict=True)
    ]
    values = zip(*[entity.values(read) for entity in ready], strict=True)
    for (group, place), column in zip(read.features, values, strict=True):
        yield b',{"values":[', b",".join(column), b"]", groups[group].end(place)


def _mixed(
    plan: ReadPlan, ready: Sequence[Sequence[ReadyRow]], on_demand: Mapping[int, Sequence[Computed]]
) -> list[bytes]:
    groups = [_GroupColumns(rows) for rows in ready]
    return [
        _on_demand_result(on_demand[group][place])
        if group in on_demand
        else groups[group].column(plan.groups[group].places[place])
        for group, place in plan.order
    ]


def _on_demand_result(column: Computed) -> bytes:
    times = _epochs(len(column.values))
    return b"".join((b'{"values":', orjson.dumps(column.values), _statuses(column.statuses), times))


class _GroupColumns:
    """The columns of one group."""

    def __init__(self, rows: Sequence[ReadyRow], *, times: bytes | None = None, are_present: bool = False) -> None:
        """Write what all columns have in common.

        Args:
            rows: What is served, per row of the request.
            times: Event times of the rows, if they are written already.
            are_present: Whether every value is known to be there.
        """
        self._rows = rows
        self._values: list[tuple[Any, ...]] | None = None
        self._times = _times(times if times is not None else orjson.dumps(list(map(_event_time, rows))))
        are_present = are_present or all(map(_is_present, rows))
        self._statuses = None if are_present else list(zip(*(row.statuses for row in rows), strict=True))
        self._end = _same(len(rows), PRESENT) + self._times if are_present else b""

    def column(self, place: int) -> bytes:
        """Return the result of one feature."""
        if self._values is None:
            self._values = list(zip(*map(_values, self._rows), strict=True))
        return b"".join((b'{"values":', orjson.dumps(self._values[place]), self.end(place)))

    def end(self, place: int) -> bytes:
        """Return what comes after the values of one feature."""
        return self._end if self._statuses is None else _statuses(self._statuses[place]) + self._times


@lru_cache(maxsize=_LENGTHS_MAX)
def _same(length: int, status: str) -> bytes:
    return _statuses([status] * length)


@lru_cache(maxsize=_LENGTHS_MAX)
def _epochs(length: int) -> bytes:
    return _times(orjson.dumps([EPOCH] * length))


def _statuses(statuses: Sequence[str]) -> bytes:
    return b',"statuses":' + orjson.dumps(statuses)


def _times(times: bytes) -> bytes:
    return b',"event_timestamps":%b}' % times
