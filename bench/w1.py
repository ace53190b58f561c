"""W1, the load that is measured: purchases of 20,000 users, and per user their number and sum over an hour.

The hour moves by 5 minutes. A purchase is 150 bytes of JSON; the n-th user buys a n-th as often as the
first (Zipf 1.0).
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from pydantic import BaseModel, ConfigDict

from core.definitions import Count, Entity, FeatureGroup, Registry, Source, Sum, aggregate, col
from core.windows import hours
from features.videos_events import EventId, Natural

USERS, PARTITIONS = 20_000, 4
HOUR_MS, TILE_MS = 3_600_000, 300_000
_DISORDER_MS = 5_000


class Purchase(BaseModel):
    """An event of W1."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    event_id: EventId
    time_ms: Natural
    user_id: Natural
    item_id: Natural
    price_cents: Natural
    country: str
    device: str


PURCHASES = Source("purchases", Purchase, event_time="time_ms", event_id="event_id")


def spending(name: str, entity: Entity) -> FeatureGroup:
    """Return number and sum over an hour, per key of an entity."""
    return FeatureGroup(
        name,
        entity=entity,
        owner="bench",
        features=(
            aggregate("purchases", PURCHASES, Count(), over=(hours(1),)),
            aggregate("cents", PURCHASES, Sum(col("price_cents")), over=(hours(1),)),
        ),
    )


REGISTRY = Registry((spending("spend", Entity("customer", keys=("user_id",), partitions=PARTITIONS)),))
# Names of their own: the topics of an entity are named after it, and both registries are measured on one broker.
FAN_OUT = Registry(
    (
        spending("buyer_spend", Entity("buyer", keys=("user_id",), partitions=PARTITIONS)),
        spending("item_spend", Entity("item", keys=("item_id",), partitions=PARTITIONS)),
        spending("device_spend", Entity("user_device", keys=("user_id", "device"), partitions=PARTITIONS)),
    )
)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a plain loop over the purchases of one window finds."""

    purchases: int = 0
    cents: int = 0


def purchases(events: int, *, start_ms: int, apart_ms: float, users: int = USERS) -> list[dict[str, Any]]:
    """Return purchases in the order in which they are sent, up to 5 s out of order; the same for the same arguments."""
    chance = random.Random(1)  # noqa: S311  # the same users each time
    weights = list(accumulate(1 / (rank + 1) for rank in range(users)))
    return [
        {
            "event_id": f"{number:016x}",
            "time_ms": start_ms + int(number * apart_ms) - chance.randrange(_DISORDER_MS),
            "user_id": user,
            "item_id": chance.randrange(100_000),
            "price_cents": chance.randrange(100, 10_000),
            "country": "DE",
            "device": "android",
        }
        for number, user in enumerate(chance.choices(range(users), cum_weights=weights, k=events))
    ]


def payload(purchase: dict[str, Any]) -> bytes:
    """Return a purchase as it is sent."""
    return json.dumps(purchase).encode()


def spent(events: Iterable[dict[str, Any]], *, from_ms: int, to_ms: int) -> dict[int, Spent]:
    """Return the reference: per user that bought something in ``[from_ms, to_ms)``, how often and for how much.

    >>> spent([{"time_ms": 5, "user_id": 1, "price_cents": 30}], from_ms=5, to_ms=6)
    {1: Spent(purchases=1, cents=30)}
    """
    found: dict[int, Spent] = {}
    for event in events:
        if from_ms <= event["time_ms"] < to_ms:
            before = found.get(event["user_id"], Spent())
            found[event["user_id"]] = Spent(before.purchases + 1, before.cents + event["price_cents"])
    return found


def last_window_ms(events: Sequence[dict[str, Any]]) -> int:
    """Return the start of the oldest window of an hour, moving by 5 minutes, that holds the newest event.

    >>> last_window_ms([{"time_ms": 7_200_001}])
    3900000
    """
    return max(event["time_ms"] for event in events) // TILE_MS * TILE_MS + TILE_MS - HOUR_MS


def served_from_ms(instant_ms: int) -> int:
    """Return where Freshet's hour begins at an instant: its oldest tile counts whole.

    >>> served_from_ms(7_200_001)
    3600000
    """
    return (instant_ms - HOUR_MS) // TILE_MS * TILE_MS
