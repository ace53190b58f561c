"""A domain to be tortured: two sources that feed two entities each, few keys, windows that slide and windows that do not.

Small on purpose: each key is hot, so each fault meets rows in mid-change, and rows coalesce to what a slow record takes.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from core.definitions import (
    ALL_TIME,
    Count,
    Entity,
    FeatureGroup,
    LastN,
    Max,
    Registry,
    Source,
    Sum,
    WritePolicy,
    aggregate,
    col,
)
from core.windows import days, hours, minutes, seconds

PARTITIONS = 4
Natural = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Tap(BaseModel):
    """A user touched an item."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    event_id: Annotated[str, Field(min_length=1, max_length=128)]
    time_ms: Natural
    user_id: Natural
    item_id: Natural


class Buy(Tap):
    """A user bought an item."""

    amount: Natural


USER = Entity("user", keys=("user_id",), partitions=PARTITIONS)
ITEM = Entity("item", keys=("item_id",), partitions=PARTITIONS)

TAPS = Source("taps", Tap, event_time="time_ms", event_id="event_id", lateness=hours(1))
BUYS = Source("buys", Buy, event_time="time_ms", event_id="event_id", lateness=hours(1))

USER_ACTIVITY = FeatureGroup(
    "user_activity",
    entity=USER,
    owner="chaos",
    features=(
        aggregate("taps", TAPS, Count(), over=(hours(1), ALL_TIME)),
        aggregate("buys", BUYS, Count(), over=(ALL_TIME,)),
        aggregate("spent", BUYS, Sum(col("amount")), over=(hours(1), ALL_TIME)),
        aggregate("last_items", TAPS, LastN(col("item_id"), n=5), over=(days(1),)),
    ),
    writing=WritePolicy.through(every=seconds(1)),
)

ITEM_ACTIVITY = FeatureGroup(
    "item_activity",
    entity=ITEM,
    owner="chaos",
    features=(
        aggregate("taps", TAPS, Count(), over=(minutes(5), ALL_TIME)),
        aggregate("buys", BUYS, Count(), over=(ALL_TIME,)),
        aggregate("spent", BUYS, Sum(col("amount")), over=(ALL_TIME,)),
        aggregate("largest", BUYS, Max(col("amount")), over=(days(1),)),
    ),
    writing=WritePolicy.through(every=seconds(1)),
)

REGISTRY = Registry(groups=(USER_ACTIVITY, ITEM_ACTIVITY))

FEATURES = {
    "user": [
        f"user_activity:{name}"
        for name in ("taps_1h", "taps_all", "buys_all", "spent_1h", "spent_all", "last_items_1d")
    ],
    "item": [f"item_activity:{name}" for name in ("taps_5m", "taps_all", "buys_all", "spent_all", "largest_1d")],
}
"""Every feature of an entity, as it is asked for."""
