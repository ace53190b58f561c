"""Definitions: what a platform user writes, as plain data.

Nothing registers itself: a feature exists because a group lists it, a group because the registry does. Nothing is
checked here either, so that ``freshet check`` can report every problem at once (``core.check``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel

from core.aggregations import (
    Aggregation,
    ApproxDistinct,
    ApproxPercentile,
    ApproxTopK,
    Count,
    First,
    Last,
    LastN,
    Latest,
    Max,
    Mean,
    Min,
    StdDev,
    Sum,
    TopK,
    Variance,
)
from core.choice import when
from core.entity import Entity
from core.expressions import Explode, Expr, col, explode
from core.on_demand import OnDemandFeature, OnDemandGroup, OnDemandSource
from core.values import ValueType
from core.windows import ALL_TIME, Span, hours, milliseconds, minutes, seconds

__all__ = [
    "ALL_TIME", "Aggregate", "ApproxDistinct", "ApproxPercentile", "ApproxTopK", "Change", "Count", "Entity",
    "Feature", "FeatureGroup", "FeatureService", "First", "Last", "LastN", "Latest", "Max", "Mean", "Min",
    "OnDemandFeature", "OnDemandGroup", "OnDemandSource", "OneOf", "Ratio", "Registry", "ServingPolicy", "Source",
    "StdDev", "Sum", "TopK", "ValueType", "Variance", "WritePolicy", "aggregate", "col", "explode", "latest", "when",
]  # fmt: skip


PUBLISH_EVERY = milliseconds(50)


@dataclass(frozen=True, slots=True)
class OneOf:
    """A field of a canary that is another of these values each time: ``OneOf(range(999_999_000, 1_000_000_000))``.

    With a key of its own a canary is told from those of other workers, and goes through all partitions in turn.
    """

    values: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A Kafka topic with its event schema.

    Attributes:
        topic: Name of the topic; its keys and partition count are the producers' business.
        model: Pydantic model of the JSON in a record's value.
        event_time: Field with the time at which it happened: an int in milliseconds since the epoch, or a datetime
            with a time zone.
        event_id: Field with the producer's identity of the event, or None: then a producer's repetitions count twice.
        lateness: An event older than its record's timestamp by more than this is late and is not counted.
        dedupe: How long an ``event_id`` is remembered.
        dedupe_ids_max: How many are remembered per partition at the most, 20 bytes each; a full memory makes its
            worker wait.
        keys: Where a key column is found if not in the field of its own name; ``explode(col(...))`` for lists.
        canary: Fields of an event, without time and id, of keys that are nobody's: workers that serve send one every
            few seconds and tell how long it takes until it can be read. Keys are ``OneOf`` where workers are several.
    """

    topic: str
    model: type[BaseModel]
    event_time: str = field(kw_only=True)
    event_id: str | None = field(kw_only=True)
    lateness: timedelta = field(default=hours(1), kw_only=True)
    dedupe: timedelta = field(default=minutes(15), kw_only=True)
    dedupe_ids_max: int = field(default=5_000_000, kw_only=True)
    keys: Mapping[str, Expr | Explode] = field(default_factory=dict, kw_only=True)
    canary: Mapping[str, Any] | None = field(default=None, kw_only=True)
    description: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Values of one source, aggregated over one or several windows; made by ``aggregate`` and ``latest``."""

    name: str
    source: Source
    aggregation: Aggregation
    over: tuple[Span, ...] = field(kw_only=True)
    where: Expr | None = field(default=None, kw_only=True)
    unit: str = field(default="", kw_only=True)
    default: Any = field(default=None, kw_only=True)
    description: str = field(default="", kw_only=True)
    suffixed: bool = field(default=True, kw_only=True)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One feature of the group divided by another over the same window; null, or ``default``, where that is 0.

    Attributes:
        numerator: Name of a feature of the same group, without its window.
        denominator: Likewise.
        over: Windows; both parts must have them.
    """

    name: str
    numerator: str
    denominator: str
    over: tuple[Span, ...] = field(kw_only=True)
    default: float | None = field(default=None, kw_only=True)
    unit: str = field(default="", kw_only=True)
    description: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Change:
    """How much more happens than usual: a count's or sum's rate in a window against its rate in a longer one, less 1.

    ``(of_1h / 1 h) / (of_1d / 24 h) - 1`` for one hour against a day: 0 is as usual, 1 twice as much, -1 nothing any
    more; null, or ``default``, where the longer window has 0. It is computed from the two served values, so it needs no
    state. The longer window holds the shorter one: what is new, and has nothing before, changes by a finite number.

    Attributes:
        of: Name of a count or sum of the same group, without its window.
        over: Windows; ``of`` must have them.
        against: The longer window; ``of`` must have it too.
    """

    name: str
    of: str
    over: tuple[Span, ...] = field(kw_only=True)
    against: Span = field(kw_only=True)
    default: float | None = field(default=None, kw_only=True)
    unit: str = field(default="", kw_only=True)
    description: str = field(default="", kw_only=True)


Feature: TypeAlias = Aggregate | Ratio | Change


