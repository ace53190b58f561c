"""On-demand features whose functions do what functions do: most of them something else than they should."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import features
from core.definitions import FeatureService, OnDemandFeature, OnDemandGroup, ValueType
from core.on_demand import OnDemandFeature as Feature
from core.windows import milliseconds
from serving.on_demand import FAILED, Computed, Functions, judge

SEEN = "user_engagement:impressions_1h"


def per_price(seen: int, price: float) -> float | None:
    """Return how much was seen for each unit of the price, or None for what is free."""
    if price < 0:
        raise ValueError("a price below zero")
    return seen / price if price else None


def hang(seen: int) -> int:
    """Never return."""
    while True:
        time.sleep(1)


def leave(seen: int) -> int:
    """End the process."""
    os._exit(3)


def eat(seen: int) -> int:
    """Take more memory than there may be."""
    return len(bytearray(1 << 34))


def tell(seen: int) -> str:
    """Return something else than what is declared."""
    return "many"


def smuggle(seen: int) -> Any:
    """Return what would run code where it is unpacked."""

    class Smuggled:
        def __reduce__(self) -> Any:
            return (os._exit, (4,))

    return Smuggled()


PER_PRICE = OnDemandFeature(
    "seen_per_price",
    function=per_price,
    returns=ValueType.FLOAT,
    features={"seen": SEEN},
    request={"price": ValueType.FLOAT},
    default=-1.0,
    description="What a user saw for the price that is offered",
)
BAD = [
    Feature(function.__name__, function=function, returns=ValueType.INT, features={"seen": SEEN})
    for function in (hang, leave, eat, tell, smuggle)
]
GROUP = OnDemandGroup("offers", owner="tests", features=(PER_PRICE, *BAD), deadline=milliseconds(2_000))
REGISTRY = replace(
    features.REGISTRY,
    on_demand=(GROUP,),
    services=(
        *features.REGISTRY.services,
        FeatureService("offer", features=(SEEN, "offers:seen_per_price", "user_engagement:clicks_1h")),
    ),
)


class OwnFunctions(Functions):
    """Runs functions here; for those that can be trusted."""

    async def compute(
        self, group: str, feature: Feature, columns: Mapping[str, Sequence[Any]], *, deadline_ms: int
    ) -> Computed:
        values = []
        for row in zip(*columns.values(), strict=True):
            try:
                values.append(feature.function(**dict(zip(columns, row, strict=True))))
            except ValueError:
                values.append(FAILED)
        return judge(feature, values)
