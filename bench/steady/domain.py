"""W1 with a short memory: what a worker remembers of a load is complete when the warm-up is over.

A window of 5 minutes and ids of 2 minutes: rows, tiles and ids come and go all the time, those of the rarer half of the
users too, and none of them is kept for longer than about 6 minutes. Whatever grows afterwards is not part of the load.
"""

import dataclasses
import random
import time
from collections.abc import Iterator
from itertools import accumulate, count
from typing import Any

from bench.w1 import PARTITIONS, PURCHASES, USERS
from core.definitions import Count, Entity, FeatureGroup, Registry, Sum, aggregate, col
from core.windows import minutes

SOURCE = dataclasses.replace(PURCHASES, dedupe=minutes(2))
FEATURES = ("spend:purchases_5m", "spend:cents_5m")
REGISTRY = Registry(
    (
        FeatureGroup(
            "spend",
            entity=Entity("customer", keys=("user_id",), partitions=PARTITIONS),
            owner="bench",
            features=(
                aggregate("purchases", SOURCE, Count(), over=(minutes(5),)),
                aggregate("cents", SOURCE, Sum(col("price_cents")), over=(minutes(5),)),
            ),
        ),
    )
)


def endless(chance: random.Random) -> Iterator[dict[str, Any]]:
    """Yield purchases that happen when they are asked for, of users of whom the n-th buys a n-th as often."""
    weights = list(accumulate(1 / (rank + 1) for rank in range(USERS)))
    for number in count():
        yield {
            "event_id": f"{number:016x}",
            "time_ms": time.time_ns() // 1_000_000,
            "user_id": chance.choices(range(USERS), cum_weights=weights)[0],
            "item_id": chance.randrange(100_000),
            "price_cents": chance.randrange(100, 10_000),
            "country": "DE",
            "device": "android",
        }
