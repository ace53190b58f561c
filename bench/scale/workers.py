"""Events per second of one worker and of two that share the partitions, on Kafka and Redis; answers are checked."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from app.kafka.topics import Kind
from app.settings import Role
from app.worker_process import WorkerProcess
from bench.ingest.ground import Ground, open_ground, until
from bench.ingest.ours import Workers, cpu_s, wrong_spent
from bench.w1 import HOUR_MS, PARTITIONS, PURCHASES, REGISTRY, payload, purchases
from demo.figures import read_figures, read_ingest

_SYSTEM_CORE, _SERVICES_CORE = 0, 1
_SPAN_MS = 3 * HOUR_MS
_DONE_S = 240.0


@dataclass(frozen=True, slots=True)
class Together:
    """What workers gave, from the moment when all events were in the topic until all were applied.

    Attributes:
        cpu_us: CPU time of the workers, microseconds per event.
        shares: Share of the events that each of them applied.
        wrong: Users who are served something else than the reference.
    """

    workers: int
    events_per_s: float
    cpu_us: float
    shares: tuple[float, ...]
    wrong: int


def run(events: int, *, workers: Sequence[int]) -> list[Together]:
    """Let so many workers take all events, for each of the numbers anew; the kernel chooses their cores."""
    now_ms = time.time_ns() // 1_000_000
    bought = purchases(events, start_ms=now_ms - _SPAN_MS, apart_ms=_SPAN_MS / events)
    with open_ground(core=_SERVICES_CORE) as ground:
        # A broker that has had no topic yet knows no groups.
        ground.fill(PURCHASES.topic, (), partitions=PARTITIONS)
        return [_run(ground, bought, number) for number in workers]


def _run(ground: Ground, bought: Sequence[dict[str, Any]], number: int) -> Together:
    records = [(str(one["user_id"]), one["time_ms"], payload(one)) for one in bought]
    ground.clear(REGISTRY, [Role.ALL], Kind.SOURCE, Kind.REPARTITION, Kind.CHANGELOG)
    ground.fill(PURCHASES.topic, (), partitions=PARTITIONS)
    pool = Workers(ground, _SYSTEM_CORE)
    roles = [Role.ALL] * number
    with pool.start("bench.w1:REGISTRY", *roles, record=f"scale-{number}", pinned=False) as started:
        for worker in started:
            worker.wait_ready(deadline_s=60)
        processes = [psutil.Process(worker.process.pid) for worker in started]
        ground.fill(PURCHASES.topic, records, partitions=PARTITIONS)
        began, before, cpu = time.monotonic(), sum(_applied(started)), cpu_s(processes)
        until(lambda: sum(_applied(started)) >= len(bought), "all events are applied", deadline_s=_DONE_S)
        seconds, cpu = time.monotonic() - began, cpu_s(processes) - cpu
        for worker in started:
            until(lambda worker=worker: read_ingest(worker.base_url).lag == 0, "everything is durable")
        counted, left = _applied(started), len(bought) - before
        return Together(
            number,
            left / seconds,
            cpu / left * 1e6,
            tuple(one / sum(counted) for one in counted),
            wrong_spent(started[0].base_url, bought),
        )


def _applied(workers: Sequence[WorkerProcess]) -> list[int]:
    return [read_figures(worker.base_url).events_applied for worker in workers]
