"""Where each microsecond of an event goes: the steps of the hot path, one after the other, in one process, no services.

``python -m bench.steps`` prints a table of CPU microseconds per event and, last, the same as one line of JSON.
``python -m bench.steps --write FILE`` puts the table between the two marks of a document too.

Two loads: *W1*, a count and a sum per user over an hour that advances by 5 minutes, 20,000 users, some of them much
busier than others; and the demo's own log with all its features, where an event touches three keys and five groups.
Each step is timed over the whole load in CPU time of the process, several times in turn, and the least counts: what
other programs take of the machine makes a step slower, never faster. Waiting is not in it, nor is what a broker or a
store costs: this is what the code itself does.
"""

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from agents.decode import decoders_of
from agents.dispatch import Dispatcher
from bench.w1 import REGISTRY as REGISTRY_W1
from bench.w1 import purchases
from core.definitions import Registry
from core.metrics import Metrics
from core.packs import Pack, unpack
from core.plans import plan_group
from core.topics import repartition_topic
from demo.log import load_log
from features import REGISTRY
from tables.apply import apply_pack
from tables.table import GroupTable, TablePartition, freeze

EVENTS = 40_000
ROUNDS = 3
RUN_RECORDS = 2_000
FLUSH_EVENTS = 5_000
"""A flush comes after so many events: at 100,000 a second that is one each 50 ms, which is the default interval."""

STEPS = ("decode", "pack", "unpack", "apply", "freeze")
BEGIN, END = "<!-- steps -->", "<!-- end of steps -->"

_START_MS, _APART_MS = 1_700_000_000_000, 10


class Record(NamedTuple):
    """A consumed record, as far as anybody looks at it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes


@dataclass(eq=False)
class Run:
    """Records of one partition as the transport delivers them."""

    value: list[Record]


@dataclass(frozen=True)
class Load:
    """Definitions, and the runs of source records that they get, in order."""

    name: str
    registry: Registry
    runs: list[Run]

    @property
    def records(self) -> Iterator[Record]:
        """Every record, in order."""
        return (record for run in self.runs for record in run.value)


class Producer:
    """Keeps what is sent, and acknowledges it at once."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, bytes]] = []

    async def send(self, topic: str, *, value: bytes, partition: int) -> "asyncio.Future[None]":
        """Take a record."""
        self.sent.append((topic, partition, value))
        answer = asyncio.get_running_loop().create_future()
        answer.set_result(None)
        return answer


def w1(events: int) -> Load:
    """Return purchases of 20,000 users."""
    values = purchases(events, start_ms=_START_MS, apart_ms=_APART_MS)
    return Load("w1", REGISTRY_W1, cut_runs(("purchases", value) for value in values))


def demo(events: int) -> Load:
    """Return the first events of the demo's log."""
    log = load_log()[:events]
    return Load("demo", REGISTRY, cut_runs((event.topic, event.fields) for event in log))


def cut_runs(events: Iterable[tuple[str, dict[str, Any]]], *, first_offset: int = 0) -> list[Run]:
    """Cut the events of each topic into runs; these stand in the order in which they became full."""
    offsets: dict[str, int] = {}
    open_: dict[str, Run] = {}
    runs = []
    for topic, fields in events:
        run = open_.setdefault(topic, Run([]))
        offset = offsets[topic] = offsets.get(topic, first_offset - 1) + 1
        run.value.append(Record(topic, 0, offset, fields["time_ms"], None, json.dumps(fields).encode()))
        if len(run.value) == RUN_RECORDS:
            runs.append(open_.pop(topic))
    return runs + list(open_.values())


Tables: TypeAlias = dict[tuple[str, int], TablePartition]
"""By repartition topic and partition."""


