"""Live figures of one worker, from its own metrics, as the page polls them. Pure but for reading the registry."""

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from pydantic import Field

from serving.models import Answer, IngestReadiness


class SourceFigures(Answer):
    """What became of the records of a source."""

    source: str
    dispatched: int = Field(description="Good events that were passed on.")
    buried: dict[str, int] = Field(description="Dead letters by reason.")


class UpdateFigures(Answer):
    """What became of the updates of an entity by a source."""

    entity: str
    source: str
    applied: int
    duplicate: int
    replayed: int


class EntityFigures(Answer):
    """Up to when the rows of an entity are known to be complete."""

    entity: str
    partitions: int
    newest_as_of_ms: int = Field(description="Newest record timestamp that reads see; 0 if none is known.")
    oldest_as_of_ms: int = Field(
        description="The same of the partition that is furthest behind; quiet ones stand still."
    )


class TierFigures(Answer):
    """Keys asked of a tier."""

    tier: str
    hit: int
    miss: int
    failed: int


class StoreFigures(Answer):
    """Calls of a store."""

    store: str
    operation: str
    calls: int
    errors: int
    seconds: float


class OnDemandFigures(Answer):
    """What became of the rows of an on-demand feature or source."""

    feature: str
    computed: int
    invalid: int
    calls: int
    seconds: float


class ReadFigures(Answer):
    """Read requests."""

    requests: dict[str, int] = Field(description="By status.")
    buckets: dict[str, int] = Field(description="Requests that took up to so many seconds, cumulative.")


class Figures(Answer):
    """Counters since the worker's start, and how it stands now."""

    instant_ms: int
    serves: bool = Field(description="Whether this worker answers reads of features.")
    can_read: bool = Field(description="Whether the record answers.")
    ingest: IngestReadiness
    lag: dict[str, int] = Field(description="Records written and not yet durable, by topic.")
    sources: list[SourceFigures]
    updates: list[UpdateFigures]
    entities: list[EntityFigures]
    reads: ReadFigures
    tiers: list[TierFigures]
    stores: list[StoreFigures]
    on_demand: list[OnDemandFigures]
    rows_flushed: int


def read_metrics(registry: CollectorRegistry) -> dict[str, Any]:
    """Return those figures that metrics hold, by the names of ``Figures``."""
    samples = _samples(registry)
    return {
        "lag": {labels["topic"]: int(value) for labels, value in samples.get("freshet_lag_records", [])},
        "sources": _sources(samples),
        "updates": _updates(samples),
        "reads": ReadFigures(
            requests={labels["status"]: int(value) for labels, value in samples.get("freshet_requests_total", [])},
            buckets={
                labels["le"]: int(value)
                for labels, value in samples.get("feast_feature_server_request_latency_seconds_bucket", [])
            },
        ),
        "tiers": _tiers(samples),
        "stores": _stores(samples),
        "on_demand": _on_demand(samples),
        "rows_flushed": sum(int(value) for _, value in samples.get("freshet_rows_flushed_total", [])),
    }


_Samples = Mapping[str, list[tuple[Mapping[str, str], float]]]


def _samples(registry: CollectorRegistry) -> _Samples:
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def _sources(samples: _Samples) -> list[SourceFigures]:
    counts: dict[str, dict[str, int]] = {}
    for labels, value in samples.get("freshet_events_total", []):
        counts.setdefault(labels["source"], {})[labels["outcome"]] = int(value)
    return [
        SourceFigures(source=source, dispatched=own.pop("dispatched", 0), buried=own)
        for source, own in sorted(counts.items())
    ]


def _updates(samples: _Samples) -> list[UpdateFigures]:
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for labels, value in samples.get("freshet_updates_total", []):
        counts.setdefault((labels["entity"], labels["source"]), {})[labels["outcome"]] = int(value)
    return [
        UpdateFigures(
            entity=entity,
            source=source,
            applied=own.get("applied", 0),
            duplicate=own.get("duplicate", 0),
            replayed=own.get("replayed", 0),
        )
        for (entity, source), own in sorted(counts.items())
    ]


def _tiers(samples: _Samples) -> list[TierFigures]:
    counts: dict[str, dict[str, int]] = {}
    for labels, value in samples.get("freshet_tier_keys_total", []):
        counts.setdefault(labels["tier"], {})[labels["outcome"]] = int(value)
    return [
        TierFigures(tier=tier, hit=own.get("hit", 0), miss=own.get("miss", 0), failed=own.get("failed", 0))
        for tier, own in counts.items()
    ]


def _stores(samples: _Samples) -> list[StoreFigures]:
    errors = {
        (labels["store"], labels["operation"]): int(value)
        for labels, value in samples.get("freshet_store_errors_total", [])
    }
    seconds = {
        (labels["store"], labels["operation"]): value for labels, value in samples.get("freshet_store_seconds_sum", [])
    }
    return [
        StoreFigures(
            store=labels["store"],
            operation=labels["operation"],
            calls=int(value),
            errors=errors.get((labels["store"], labels["operation"]), 0),
            seconds=round(seconds[labels["store"], labels["operation"]], 6),
        )
        for labels, value in samples.get("freshet_store_seconds_count", [])
    ]


def _on_demand(samples: _Samples) -> list[OnDemandFigures]:
    rows: dict[str, dict[str, int]] = {}
    for labels, value in samples.get("freshet_on_demand_rows_total", []):
        rows.setdefault(labels["feature"], {})[labels["outcome"]] = int(value)
    seconds = {labels["feature"]: value for labels, value in samples.get("freshet_on_demand_seconds_sum", [])}
    return [
        OnDemandFigures(
            feature=labels["feature"],
            computed=rows.get(labels["feature"], {}).get("computed", 0),
            invalid=rows.get(labels["feature"], {}).get("invalid", 0),
            calls=int(value),
            seconds=round(seconds[labels["feature"]], 6),
        )
        for labels, value in samples.get("freshet_on_demand_seconds_count", [])
    ]
