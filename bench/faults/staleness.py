"""How old what is read is: events all the time, and each answer compared with what had been acknowledged by then."""

import asyncio
import json
import time
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from random import Random

import httpx

from bench.faults.ground import Ground, ports
from bench.faults.readers import Answered, Readers, share_ms
from bench.serving.domain import USERS
from bench.serving.wire import request

_PUSH_USERS = 50
_PUSHES_PER_S = 10.0
_READ_USERS = 100
_FEATURE = "g0:g0_last"


@dataclass(frozen=True, slots=True)
class Staleness:
    """How old values were.

    Attributes:
        reads: Values that were read.
        events: Events that were sent meanwhile.
        p99_ms: Staleness that one of a hundred exceeds: how long ago the oldest event was acknowledged that a value
            should have had, 0 for one that lacks none.
        most_ms: Of all.
        backwards: Values older than one that was read before.
    """

    reads: int
    events: int
    p99_ms: float
    most_ms: float
    backwards: int


async def measure(ground: Ground, *, reads: int, rps: float) -> Staleness:
    """Write users all the time, and read so many values at so many requests per second."""
    known: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    writing = asyncio.create_task(_write(ground, known))
    readers, chance = Readers(*ports(ground.serving[:1])), Random(2)  # noqa: S311  # the same every time
    asked: list[list[int]] = []

    def next_request() -> bytes:
        asked.append(chance.sample(range(USERS), _READ_USERS))
        return request(asked[-1], (_FEATURE,))

    await asyncio.sleep(2)
    # What is read before is what the last pushes of the set-up left, and says nothing.
    answers = await readers.at_rate(rps, reads / _READ_USERS / rps, next_request)
    writing.cancel()
    readers.close()
    return _judge(answers, asked, known)


async def _write(ground: Ground, known: defaultdict[int, list[tuple[float, float]]]) -> None:
    """Send events for ever; note per user when each value was acknowledged."""
    chance = Random(3)  # noqa: S311  # the same every time
    async with httpx.AsyncClient(base_url=ground.intake.base_url, timeout=30) as client:
        number = 0
        while True:
            began = time.monotonic()
            users = chance.sample(range(USERS), _PUSH_USERS)
            value, now_ms = time.time(), time.time_ns() // 1_000_000
            frame = {
                "event_id": [f"w{number}-{user}" for user in users],
                "time_ms": [now_ms] * len(users),
                "user_id": users,
                "seconds": [value] * len(users),
                "items": users,
            }
            (await client.post("/push", json={"push_source_name": "visits", "df": frame})).raise_for_status()
            at = time.monotonic()
            for user in users:
                known[user].append((value, at))
            number += 1
            await asyncio.sleep(max(began + 1 / _PUSHES_PER_S - time.monotonic(), 0))


def _judge(
    answers: list[Answered], asked: list[list[int]], known: defaultdict[int, list[tuple[float, float]]]
) -> Staleness:
    stale: list[float] = []
    backwards = 0
    newest: dict[int, tuple[float, float]] = {}
    for answer, users in sorted(zip(answers, asked, strict=True), key=lambda pair: pair[0].at):
        (values,) = (result["values"] for result in json.loads(answer.body)["results"][1:])
        for user, value in zip(users, values, strict=True):
            history = known[user]
            place = bisect_right(history, (value, float("inf")))
            # The first event that the value lacks, if it had been acknowledged when the request was sent.
            missing = history[place][1] if place < len(history) else float("inf")
            stale.append(max(answer.at - missing, 0.0))
            ends_at = answer.at + answer.took_s
            before = newest.get(user)
            # Only of answers that were there before this request was sent is it sure that they are older.
            backwards += before is not None and before[1] <= answer.at and value < before[0]
            if before is None or value > before[0]:
                newest[user] = (value, ends_at)
    return Staleness(
        reads=len(stale),
        events=sum(map(len, known.values())),
        p99_ms=share_ms(stale, 0.99),
        most_ms=1000 * max(stale),
        backwards=backwards,
    )
