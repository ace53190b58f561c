"""``make bench-memory``: a worker under a load that stays as it is, its memory each 10 s; last, one line of JSON.

One worker of all roles, as it is, takes purchases and answers reads, with Kafka and Redis beside it. It is not about
speed: others may use the machine meanwhile. Exits with 1 if memory grows, an event is lost, or a read has no answer.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import typer
from confluent_kafka import Producer
from rich.console import Console

from app.kafka.topics import Kind
from app.settings import Role
from app.worker_process import WorkerProcess
from bench.faults.readers import Readers
from bench.ingest.ground import open_ground, until
from bench.ingest.ours import Workers
from bench.serving.wire import request
from bench.steady.domain import FEATURES, REGISTRY, SOURCE, endless
from bench.steady.trend import Sample, is_good, table, told, trend
from bench.w1 import PARTITIONS, USERS, payload
from demo.figures import read_figures, read_ingest

_SERVICES_CORE = 1
_EVERY_S, _SLICE_S = 10.0, 0.02
_USERS_PER_READ = 10
_SETTLED_S = 60.0


class Load:
    """Purchases and reads at a rate."""

    def __init__(self, broker: str, worker: WorkerProcess, *, events_per_s: float, reads_per_s: float) -> None:
        self._producer = Producer(
            {"bootstrap.servers": broker, "partitioner": "murmur2_random", "enable.idempotence": True, "linger.ms": 5}
        )
        self._readers = Readers(int(worker.base_url.rpartition(":")[2]))
        self._chance = random.Random(1)  # noqa: S311  # the same load each time
        self._events: Iterator[dict[str, Any]] = endless(self._chance)
        self._events_per_s, self._reads_per_s = events_per_s, reads_per_s
        self.sent = 0

    async def go_on(self, seconds: float) -> Counter[int]:
        """Send and read for a while; return how many reads there were, by the status of their answers."""
        reads = self._readers.at_rate(self._reads_per_s, seconds, self._read)
        _, answers = await asyncio.gather(self._send(seconds), reads)
        return Counter(answer.status for answer in answers)

    def close(self) -> None:
        """Wait until all is acknowledged."""
        self._producer.flush(_SETTLED_S)
        self._readers.close()

    async def _send(self, seconds: float) -> None:
        started, first = time.monotonic(), self.sent
        while (passed := time.monotonic() - started) < seconds:
            for _ in range(first + int(passed * self._events_per_s) - self.sent):
                event = next(self._events)
                self._producer.produce(SOURCE.topic, key=str(event["user_id"]), value=payload(event))
                self.sent += 1
            self._producer.poll(0)
            await asyncio.sleep(_SLICE_S)

    def _read(self) -> bytes:
        return request([self._chance.randrange(USERS) for _ in range(_USERS_PER_READ)], FEATURES)


def main(
    minutes: float = 30.0,
    warm_up: float = 15.0,
    events_per_s: float = 1_000.0,
    reads_per_s: float = 20.0,
    out: Path | None = None,
) -> None:
    """Measure.

    Args:
        minutes: How long memory is looked at.
        warm_up: How many minutes before that, so that everything which is remembered for a while is there: the rarest
            users come once in three or four.
        events_per_s: Purchases sent a second.
        reads_per_s: Reads a second, each of ten users.
        out: Where to write the samples as JSON.
    """
    with open_ground(core=_SERVICES_CORE) as ground:
        ground.fill(SOURCE.topic, (), partitions=PARTITIONS)
        ground.clear(REGISTRY, [Role.ALL], Kind.REPARTITION, Kind.CHANGELOG)
        with Workers(ground, 0).start("bench.steady.domain:REGISTRY", Role.ALL, record="steady", pinned=False) as (
            worker,
        ):
            worker.wait_ready(deadline_s=60)
            load = Load(ground.broker, worker, events_per_s=events_per_s, reads_per_s=reads_per_s)
            samples, reads = asyncio.run(_watch(load, worker, warm_up_s=warm_up * 60, seconds=minutes * 60))
            until(lambda: read_figures(worker.base_url).accounted >= load.sent, "all is applied", deadline_s=_SETTLED_S)
            lost = load.sent - read_figures(worker.base_url).in_one_set
    found = trend(samples)
    if out is not None:
        out.write_text(json.dumps([asdict(sample) for sample in samples]) + "\n")
    title = f"{events_per_s:,.0f} events and {reads_per_s:,.0f} reads a second for {minutes:g} minutes"
    Console().print(title, table(samples), told(found))
    figures = asdict(found) | {"growth": round(found.growth, 4), "lag_max": max(sample.lag for sample in samples)}
    figures |= {"lost": lost, "reads": reads}
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.exit(not is_good(found, lost=lost, reads=reads))


async def _watch(
    load: Load, worker: WorkerProcess, *, warm_up_s: float, seconds: float
) -> tuple[list[Sample], Counter[int]]:
    reads: Counter[int] = Counter()
    memory = psutil.Process(worker.process.pid).memory_info
    started = time.monotonic()
    samples: list[Sample] = []
    while time.monotonic() - started - warm_up_s < seconds:
        reads += await load.go_on(_EVERY_S)
        at_s = time.monotonic() - started - warm_up_s
        ingest = await asyncio.to_thread(read_ingest, worker.base_url)
        sample = Sample(round(at_s, 1), memory().rss, ingest.rows, ingest.lag)
        sys.stderr.write(f"{sample}\n")
        if at_s >= 0:
            samples.append(sample)
    load.close()
    return samples, reads


if __name__ == "__main__":
    typer.run(main)
