"""Schedules: what happens in a world and when, drawn from one seed."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.simulation.worker import PARTITIONS, START_MS

_HOUR_MS = 3_600_000


class Size(NamedTuple):
    """Bounds of what happens in a world.

    Attributes:
        workers: How many there are.
        events: How many there are.
        events_s: Until when.
        faults: How many.
        faults_s: Until when they begin.
        last_s: How long they last, more or less.
        heal_s: When everything is made well.
        latest_s: How late a message may be.
    """

    workers: tuple[int, ...]
    events: tuple[int, int]
    events_s: float
    faults: tuple[int, int]
    faults_s: float
    last_s: tuple[float, ...]
    heal_s: float
    latest_s: float


SHORT = Size((1, 1, 2), (4, 9), 1.5, (1, 2), 2.5, (0.05, 1.0, 2.0), 4.0, 6.0)
"""Most of what goes wrong takes two records and one kill, so many short lives find more than few long ones."""
SESSION = Size((2,), (4, 12), 13.0, (1, 2), 4.0, (1.0, 12.0), 15.0, 15.0)
"""Long enough for a worker to be replaced while it stands still."""
LONG = Size((1, 2, 2, 3), (12, 40), 8.0, (1, 6), 13.0, (0.05, 1.0, 4.0, 12.0), 20.0, 25.0)
_ON_DISK = 4
"""One in so many schedules has its tables on disk; it takes a tenth longer."""

SIZES = (SHORT,) * 16 + (SESSION,) * 3 + (LONG,)


class Arrival(NamedTuple):
    """A record that a producer writes to a source."""

    at_s: float
    topic: str
    partition: int
    time_ms: int
    value: bytes


class Fault(NamedTuple):
    """Something that goes wrong.

    Attributes:
        kind: One of ``KINDS``.
        worker: Number of the worker that it happens to, where it happens to one.
        for_s: How long it lasts, or how long until the worker is started again.
    """

    at_s: float
    kind: str
    worker: int
    for_s: float


KINDS = (
    "kill",
    "stop",
    "leave",
    "broker away",
    "coordinator away",
    "record away",
    "record refuses",
    "cache away",
    "cache refuses",
    "cache lost",
    "clock jumps",
    "compaction",
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """What happens.

    Attributes:
        workers: How many there are.
        is_static: Whether they are static members of their group.
        skews_ms: By how much each worker's clock is off.
        loss: Probability that a message is lost.
        late: Probability that a message is very late.
        on_disk: Whether the workers keep their tables on disk.
    """

    seed: int
    workers: int
    is_static: bool
    skews_ms: tuple[int, ...]
    loss: float
    late: float
    size: Size
    arrivals: Sequence[Arrival]
    faults: Sequence[Fault]
    on_disk: bool


def draw(seed: int) -> Schedule:
    """Return the schedule of a seed."""
    chance = random.Random(seed)  # noqa: S311  # the same schedule every time
    size = chance.choice(SIZES)
    workers = chance.choice(size.workers)
    faults = sorted(
        Fault(
            round(chance.uniform(0.1, size.faults_s), 3),
            chance.choice((*KINDS[:3], *KINDS)),
            chance.randrange(workers),
            round(chance.choice(size.last_s) * chance.uniform(0.5, 1.5), 3),
        )
        for _ in range(chance.randint(*size.faults))
    )
    return Schedule(
        seed,
        workers,
        chance.random() < 0.5,
        tuple(chance.choice((0, 0, -3_000, 4_000, 120_000)) for _ in range(workers)),
        chance.choice((0.0, 0.01, 0.05)),
        chance.choice((0.0, 0.01, 0.04)),
        size,
        _arrivals(chance, size),
        faults,
        seed % _ON_DISK == 0,
    )


def _arrivals(chance: random.Random, size: Size) -> list[Arrival]:
    """Good events, some of them repeated, later or in another partition; late, future and broken ones."""
    arrivals = []
    for number in range(chance.randint(*size.events)):
        topic, at_s = chance.choice(("taps", "taps", "buys")), chance.uniform(0.2, size.events_s)
        record_ms = START_MS + int(at_s * 1000)
        age_ms = chance.choice((0, 200, 5_000, 299_000, 1_800_000, _HOUR_MS, _HOUR_MS + 1, -9_000, -10_001))
        fields: dict[str, Any] = {
            "event_id": f"e{number}",
            "time_ms": record_ms - age_ms,
            "user_id": chance.randrange(3),
            "item_id": chance.randrange(2),
        }
        if topic == "buys":
            fields["amount"] = chance.randrange(100)
        value = json.dumps(fields).encode()
        if chance.random() < 0.06:
            value = value[: chance.randrange(len(value))]
        # A key's events go to one partition, as a producer sends them; what it sends again may not.
        partition = number % PARTITIONS
        arrivals.append(Arrival(at_s, topic, partition, record_ms, value))
        while chance.random() < 0.2:
            again_s = at_s + chance.choice((0.001, 0.5, 6.0)) * chance.random()
            again_ms = chance.choice((record_ms, START_MS + int(again_s * 1000)))
            arrivals.append(Arrival(again_s, topic, chance.randrange(PARTITIONS), again_ms, value))
    return sorted(arrivals)
