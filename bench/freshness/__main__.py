"""``make bench-freshness``: from an event's sending until it can be read over HTTP; last, one line of JSON.

One worker of all roles on one core; Kafka, Redis, the sender and the reader on the other.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, dataclass

import plotext
import psutil
import typer
from rich.console import Console
from rich.table import Table

from app.kafka.topics import Kind
from app.settings import Role
from app.worker_process import WorkerProcess
from bench.freshness.load import Stretch, events_of, sending
from bench.freshness.probes import Seen, probe
from bench.ingest.ground import Ground, open_ground
from bench.ingest.ours import Workers
from bench.w1 import PARTITIONS, PURCHASES, REGISTRY
from demo.figures import read_figures, read_ingest

_SYSTEM_CORE, _SERVICES_CORE = 0, 1
_LEAD_S = 2.0
_DRAINED_S = 120.0
_NORMAL_RATE, _TIMES, _BURST_S, _BEFORE_S, _AFTER_S = 2_000.0, 10, 10.0, 10.0, 40.0


@dataclass(frozen=True, slots=True)
class At:
    """What one rate gave.

    Attributes:
        rate: Events per second.
        lost: Events or probes that are nowhere.
    """

    rate: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    lost: int


@dataclass(frozen=True, slots=True)
class Burst:
    """What a burst of ten times as many events gave.

    Attributes:
        normal_p99_ms: Before.
        worst_ms: Of all probes.
        back_s: How long after its end a second's p99 was no more than twice the normal one.
        grown_mb: By how much the worker's memory grew.
    """

    normal_p99_ms: float
    worst_ms: float
    back_s: float
    grown_mb: float
    lost: int


def main(rates: str = "2000,5000,10000,20000,30000,40000", seconds: float = 15.0, *, burst: bool = True) -> None:
    """Measure.

    Args:
        rates: Events per second, one after the other.
        seconds: How long each.
        burst: Whether to measure a burst of ten times 2,000/s too.
    """
    with open_ground(core=_SERVICES_CORE) as ground:
        ground.fill(PURCHASES.topic, (), partitions=PARTITIONS)
        ground.clear(REGISTRY, [Role.ALL], Kind.REPARTITION, Kind.CHANGELOG)
        workers = Workers(ground, _SYSTEM_CORE)
        with workers.start("bench.w1:REGISTRY", Role.ALL, record="freshness") as (worker,):
            worker.wait_ready(deadline_s=60)
            _steady(ground, worker, 2_000, 5.0, run=0)
            found = [
                _steady(ground, worker, int(rate), seconds, run=number + 1)
                for number, rate in enumerate(rates.split(","))
            ]
            bursting = _burst(ground, worker, run=99) if burst else None
    Console().print(_table(found, bursting))
    sys.stdout.write(_curve(found) + "\n")
    figures = {"rates": [asdict(one) for one in found], "burst": bursting and asdict(bursting)}
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.exit(any(one.lost for one in found) or bool(bursting and bursting.lost))


def _steady(ground: Ground, worker: WorkerProcess, rate: int, seconds: float, *, run: int) -> At:
    stretches = [Stretch(rate, seconds + _LEAD_S)]
    seen, lost = _watch(ground, worker, stretches, run=run)
    at = At(
        rate,
        *(round(seen.share_ms(share, start=_LEAD_S), 1) for share in (0.5, 0.99, 0.999)),
        lost=lost,
    )
    sys.stderr.write(f"{at}\n")
    return at


def _burst(ground: Ground, worker: WorkerProcess, *, run: int) -> Burst:
    stretches = [
        Stretch(_NORMAL_RATE, _BEFORE_S), Stretch(_TIMES * _NORMAL_RATE, _BURST_S), Stretch(_NORMAL_RATE, _AFTER_S),
    ]  # fmt: skip
    memory = psutil.Process(worker.process.pid).memory_info
    before = memory().rss
    seen, lost = _watch(ground, worker, stretches, run=run)
    normal = seen.share_ms(0.99, start=_LEAD_S, end=_BEFORE_S)
    ended = _BEFORE_S + _BURST_S
    back = next(
        (
            second
            for second in range(int(_AFTER_S))
            if seen.share_ms(0.99, start=ended + second, end=ended + second + 1) <= 2 * normal
        ),
        float("inf"),
    )
    grown_mb = (memory().rss - before) / 1e6
    return Burst(round(normal, 1), round(seen.share_ms(1.0), 1), float(back), round(grown_mb, 1), lost)


def _watch(ground: Ground, worker: WorkerProcess, stretches: list[Stretch], *, run: int) -> tuple[Seen, int]:
    """Send and probe; return the probes, and how many events and probes are nowhere when all is done."""
    before = read_figures(worker.base_url).events_applied
    seconds = sum(one.seconds for one in stretches)
    port = int(worker.base_url.rpartition(":")[2])
    os.sched_setaffinity(0, {_SERVICES_CORE})
    with sending(ground.broker, stretches, run=run, core=_SERVICES_CORE):
        seen = asyncio.run(probe(ground.broker, port, run=run, seconds=seconds))
    wanted = events_of(stretches) + len(seen.probes) + seen.lost
    deadline = time.monotonic() + _DRAINED_S
    while time.monotonic() < deadline:
        applied = read_figures(worker.base_url).events_applied - before
        if applied >= wanted and read_ingest(worker.base_url).lag == 0:
            break
        time.sleep(0.2)
    return seen, abs(wanted - applied) + seen.lost


def _table(found: list[At], burst: Burst | None) -> Table:
    table = Table("events/s", "p50 ms", "p99 ms", "p99.9 ms", "lost", title="From sending to readable over HTTP")
    for one in found:
        table.add_row(f"{one.rate:,}", f"{one.p50_ms:,}", f"{one.p99_ms:,}", f"{one.p999_ms:,}", str(one.lost))
    if burst is not None:
        table.caption = (
            f"a burst of {_TIMES} times {_NORMAL_RATE:,.0f}/s for {_BURST_S:.0f} s: worst {burst.worst_ms:,} ms, "
            f"back to normal {burst.back_s:.0f} s after it, {burst.grown_mb} MB more memory, {burst.lost} lost"
        )
    return table


def _curve(found: list[At]) -> str:
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(72, 16)
    plotext.title("p99 in ms, by events per second")
    plotext.bar([f"{one.rate:,}" for one in found], [one.p99_ms for one in found])
    chart: str = plotext.uncolorize(plotext.build())
    return chart


if __name__ == "__main__":
    typer.run(main)
