"""What the fuzz runs over: the demo's definitions, and beside them a domain that leaves everything open.

The demo's models are strict and bounded and their keys are integers. The one here is as lax as a user's may be: texts
as keys, lists that are exploded, unbounded integers and floats, an enum with a default, times as datetimes, a source
without event ids, and every aggregation.
"""

from dataclasses import replace
from datetime import datetime
from enum import Enum

from pydantic import BaseModel

from core.definitions import (
    ALL_TIME,
    ApproxDistinct,
    ApproxPercentile,
    ApproxTopK,
    Count,
    Entity,
    FeatureGroup,
    First,
    Last,
    LastN,
    Max,
    Mean,
    Min,
    Registry,
    Source,
    StdDev,
    Sum,
    TopK,
    Variance,
    aggregate,
    col,
    explode,
    latest,
)
from core.windows import days, hours, minutes
from features import REGISTRY as DEMO

PARTITIONS = 2


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Note(BaseModel):
    """Somebody noted something; lax on purpose."""

    id: str
    at: datetime
    who: str
    tags: list[str] | None = None
    size: int | None = None
    score: float | None = None
    weight: float = 1
    title: str | None = None
    mood: Mood = Mood.GOOD


class Tick(BaseModel):
    """Something ticked; without an identity, so every repetition counts."""

    at: int
    who: str
    size: int = 1
    done: bool | None = None


WHO = Entity("who", keys=("who",), partitions=PARTITIONS)
TAG = Entity("tag", keys=("tag",), partitions=PARTITIONS)
WHO_SIZE = Entity("who_size", keys=("who", "size"), partitions=PARTITIONS)
NOTES = Source("notes", Note, event_time="at", event_id="id", lateness=minutes(5), keys={"tag": explode(col("tags"))})
TICKS = Source("ticks", Tick, event_time="at", event_id=None, lateness=days(1))
HOUR, DAY = (hours(1),), (hours(1), days(1))

HOSTILE = (
    FeatureGroup(
        "notes_numbers",
        entity=WHO,
        owner="fuzz",
        features=(
            aggregate("notes", NOTES, Count(), where=col("mood") == "good", over=DAY),
            aggregate("size", NOTES, Sum(col("size") * 1000), over=DAY),
            aggregate("scores", NOTES, Sum(col("score")), over=HOUR),
            aggregate("mean", NOTES, Mean(col("score")), over=HOUR),
            aggregate("spread", NOTES, Variance(col("size")), over=HOUR),
            aggregate("deviation", NOTES, StdDev(col("score") / col("weight")), over=HOUR),
            aggregate("least", NOTES, Min(col("score")), over=HOUR),
            aggregate("most", NOTES, Max(col("size")), over=(hours(1), ALL_TIME)),
            aggregate("p90", NOTES, ApproxPercentile(col("score"), percents=90), over=HOUR),
            aggregate("ticks", TICKS, Sum(col("size")), where=col("done"), over=HOUR),
        ),
    ),
    FeatureGroup(
        "notes_texts",
        entity=WHO,
        owner="fuzz",
        row_bytes_max=400_000,
        features=(
            aggregate("first", NOTES, First(col("title")), over=HOUR),
            aggregate("last", NOTES, Last(col("title")), over=HOUR),
            aggregate("lasts", NOTES, LastN(col("title"), n=3, distinct=True), over=HOUR),
            aggregate("top", NOTES, TopK(col("mood"), n=2), over=HOUR),
            aggregate("often", NOTES, ApproxTopK(col("size"), n=2), over=HOUR),
            aggregate("titles", NOTES, ApproxDistinct(col("title")), over=HOUR),
            latest("title", NOTES, col("title")),
        ),
    ),
    FeatureGroup("tags", entity=TAG, owner="fuzz", features=(aggregate("notes", NOTES, Count(), over=HOUR),)),
    FeatureGroup("sizes", entity=WHO_SIZE, owner="fuzz", features=(aggregate("n", TICKS, Count(), over=HOUR),)),
)

GROUPS = (
    *(replace(group, entity=replace(group.entity, partitions=PARTITIONS)) for group in DEMO.groups),
    *HOSTILE,
)
REGISTRY = Registry(GROUPS)
