"""Probes: events of users that nobody else is, and the first answer over HTTP that knows of each."""

import asyncio
import json
import time
from dataclasses import dataclass, field

from confluent_kafka import Producer

from bench.faults.readers import Readers, share_ms
from bench.serving.wire import request
from bench.w1 import PURCHASES, payload

FEATURE = "spend:purchases_1h"
_FIRST_USER = 1_000_000_000
_EVERY_S, _LOOK_S = 0.02, 0.004
_AT_ONCE = 100
_LOST_S = 30.0


@dataclass(slots=True)
class Seen:
    """What became of probes.

    Attributes:
        probes: When each was sent, in seconds since the first, and how long it took, in seconds.
        lost: Those that nobody knew of in time.
    """

    probes: list[tuple[float, float]] = field(default_factory=list)
    lost: int = 0

    def share_ms(self, share: float, *, start: float = 0.0, end: float = float("inf")) -> float:
        """Return what this share of the probes sent between two times took at most, in milliseconds."""
        return share_ms((took for at, took in self.probes if start <= at < end), share)


async def probe(broker: str, port: int, *, run: int, seconds: float) -> Seen:
    """Send a probe every 20 ms for a while, and look for each until it is there."""
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 0, "partitioner": "murmur2_random"})
    readers, seen = Readers(port), Seen()
    started = time.monotonic()
    out: dict[int, float] = {}
    number = 0
    while (now := time.monotonic()) - started < seconds or out:
        while now - started >= number * _EVERY_S and now - started < seconds:
            user = _FIRST_USER + run * 1_000_000 + number
            event = {
                "event_id": f"probe{run}-{number}", "time_ms": time.time_ns() // 1_000_000, "user_id": user,
                "item_id": 1, "price_cents": 1, "country": "DE", "device": "probe",
            }  # fmt: skip
            out[user] = time.monotonic()
            producer.produce(PURCHASES.topic, key=str(user), value=payload(event))
            number += 1
        producer.poll(0)
        await _look(readers, list(out)[:_AT_ONCE], out, started, seen)
        for user in [user for user, sent in out.items() if now - sent > _LOST_S]:
            seen.lost += 1
            del out[user]
        await asyncio.sleep(max(_LOOK_S - (time.monotonic() - now), 0))
    readers.close()
    return seen


async def _look(readers: Readers, users: list[int], out: dict[int, float], started: float, seen: Seen) -> None:
    if not users:
        return
    (answer,) = await readers.at_rate(1_000, 0.001, lambda: request(users, (FEATURE,)))
    now = time.monotonic()
    if answer.status != 200:
        return
    for user, number in zip(users, json.loads(answer.body)["results"][1]["values"], strict=True):
        if number:
            sent = out.pop(user)
            seen.probes.append((sent - started, now - sent))
