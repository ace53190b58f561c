"""Assembly: an answer in Feast's shape, as JSON, from pieces that are prepared. Pure.

Feast answers by columns: per feature its values, their statuses and event times, one for each entity. Statuses and
times are mostly the same in all columns of a group, so they are written once and repeated as bytes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import orjson

from serving.answers.read_plans import EntityRead, ReadPlan
from serving.answers.ready import EPOCH, ReadyRow
from serving.answers.ready_entities import ReadyEntity
from serving.on_demand.functions import Computed
from serving.statuses import PRESENT

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
    return _body(plan, entities, results, metadata, instant_ms=instant_ms, min_as_of_ms=min_as_of_ms)


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
    is_single = len(next(iter(entities.values()))) == 1
    results = [b""] * len(plan.order)
    for read, mine in zip(plan.entities, ready, strict=True):
        if is_single:
            columns: Iterable[bytes] = mine[0].cells(read)
        else:
            columns = _entity_columns(read, mine, are_new=are_new)
        for column, result in zip(read.columns, columns, strict=True):
            results[column] = result
    metadata = {"feature_view_metadata": versions} if versions is not None else {}
    return _body(plan, entities, results, metadata, instant_ms=instant_ms, min_as_of_ms=min_as_of_ms)


def _body(
    plan: ReadPlan,
    entities: Mapping[str, Sequence[Any]],
    results: Sequence[bytes],
    more: Mapping[str, Any],
    *,
    instant_ms: int,
    min_as_of_ms: int,
) -> bytes:
    head = {"feature_names": plan.feature_names, "instant_ms": instant_ms, "min_as_of_ms": min_as_of_ms, **more}
    keys = [_key_result(entities[name]) for name in plan.key_columns]
    return b"".join((b'{"metadata":', orjson.dumps(head), b',"results":[', b",".join((*keys, *results)), b"]}"))


def _key_result(values: Sequence[Any]) -> bytes:
    return b"".join((b'{"values":', orjson.dumps(values), _same(len(values), PRESENT), _times([EPOCH] * len(values))))


def _cells(plan: ReadPlan, ready: Sequence[Sequence[ReadyRow]]) -> list[bytes]:
    return [ready[group][0].cell(plan.groups[group].places[place]) for group, place in plan.order]


def _columns(plan: ReadPlan, ready: Sequence[Sequence[ReadyRow]]) -> list[bytes]:
    groups = [_GroupColumns(rows) for rows in ready]
    return [groups[group].column(plan.groups[group].places[place]) for group, place in plan.order]


def _entity_columns(read: EntityRead, ready: Sequence[ReadyEntity], *, are_new: bool) -> Iterator[bytes]:
    groups = [_GroupColumns(rows) for rows in zip(*[entity.rows for entity in ready], strict=True)]
    if are_new:
        for group, place in read.features:
            yield groups[group].column(place)
        return
    values = zip(*[entity.values(read) for entity in ready], strict=True)
    for (group, place), column in zip(read.features, values, strict=True):
        yield groups[group].of(place, b"[%b]" % b",".join(column))


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
    times = _times([EPOCH] * len(column.values))
    return b"".join((b'{"values":', orjson.dumps(column.values), _statuses(column.statuses), times))


class _GroupColumns:
    """The columns of one group."""

    def __init__(self, rows: Sequence[ReadyRow]) -> None:
        self._rows = rows
        self._values: list[tuple[Any, ...]] | None = None
        self._times = _times(list(map(_event_time, rows)))
        are_present = all(map(_is_present, rows))
        self._statuses = None if are_present else list(zip(*(row.statuses for row in rows), strict=True))

    def column(self, place: int) -> bytes:
        """Return the result of one feature."""
        if self._values is None:
            self._values = list(zip(*map(_values, self._rows), strict=True))
        return self.of(place, orjson.dumps(self._values[place]))

    def of(self, place: int, values: bytes) -> bytes:
        """Return the result of one feature whose values are JSON already."""
        statuses = _same(len(self._rows), PRESENT) if self._statuses is None else _statuses(self._statuses[place])
        return b"".join((b'{"values":', values, statuses, self._times))


@lru_cache(maxsize=_LENGTHS_MAX)
def _same(length: int, status: str) -> bytes:
    return _statuses([status] * length)


def _statuses(statuses: Sequence[str]) -> bytes:
    return b',"statuses":' + orjson.dumps(statuses)


def _times(times: Sequence[str]) -> bytes:
    return b',"event_timestamps":' + orjson.dumps(times) + b"}"
