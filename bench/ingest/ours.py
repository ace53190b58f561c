"""Runs of our workers over what is in the topics: how long, how much CPU and memory, and what is wrong afterwards."""

import asyncio
import contextlib
import json
import os
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from app.dead_letters import read_topic
from app.kafka.access import KafkaAccess
from app.kafka.topics import Kind
from app.settings import Role
from app.worker_process import WorkerProcess, start_worker
from bench.ingest.figures import Run
from bench.ingest.ground import Ground, until
from bench.w1 import FAN_OUT, REGISTRY, Spent, served_from_ms, spent
from core.keys import encode_key
from core.packs import unpack
from core.topics import repartition_topic
from demo.check import check_served
from demo.figures import Figures, read_figures, read_ingest
from demo.log import DemoEvent
from demo.oracle import Oracle
from features import REGISTRY as DEMO
from services.server_process import free_ports

_LOOK_MIN_S, _LOOK_MAX_S = 0.01, 0.1
_BUSY_S = 300.0
_KEYS_PER_REQUEST = 500
_W1, _FAN_OUT, _DEMO = "bench.w1:REGISTRY", "bench.w1:FAN_OUT", "features:REGISTRY"


@dataclass(frozen=True, slots=True)
class Workers:
    """Starts workers on a ground, each run with a record of its own."""

    ground: Ground
    core: int

    @contextlib.contextmanager
    def start(
        self, registry: str, *roles: Role, record: str, redis: bool = True, pinned: bool = True
    ) -> Iterator[list[WorkerProcess]]:
        """Start a worker per role; stop them at the end."""
        directory = self.ground.directory
        workers: list[WorkerProcess] = []
        try:
            for role, port in zip(roles, free_ports(len(roles)), strict=True):
                settings = {
                    "FRESHET_BROKER": self.ground.broker,
                    "FRESHET_REDIS": self.ground.redis_url if redis else "none",
                    "FRESHET_RECORD": f"sqlite:///{directory / record}.sqlite",
                    "FRESHET_REGISTRY": registry,
                    "FRESHET_ROLE": role.value,
                    "FRESHET_APPLY": "true",
                    "FRESHET_PAGE_PORT": "0",
                    "FRESHET_SESSION_TIMEOUT_MS": "6000",
                }
                worker = start_worker(settings, web_port=port, log=directory / f"{record}-{role.value}-{port}.log")
                workers.append(worker)
                if len(workers) < len(roles):
                    # It applies the definitions; two at once would refuse each other.
                    worker.wait_ready()
                # Before it has threads: they inherit it, as it has inherited the core that this process is pinned to.
                cores = {self.core} if pinned else range(os.cpu_count() or 1)
                os.sched_setaffinity(worker.process.pid, cores)
            yield workers
        finally:
            for worker in workers:
                worker.stop()

    def serving(self, registry: str, record: str) -> contextlib.AbstractContextManager[list[WorkerProcess]]:
        """Start a worker that only reads."""
        return self.start(registry, Role.SERVING, record=record, redis=False, pinned=False)


def run_path(workers: Workers, events: Sequence[dict[str, Any]], name: str) -> Run:
    """Run everything in one worker; what it dispatches stays, for ``run_aggregator``."""
    record = f"path-{name}"
    workers.ground.clear(REGISTRY, [Role.ALL], Kind.REPARTITION, Kind.CHANGELOG)
    with workers.start(_W1, Role.ALL, record=record) as started:
        timed = _time(started, len(events), _applied)
        return timed.run(wrong_spent(started[0].base_url, events))


def run_two(workers: Workers, events: Sequence[dict[str, Any]], name: str) -> Run:
    """Run a dispatcher and an aggregator, on whatever cores the kernel gives them."""
    record = f"two-{name}"
    workers.ground.clear(REGISTRY, [Role.DISPATCHER, Role.AGGREGATOR], Kind.REPARTITION, Kind.CHANGELOG)
    with workers.start(_W1, Role.AGGREGATOR, Role.DISPATCHER, record=record, pinned=False) as started:
        timed = _time(started, len(events), _applied)
    return timed.run(_wrong_in_record(workers, events, record))


def run_aggregator(workers: Workers, events: Sequence[dict[str, Any]], name: str) -> Run:
    """Run the aggregator over what a dispatcher has left, with changelog and record, without Redis."""
    record = f"aggregator-{name}"
    workers.ground.clear(REGISTRY, [Role.AGGREGATOR], Kind.CHANGELOG)
    with workers.start(_W1, Role.AGGREGATOR, record=record, redis=False) as started:
        timed = _time(started, len(events), _applied)
    return timed.run(_wrong_in_record(workers, events, record))


def run_dispatcher(workers: Workers, events: Sequence[dict[str, Any]], name: str) -> Run:
    """Run the dispatcher, each event validated and sent on to three entities."""
    record = f"dispatcher-{name}"
    workers.ground.clear(FAN_OUT, [Role.DISPATCHER], Kind.REPARTITION)
    with workers.start(_FAN_OUT, Role.DISPATCHER, record=record, redis=False) as started:
        timed = _time(started, len(events), lambda figures: figures.dispatched)
    return timed.run(_wrong_packs(workers.ground.broker, events))


