"""On-demand features and sources that do what functions do: most of them something else than they should."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import features
from core.definitions import FeatureService, OnDemandFeature, OnDemandGroup, OnDemandSource, ValueType
from core.on_demand import OnDemandFeature as Feature
from core.windows import milliseconds
from serving.on_demand.functions import ABSENT, FAILED, Computed, Functions, judge, judge_fetched

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


def go(seen: int) -> int:
    """Ask the process to end."""
    sys.exit(5)


def speak(seen: int) -> str:
    """Return half of a pair that is no text."""
    return "\ud800"


def shout(seen: int) -> str:
    """Return more than there may be."""
    return "x" * (1 << 24)


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


PRIVATE = "nobody-may-store-this"
SILENT_USER, ANGRY_USER, UNKNOWN_USER, STUBBORN_USER, LEAVING_USER, LOST_USER, SLOW_USER = range(3, 10)


async def fetch_risk(user_id: Sequence[int]) -> list[Mapping[str, Any] | None]:
    """Return what a register of debtors tells of users."""
    if SILENT_USER in user_id:
        await asyncio.sleep(60)
    if STUBBORN_USER in user_id:
        time.sleep(60)  # noqa: ASYNC251  # what must not be done, and is
    if LEAVING_USER in user_id:
        sys.exit(6)
    if LOST_USER in user_id:
        raise asyncio.CancelledError
    if SLOW_USER in user_id:
        await asyncio.sleep(0.05)
    if ANGRY_USER in user_id:
        raise ValueError(f"user {ANGRY_USER} is {PRIVATE}")
    return [
        None if user == UNKNOWN_USER else {"score": user / 10, "band": f"{PRIVATE}-{user}", "pid": os.getpid()}
        for user in user_id
    ]


def quote(band: str) -> int:
    """Fail, with what it was given in its error."""
    return int(band)


def risk_per_view(risk: float | None, seen: int) -> float:
    """Return a number of both."""
    return (risk or 0.0) / (seen or 1)


RISK = OnDemandSource(
    "risk",
    entity=features.REGISTRY.entities["user"],
    fetch=fetch_risk,
    returns={"score": ValueType.FLOAT, "band": ValueType.STR, "pid": ValueType.INT, "age": ValueType.INT},
    owner="tests",
    deadline=milliseconds(500),
)
PER_VIEW = OnDemandFeature(
    "risk_per_view",
    function=risk_per_view,
    returns=ValueType.FLOAT,
    features={"risk": "risk:score", "seen": SEEN},
)
QUOTE = OnDemandFeature("quote", function=quote, returns=ValueType.INT, features={"band": "risk:band"})
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
    Feature(
        function.__name__,
        function=function,
        returns=ValueType.INT if function not in (speak, shout) else ValueType.STR,
        features={"seen": SEEN},
    )
    for function in (hang, leave, go, speak, shout, eat, tell, smuggle)
]
GROUP = OnDemandGroup(
    "offers", owner="tests", features=(PER_PRICE, PER_VIEW, QUOTE, *BAD), deadline=milliseconds(2_000)
)
REGISTRY = replace(
    features.REGISTRY,
    on_demand=(GROUP,),
    on_demand_sources=(RISK,),
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

    async def fetch(
        self, source: OnDemandSource, keys: Mapping[str, Sequence[Any]], *, deadline_ms: int
    ) -> dict[str, Computed]:
        try:
            items = await source.fetch(**keys)
        except ValueError:
            rows = len(next(iter(keys.values())))
            return judge_fetched(source, {name: [FAILED] * rows for name in source.returns})
        columns = {name: [ABSENT if item is None else item.get(name) for item in items] for name in source.returns}
        return judge_fetched(source, columns)
