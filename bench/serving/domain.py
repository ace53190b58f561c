"""What is read: 50 features of a user in 5 groups, all fed by one event of each user."""

from pydantic import BaseModel

from core.definitions import (
    Count,
    Entity,
    FeatureGroup,
    FeatureService,
    Mean,
    Registry,
    Source,
    Sum,
    aggregate,
    col,
    latest,
)
from core.windows import days, hours

GROUPS, USERS = 5, 1_000


class Visit(BaseModel):
    """An event."""

    event_id: str
    time_ms: int
    user_id: int
    seconds: float
    items: int


USER = Entity("user", keys=("user_id",))
VISITS = Source(
    "visits",
    Visit,
    event_time="time_ms",
    event_id="event_id",
    canary={"user_id": -1, "seconds": 1.0, "items": 1},
)


def _group(number: int) -> FeatureGroup:
    windows = (hours(1), days(1), days(7))
    return FeatureGroup(
        f"g{number}",
        entity=USER,
        owner="bench",
        features=(
            aggregate(f"g{number}_visits", VISITS, Count(), over=windows),
            aggregate(f"g{number}_items", VISITS, Sum(col("items")), over=windows),
            aggregate(f"g{number}_seconds", VISITS, Mean(col("seconds")), over=windows),
            latest(f"g{number}_last", VISITS, col("seconds")),
        ),
    )


_ALL = tuple(_group(number) for number in range(GROUPS))
REGISTRY = Registry(groups=_ALL, services=(FeatureService("all", groups=_ALL),))