def run_demo(workers: Workers, events: Sequence[DemoEvent], name: str, *, check: bool) -> Run:
    """Run the demo's domain in one worker, and compare every served value with the demo's oracle if asked to."""
    record = f"demo-{name}"
    workers.ground.clear(DEMO, [Role.ALL], Kind.REPARTITION, Kind.CHANGELOG)
    with workers.start(_DEMO, Role.ALL, record=record) as started:
        timed = _time(started, len(events), lambda figures: figures.accounted)
        if not check:
            return timed.run(0)
        return timed.run(asyncio.run(check_served(started[0].base_url, Oracle(events))).values_wrong)


# -- to measure


@dataclass(frozen=True, slots=True)
class _Timed:
    events: int
    seconds: float
    cpu_s: float
    peak_bytes: int

    def run(self, wrong: int) -> Run:
        return Run(self.events, self.seconds, self.cpu_s, self.peak_bytes, wrong)


def _time(workers: Sequence[WorkerProcess], events: int, done: Callable[[Figures], int]) -> _Timed:
    """Follow workers until all events are done and everything is durable: in changelog and stores.

    The clock starts with the last look at which nothing was begun yet, and stops with the first at which all is over:
    it is up to 0.05 s too slow, never too fast.
    """
    processes = [psutil.Process(worker.process.pid) for worker in workers]
    started, cpu_started, peak = time.monotonic(), cpu_s(processes), 0
    deadline = started + _BUSY_S
    while True:
        looked, cpu = time.monotonic(), cpu_s(processes)
        figures = [found for worker in workers if (found := _figures(worker)) is not None]
        number = sum(map(done, figures))
        peak = max(peak, sum(process.memory_info().rss for process in processes))
        if not any(found.dispatched or found.applied or found.duplicates for found in figures):
            started, cpu_started = looked, cpu
        if number >= events:
            break
        if looked > deadline or not all(worker.is_alive for worker in workers):
            raise TimeoutError(f"{number} of {events} events done; {[worker.log_tail() for worker in workers]}")
        time.sleep(_pause_s(number / events, since_s=looked - started))
    for worker in workers:
        until(lambda worker=worker: read_ingest(worker.base_url).lag == 0, "everything is durable")
    return _Timed(events, time.monotonic() - started, cpu_s(processes) - cpu_started, peak)


def _pause_s(share_done: float, *, since_s: float) -> float:
    """Return how long until the next look: each costs the worker a millisecond, and the end must not be missed."""
    if not share_done:
        return _LOOK_MIN_S
    left_s = since_s * (1 - share_done) / share_done
    return min(max(left_s / 2, _LOOK_MIN_S), _LOOK_MAX_S)


def _figures(worker: WorkerProcess) -> Figures | None:
    # It does not listen yet.
    with contextlib.suppress(OSError):
        return read_figures(worker.base_url)
    return None


def _applied(figures: Figures) -> int:
    return figures.events_applied


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    """Return the CPU time of processes so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


# -- to check


def _wrong_in_record(workers: Workers, events: Sequence[dict[str, Any]], name: str) -> int:
    with workers.serving(_W1, name) as (worker,):
        until(worker.answers, "it serves")
        return wrong_spent(worker.base_url, events)


def wrong_spent(base_url: str, events: Sequence[dict[str, Any]]) -> int:
    """Return how many users are served something else than the reference at the instant of the answer."""
    users = sorted({event["user_id"] for event in events})
    wrong = 0
    references: dict[int, Mapping[int, Spent]] = {}
    for start in range(0, len(users), _KEYS_PER_REQUEST):
        asked = users[start : start + _KEYS_PER_REQUEST]
        instant_ms, purchases, cents = _read(base_url, asked)
        from_ms = served_from_ms(instant_ms)
        if from_ms not in references:
            references[from_ms] = spent(events, from_ms=from_ms, to_ms=instant_ms)
        served = map(Spent, purchases, [number or 0 for number in cents])
        wrong += sum(one != references[from_ms].get(user, Spent()) for user, one in zip(asked, served, strict=True))
    return wrong


def _read(base_url: str, users: Sequence[int]) -> tuple[int, list[int], list[int | None]]:
    """Return the instant of an answer, and per user number and sum."""
    request = {"entities": {"user_id": users}, "features": ["spend:purchases_1h", "spend:cents_1h"]}
    body = json.dumps(request).encode()
    with urllib.request.urlopen(f"{base_url}/get-online-features", data=body, timeout=30) as response:  # noqa: S310  # loopback
        answer = json.load(response)
    by_name = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    values = [result["values"] for name, result in by_name.items() if name != "user_id"]
    return answer["metadata"]["instant_ms"], *values


def _wrong_packs(broker: str, events: Sequence[dict[str, Any]]) -> int:
    """Return for how many keys of the three entities number and sum of what was sent on are not the events'."""
    wrong = 0
    for entity in FAN_OUT.entities.values():
        expected: Counter[str] = Counter()
        for event in events:
            key = encode_key([event[column] for column in entity.keys])
            expected[key] += 1
            expected[f"cents of {key}"] += event["price_cents"]
        for message in read_topic(KafkaAccess((broker,)), repartition_topic(entity.name)):
            pack = unpack(message.value())
            expected.subtract(pack.keys)
            for key, cents in zip(pack.keys, pack.columns[pack.names.index("price_cents")], strict=True):
                expected[f"cents of {key}"] -= cents
        wrong += sum(bool(left) for left in expected.values())
    return wrong
