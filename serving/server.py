"""The feature server: from a request to an answer, one instant for all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from core.keys import kafka_partition
from core.ports import Clock, RowKey
from core.rows import Row, unpack_tail
from core.tiles import finish
from core.windows import to_ms
from serving.progress_board import ProgressBoard
from serving.read_plans import GroupRead, Planner, ReadPlan, row_pk
from serving.requests import FeaturesRequest, check_size
from serving.tiers import TieredReader, Wanted

PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"
EPOCH = "1970-01-01T00:00:00Z"
_RFC3339_MAX_MS = 253_402_300_799_999


@dataclass(frozen=True, slots=True)
class Served:
    """Values of one group for one key at the answer's instant.

    Attributes:
        status: Of all values, or None where each value's own tells it.
        event_time: Newest event time of the row, RFC 3339.
    """

    values: Sequence[Any]
    status: str | None
    event_time: str


class FeatureServer:
    """Answers ``get-online-features``."""

    def __init__(self, *, planner: Planner, reader: TieredReader, progress: ProgressBoard, clock: Clock) -> None:
        self._planner = planner
        self._reader = reader
        self._progress = progress
        self._clock = clock

    async def answer(self, request: FeaturesRequest) -> dict[str, Any]:
        """Return the answer in Feast's shape: one result per key column and feature, one value per entity row.

        Raises:
            RequestError: The request cannot be answered as it is.
            StoreError: The record failed.
        """
        plan = self._planner.plan(
            features=request.features, service=request.feature_service, full_names=request.full_feature_names
        )
        check_size(rows=len(next(iter(request.entities.values()))), features=len(plan.names))
        keys = {read.keys.entity: read.keys for read in plan.groups}
        encoded = {entity: own.encode(request.entities) for entity, own in keys.items()}
        # Before the rows: progress that is read after them may speak of events that they do not hold yet.
        progress = await self._progress.as_of_ms(_places(plan, encoded).values())
        rows = await self._reader.read(_wanted(plan, encoded))
        instant_ms = max((self._clock.now_ms(), *(row.valid_from_ms for row in rows.values())))
        served = [_serve_group(read, encoded[read.keys.entity], rows, instant_ms) for read in plan.groups]
        metadata: dict[str, Any] = {
            "feature_names": [*plan.key_columns, *plan.names],
            "instant_ms": instant_ms,
            "min_as_of_ms": _min_as_of_ms(plan, encoded, rows, progress),
        }
        if request.include_feature_view_version_metadata:
            names = [read.plan.name for read in plan.groups]
            metadata["feature_view_metadata"] = [
                {"name": name, "version": self._planner.version(name)} for name in names
            ]
        results = [_key_result(request.entities[name]) for name in plan.key_columns]
        results += [_result(plan.groups[group].places[place], served[group]) for group, place in plan.order]
        return {"metadata": metadata, "results": results}


def _places(plan: ReadPlan, encoded: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], tuple[str, int]]:
    """Return the partition, as (entity, number), of every (entity, encoded key)."""
    entities = {read.keys.entity: read.plan.group.entity for read in plan.groups}
    return {
        (entity, key): (entity, kafka_partition(key, entities[entity].partitions))
        for entity, keys in encoded.items()
        for key in keys
    }


def _min_as_of_ms(
    plan: ReadPlan,
    encoded: Mapping[str, Sequence[str]],
    rows: Mapping[RowKey, Row],
    progress: Mapping[tuple[str, int], int],
) -> int:
    """Return up to when every row of the answer is known to be complete."""
    places = _places(plan, encoded)
    ages = []
    for read in plan.groups:
        for key in encoded[read.keys.entity]:
            row = rows.get(RowKey(row_pk(read, key), read.sk))
            ages.append(max(row.as_of_ms if row is not None else 0, progress[places[read.keys.entity, key]]))
    return min(ages, default=0)


def _wanted(plan: ReadPlan, encoded: Mapping[str, Sequence[str]]) -> list[Wanted]:
    return list(
        {
            key: Wanted(key, read.plan.group.serving, read.plan.group.writing.cached, read.plan.fingerprint)
            for read in plan.groups
            for key in (RowKey(row_pk(read, name), read.sk) for name in encoded[read.keys.entity])
        }.values()
    )


def _serve_group(read: GroupRead, encoded: Sequence[str], rows: Mapping[RowKey, Row], instant_ms: int) -> list[Served]:
    return [serve_row(read, rows.get(RowKey(row_pk(read, key), read.sk)), instant_ms) for key in encoded]


def serve_row(read: GroupRead, row: Row | None, instant_ms: int) -> Served:
    """Return what is served of a row, or of none, at an instant."""
    if row is None or row.expires_at_ms <= instant_ms:
        return Served(read.plan.empty, NOT_FOUND, EPOCH)
    event_time = _rfc3339(row.event_time_ms)
    max_age = read.plan.group.serving.max_age
    if max_age is not None and instant_ms - row.event_time_ms > to_ms(max_age):
        return Served([None] * len(read.plan.features), OUTSIDE_MAX_AGE, event_time)
    if instant_ms < row.valid_until_ms:
        return Served(row.values, None, event_time)
    return Served(finish(read.plan, unpack_tail(row), instant_ms).values, None, event_time)


def _key_result(values: list[Any]) -> dict[str, Any]:
    return {"values": values, "statuses": [PRESENT] * len(values), "event_timestamps": [EPOCH] * len(values)}


def _result(place: int, served: Sequence[Served]) -> dict[str, Any]:
    values = [one.values[place] for one in served]
    return {
        "values": values,
        "statuses": [status_of(one, value) for one, value in zip(served, values, strict=True)],
        "event_timestamps": [one.event_time for one in served],
    }


def status_of(served: Served, value: Any) -> str:
    """Return the status of one value of a row."""
    return served.status or (NULL_VALUE if value is None else PRESENT)


def _rfc3339(time_ms: int) -> str:
    # A four-digit year is all that RFC 3339 can write; a producer's clock may be further off than that.
    seconds, rest = divmod(min(time_ms, _RFC3339_MAX_MS), 1000)
    text = datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"