class Bench:
    """One load and the parts that it goes through, made anew for each round.

    Attributes:
        rows: Rows that the last round flushed.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._decoders = decoders_of(load.registry)
        self._plans = {group.name: plan_group(group) for group in load.registry.groups}
        self.rows = 0

    def tables(self) -> Tables:
        """Return the tables of a worker that owns all partitions, without rows."""
        registry = self._load.registry
        sources = list(registry.sources.values())
        return {
            (repartition_topic(entity.name), partition): TablePartition(
                entity.name,
                partition,
                [GroupTable(self._plans[group.name], 1) for group in registry.groups if group.entity == entity],
                sources,
            )
            for entity in registry.entities.values()
            for partition in range(entity.partitions)
        }

    def round(self, tables: Tables) -> dict[str, float]:
        """Return the CPU seconds of each step, over the whole load; its rows are in the tables afterwards.

        Decoders know the keys of the load by then, as many as they remember: what a new one costs, some 2 us, is not
        in it.
        """
        # Dispatch decodes too, and its part is what it takes longer: the first pass would be dearer than the second.
        self._decode()
        gc.collect()
        took = {"decode": _cpu_s(self._decode)}
        producer = Producer()
        took["pack"] = _cpu_s(lambda: asyncio.run(self._dispatch(producer))) - took["decode"]
        packs: list[Pack] = []
        took["unpack"] = _cpu_s(lambda: packs.extend(unpack(value) for _, _, value in producer.sent))
        places = [(topic, partition) for topic, partition, _ in producer.sent]
        took["apply"], took["freeze"] = self._aggregate(tables, places, packs)
        return took

    def _decode(self) -> None:
        decoders = self._decoders
        for record in self._load.records:
            decoders[record.topic].decode(record.value, record.timestamp)

    async def _dispatch(self, producer: Producer) -> None:
        dispatcher = Dispatcher(
            self._decoders,
            producer=lambda: producer,
            finish=lambda _run: None,
            metrics=Metrics(),
            topic_ids={},
        )
        for run in self._load.runs:
            await dispatcher.take(run)

    def _aggregate(
        self, tables: Tables, places: Sequence[tuple[str, int]], packs: Sequence[Pack]
    ) -> tuple[float, float]:
        apply_s = freeze_s = 0.0
        since = self.rows = 0
        started = time.process_time()
        events_per_update = sum(len(run.value) for run in self._load.runs) / sum(len(pack.offsets) for pack in packs)
        for offset, (place, pack) in enumerate(zip(places, packs, strict=True)):
            apply_pack(tables[place], pack, offset)
            since += len(pack.offsets)
            if since * events_per_update >= FLUSH_EVENTS or offset == len(packs) - 1:
                applied = time.process_time()
                self._freeze(tables.values())
                since, apply_s = 0, apply_s + applied - started
                started = time.process_time()
                freeze_s += started - applied
        return apply_s, freeze_s

    def _freeze(self, tables: Iterable[TablePartition]) -> None:
        for table in tables:
            for group in table.groups:
                dirty, group.dirty = group.dirty, {}
                self.rows += len(dirty)
                for key, row in dirty.items():
                    freeze(group, key, row)
                for _ in group.cool():
                    pass


def measure(events: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return, per load, CPU microseconds per event of each step, their sum, and rows flushed per event."""
    loads = [w1(events), demo(events)]
    benches = [Bench(load) for load in loads]
    best: dict[str, dict[str, float]] = {load.name: {} for load in loads}
    for _ in range(rounds):
        for load, bench in zip(loads, benches, strict=True):
            for step, took_s in bench.round(bench.tables()).items():
                best[load.name][step] = min(best[load.name].get(step, took_s), took_s)
    figures = {}
    for load, bench in zip(loads, benches, strict=True):
        count = sum(len(run.value) for run in load.runs)
        steps = {step: round(best[load.name][step] / count * 1e6, 2) for step in STEPS}
        figures[load.name] = steps | {
            "all": round(sum(steps.values()), 2),
            "rows_per_event": round(bench.rows / count, 2),
        }
    return figures


def table(figures: dict[str, dict[str, float]]) -> str:
    """Return the figures as a table in Markdown."""
    told = {
        "decode": "decode: JSON to values, checked; key and partition",
        "pack": "dispatch: pack",
        "unpack": "unpack",
        "apply": "apply: duplicate? replay? then add",
        "freeze": "flush: finish and pack changed rows",
        "all": "**all**",
        "rows_per_event": "rows flushed per event",
    }
    lines = ["| step | W1 | demo |", "| --- | ---: | ---: |"]
    lines += [f"| {text} | {figures['w1'][step]:.2f} | {figures['demo'][step]:.2f} |" for step, text in told.items()]
    return "\n".join(lines)


def write_table(path: Path, text: str) -> None:
    """Put the table between the marks of a document."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def _cpu_s(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=EVENTS, help="events of each load")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each step is measured")
    parser.add_argument("--write", type=Path, help="a document with marks for the table")
    options = parser.parse_args()
    # As in a worker (``app.worker``): looking through the tables finds nothing.
    gc.set_threshold(50_000, 50, 1_000)
    figures = measure(options.events, options.rounds)
    text = table(figures)
    sys.stdout.write(f"CPU microseconds per event, the least of {options.rounds}\n\n{text}\n\n")
    if options.write is not None:
        write_table(options.write, text)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
