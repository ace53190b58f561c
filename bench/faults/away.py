"""A Redis that is killed, or answers nothing: what readers of it feel, and how soon nobody asks it any more."""

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from bench.faults.ground import Ground, ports, total
from bench.faults.readers import Answered, Readers, share_ms
from bench.serving.domain import USERS
from bench.serving.wire import request

_RPS = 300.0
_HEALTHY_S, _AWAY_S, _HEALED_S = 4.0, 5.0, 6.0
_LOOK_S = 0.05
_FEATURES = ("g0:g0_items_1h",)


@dataclass(frozen=True, slots=True)
class Away:
    """What was seen.

    Attributes:
        errors: Answers that were none.
        p99_ms: Before.
        first_second_p99_ms: Of the requests of the first second without Redis.
        opened_s: After how long the breaker was open.
        closed_s: How long after the end it was closed.
    """

    errors: int
    p99_ms: float
    first_second_p99_ms: float
    opened_s: float
    closed_s: float


async def watch_away(ground: Ground, *, end: Callable[[], None], heal: Callable[[], None]) -> Away:
    """Read for a while, take Redis away amid it, and give it back."""
    (port,) = ports(ground.serving[:1])
    readers, chance = Readers(port), Random(1)  # noqa: S311  # the same every time
    reading = asyncio.create_task(
        readers.at_rate(_RPS, _HEALTHY_S + _AWAY_S + _HEALED_S, lambda: request([chance.randrange(USERS)], _FEATURES))
    )
    await asyncio.sleep(_HEALTHY_S)
    ended_at = time.monotonic()
    await asyncio.to_thread(end)
    opened_at = await _until_breaker(ground, is_open=True)
    await asyncio.sleep(max(ended_at + _AWAY_S - time.monotonic(), 0))
    await asyncio.to_thread(heal)
    healed_at = time.monotonic()
    closed_at = await _until_breaker(ground, is_open=False)
    answers = await reading
    readers.close()
    return Away(
        errors=sum(answer.status != 200 for answer in answers),
        p99_ms=_p99_ms(answers, 0, ended_at),
        first_second_p99_ms=_p99_ms(answers, ended_at, ended_at + 1),
        opened_s=opened_at - ended_at,
        closed_s=closed_at - healed_at,
    )


async def _until_breaker(ground: Ground, *, is_open: bool) -> float:
    worker = ground.serving[0]
    for _ in itertools.repeat(None, int(_AWAY_S / _LOOK_S)):
        opened = await asyncio.to_thread(total, worker, "freshet_breaker_open", store="redis")
        if bool(opened) is is_open:
            return time.monotonic()
        await asyncio.sleep(_LOOK_S)
    return float("inf")


def _p99_ms(answers: list[Answered], start: float, end: float) -> float:
    return share_ms((answer.took_s for answer in answers if start <= answer.at < end), 0.99)