def aggregate(
    name: str,
    source: Source,
    aggregation: Aggregation,
    *,
    over: tuple[Span, ...],
    where: Expr | None = None,
    unit: str = "",
    default: Any = None,
    description: str = "",
) -> Aggregate:
    """Return a feature per window: ``clicks`` over an hour and a day is served as ``clicks_1h`` and ``clicks_1d``.

    Args:
        name: Name without the window.
        source: Where the values come from.
        aggregation: How they become one.
        over: Windows from 5 minutes to 90 days, and ``ALL_TIME``.
        where: Condition on the event; events for which it is false or null are left out.
        unit: Unit of the result, for people.
        default: Served instead of null.
        description: What it means, for people.
    """
    return Aggregate(
        name, source, aggregation, over=over, where=where, unit=unit, default=default, description=description
    )


def latest(
    name: str, source: Source, value: Expr, *, unit: str = "", default: Any = None, description: str = ""
) -> Aggregate:
    """Return the value that the youngest event told; it has no window and no suffix."""
    return Aggregate(
        name,
        source,
        Latest(value),
        over=(ALL_TIME,),
        unit=unit,
        default=default,
        description=description,
        suffixed=False,
    )


@dataclass(frozen=True, slots=True)
class ServingPolicy:
    """How a group's rows are read.

    Attributes:
        tier: ``local`` (small and hot: every worker that serves keeps copies, and one that does not hear of a change
            may serve the row from before it for ``soft_ttl``), ``remote`` (Redis; the worker that owns a key, and hears
            of its changes, keeps copies), ``direct`` (the record alone).
        max_age: A row whose newest event is older is OUTSIDE_MAX_AGE; for state features only, windows decay.
        soft_ttl: Age from which a copy is refreshed, so also the longest that a missed invalidation is felt.
        hard_ttl: Age from which a copy is not served any more.
        negative_ttl: How long workers and the cache remember that there was no row; zero for not at all. The row's
            first event ends it at once; with ``local``, a worker that does not hear of it remembers for ``soft_ttl`` at
            the longest.
        jitter: By up to this share copies end earlier than the times above say, each by another part of it, so that
            what was read together does not end together.
        early_refresh: Beta of XFetch: how eagerly copies are read again before they end, in units of how long that
            takes, while they are served; 0 for not at all.
        preload: Whether a worker that begins copies all rows from their changelog before it is asked (``local`` only).
        on_failure: What is served of a row that no store could tell, always as INVALID: ``null``, or ``default``, each
            feature's default or what a key without a row has; then an answer is given even if it has nothing else.
    """

    tier: Literal["local", "remote", "direct"] = "remote"
    max_age: timedelta | None = None
    soft_ttl: timedelta = seconds(30)
    hard_ttl: timedelta = hours(24)
    negative_ttl: timedelta = seconds(30)
    jitter: float = 0.1
    early_refresh: float = 0.0
    preload: bool = False
    on_failure: Literal["null", "default"] = "null"


@dataclass(frozen=True, slots=True)
class WritePolicy:
    """How a group's changed rows are published.

    Attributes:
        cached: Whether Redis is written too (write-through) or only the record (write-around).
        every: Shortest time between two publications of all that changed; the first goes out at once. Up to a second,
            rows that were not in the last one go out alone meanwhile, where there is time for it: at most one more.
    """

    cached: bool = True
    every: timedelta = PUBLISH_EVERY

    @classmethod
    def through(cls, *, every: timedelta = PUBLISH_EVERY) -> "WritePolicy":
        """Write record and Redis."""
        return cls(cached=True, every=every)

    @classmethod
    def around(cls, *, every: timedelta = PUBLISH_EVERY) -> "WritePolicy":
        """Write the record alone; a row that Redis has from before is not read, and stays there until ``hard_ttl``."""
        return cls(cached=False, every=every)


@dataclass(frozen=True, slots=True)
class FeatureGroup:
    """Features of one entity that are computed and stored together, in one row per entity.

    Attributes:
        row_bytes_max: Limit of a row's worst size, checked by ``freshet check``.
    """

    name: str
    entity: Entity = field(kw_only=True)
    features: tuple[Feature, ...] = field(kw_only=True)
    owner: str = field(kw_only=True)
    description: str = field(default="", kw_only=True)
    serving: ServingPolicy = field(default_factory=ServingPolicy, kw_only=True)
    writing: WritePolicy = field(default_factory=WritePolicy, kw_only=True)
    row_bytes_max: int = field(default=64 * 1024, kw_only=True)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources that feed the group, each once, in the order of its features."""
        found = {feature.source.topic: feature.source for feature in self.features if isinstance(feature, Aggregate)}
        return tuple(found.values())


@dataclass(frozen=True, slots=True)
class FeatureService:
    """The features that a model reads together.

    Attributes:
        groups: Groups that are read whole.
        features: Single features, as ``group:feature``.
    """

    name: str
    groups: tuple[FeatureGroup, ...] = field(default=(), kw_only=True)
    features: tuple[str, ...] = field(default=(), kw_only=True)
    owner: str = field(default="", kw_only=True)
    description: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Registry:
    """The table of contents: everything that a platform runs."""

    groups: tuple[FeatureGroup, ...]
    services: tuple[FeatureService, ...] = ()
    on_demand: tuple[OnDemandGroup, ...] = ()
    on_demand_sources: tuple[OnDemandSource, ...] = ()

    @property
    def entities(self) -> dict[str, Entity]:
        """Entities by name."""
        return {group.entity.name: group.entity for group in self.groups}

    @property
    def sources(self) -> dict[str, Source]:
        """Sources by topic."""
        return {source.topic: source for group in self.groups for source in group.sources}
