"""State: what a key costs in memory and on disk, and an event in CPU, by the engine that keeps cold rows.

``python -m bench.state --keys 1000000,10000000`` restores tables of so many keys from a changelog that is made up on
the way, then applies events whose keys are drawn by Zipf's law (the n-th key a n-th as often as the first), and events
that touch every key alike, which is the worst case. It prints a table and a line of JSON. Each engine and number of
keys has a process of its own. There is no broker: what is measured are the tables.

The rows are those of W1 (``bench.w1``): number and sum over an hour in tiles of 5 minutes. CPU is that of the whole
process, RocksDB's own threads included.
"""

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from aiokafka import TopicPartition

from bench.w1 import PARTITIONS, PURCHASES, REGISTRY, TILE_MS
from core.packs import PACK_FORMAT, PACK_UPDATES_MAX, Pack
from core.plans import plan_group
from core.topics import changelog_topic
from tables.apply import apply_pack
from tables.disk import TablesDisk
from tables.engine import MEMORY, Engine
from tables.restore import Restoration
from tables.table import GroupTable, LiveRow, TablePartition, freeze

KEYS = "1000000,10000000"
EVENTS = 200_000
MEMORY_MAX = 12 << 30
"""Where the memory engine would need more, as the run before it tells, it is left out."""
CACHE_BYTES = 256 << 20

_NOW_MS = 1_700_000_000_000
_RUN_RECORDS = 2_000
_FLUSH_EVENTS = 5_000
_STATES = 20_000
_TILES_MAX = 6
_SCATTER = 2_654_435_761
"""Odd, and no factor of a number of keys: neighbours by rank are no neighbours by key."""

(GROUP,) = REGISTRY.groups
PLAN = plan_group(GROUP)


@dataclass(frozen=True, slots=True)
class Figures:
    """One engine with one number of keys.

    Attributes:
        row_bytes: Mean size of a packed row.
        memory_bytes: Resident memory when all keys are restored and events were applied.
        memory_bytes_per_key: Of it what was not there before the first key, per key.
        disk_bytes: Size of the directory.
        restored_per_s: Records a second, by the clock.
        restore_us: CPU of a record.
        zipf_us: CPU of an event, from its pack to its row ready to be written, by Zipf's law.
        uniform_us: The same if every key is as likely.
        stall_ms_p99: The pieces of such work that hold up the event loop: 99 of 100 are not longer.
        stall_ms_max: The longest.
    """

    engine: str
    keys: int
    row_bytes: int
    memory_bytes: int
    memory_bytes_per_key: float
    disk_bytes: int
    restored_per_s: float
    restore_us: float
    zipf_us: float
    uniform_us: float
    stall_ms_p99: float
    stall_ms_max: float


class _Message:
    __slots__ = ("_key", "_value")

    def __init__(self, key: bytes, value: bytes) -> None:
        self._key, self._value = key, value

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes:
        return self._value


class State:
    """The tables of all partitions of one entity, in one process."""

    def __init__(self, engine: Engine, keys: int) -> None:
        self._keys = keys
        self._entity = GROUP.entity.name
        self._tables = [
            TablePartition(self._entity, partition, [GroupTable(PLAN, 1, engine)], [PURCHASES])
            for partition in range(PARTITIONS)
        ]
        self._chance = random.Random(1)  # noqa: S311  # a load, no secret
        self._changes = _changes(self._chance)
        self._offset = _STATES
        self.row_bytes = sum(map(len, self._changes)) // len(self._changes)
        self.stalls_s: list[float] = []

    def restore(self) -> tuple[float, float]:
        """Restore all keys; return seconds by the clock, and of CPU."""
        places = [TopicPartition(changelog_topic(self._entity), partition) for partition in range(PARTITIONS)]
        restoration = Restoration(dict(zip(places, self._tables, strict=True)))
        wall_s = cpu_s = 0.0
        for start in range(0, self._keys, _RUN_RECORDS * PARTITIONS):
            users = range(start, min(start + _RUN_RECORDS * PARTITIONS, self._keys))
            for partition, tp in enumerate(places):
                run: Any = [self._record(user) for user in users[partition::PARTITIONS]]
                began, began_cpu = time.perf_counter(), time.process_time()
                restoration.take_run(tp, run)
                wall_s += time.perf_counter() - began
                cpu_s += time.process_time() - began_cpu
        restoration.refuse_unreadable()
        assert sum(len(table.groups[0]) for table in self._tables) == self._keys
        return wall_s, cpu_s

    def apply(self, events: int, draw: Callable[[], int]) -> float:
        """Apply events and freeze what they changed; return seconds of CPU."""
        cpu_s = 0.0
        for _ in range(0, events, _FLUSH_EVENTS):
            packs = list(self._packs([draw() for _ in range(_FLUSH_EVENTS)]))
            began = time.process_time()
            for table, pack in packs:
                self._offset += 1
                self._timed(lambda table=table, pack=pack: apply_pack(table, pack, self._offset))
            for table in self._tables:
                (group,) = table.groups
                dirty, group.dirty = group.dirty, {}
                for key, row in dirty.items():
                    freeze(group, key, row)
                steps = group.cool()
                while self._timed(lambda steps=steps: next(steps, steps)) is not steps:
                    pass
            cpu_s += time.process_time() - began
        return cpu_s

    def uniform(self) -> int:
        """Draw a key, each as likely as any other."""
        return self._chance.randrange(self._keys)

    def zipf(self) -> int:
        """Draw a key by Zipf's law, of which the n-th key has a share of about ln((n + 1) / n) / ln(keys)."""
        return int(self._keys ** self._chance.random()) * _SCATTER % self._keys

    def _timed(self, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        done = work()
        self.stalls_s.append(time.perf_counter() - began)
        return done

    def _record(self, user: int) -> _Message:
        # Bytes of its own, as each record that is read has; memory is what is measured.
        change = bytes(memoryview(self._changes[user * 7 % _STATES]))
        return _Message(f"{self._entity}#i{user} {GROUP.name}@v1".encode(), change)

    def _packs(self, users: Sequence[int]) -> Iterator[tuple[TablePartition, Pack]]:
        for partition, table in enumerate(self._tables):
            mine = [user for user in users if user % PARTITIONS == partition]
            for start in range(0, len(mine), PACK_UPDATES_MAX):
                yield table, self._pack(mine[start : start + PACK_UPDATES_MAX])

    def _pack(self, users: Sequence[int]) -> Pack:
        count = len(users)
        first = self._offset * 1_000
        self._offset += count
        return Pack(
            PACK_FORMAT,
            PURCHASES.topic,
            "id",
            0,
            list(_COLUMNS),
            list(range(first, first + count)),
            [_NOW_MS + TILE_MS] * count,
            [_NOW_MS + self._chance.randrange(TILE_MS) for _ in users],
            [f"{first + number:016x}" for number in range(count)],
            [0] * count,
            [f"i{user}" for user in users],
            [[self._chance.randrange(100, 10_000) for _ in users] for _ in _COLUMNS],
        )


_COLUMNS = ("price_cents",)


def _changes(chance: random.Random) -> list[bytes]:
    """Return changelog values of different rows, with one to six tiles."""
    (resolution,) = PLAN.resolutions
    group, last, made = GroupTable(PLAN, 1), _NOW_MS // TILE_MS, []
    for number in range(_STATES):
        tiles = {}
        for back in chance.sample(range(12), chance.randint(1, _TILES_MAX)):
            events = chance.randint(1, 5)
            tiles[last - back] = [last - back, *_states(resolution, events, chance)]
        at_ms = _NOW_MS - chance.randrange(TILE_MS)
        stamps = {"purchases@id": {partition: chance.randrange(1 << 30) for partition in range(chance.randint(1, 2))}}
        made.append(freeze(group, "i1", LiveRow([tiles], stamps, number + 1, at_ms, at_ms)).change)
    return made


def _states(resolution: Any, events: int, chance: random.Random) -> list[int]:
    return [events if slot.value is None else chance.randrange(100, 10_000) * events for slot in resolution.slots]


def measure(engine: str, keys: int, events: int, directory: Path) -> Figures:
    """Measure one engine, in this process."""
    disk = TablesDisk(directory, cache_bytes=CACHE_BYTES)
    state = State(disk.open() if engine == "disk" else MEMORY, keys)
    before = _resident()
    wall_s, restore_s = state.restore()
    state.apply(events, state.zipf)
    state.stalls_s.clear()
    zipf_s = state.apply(events, state.zipf)
    uniform_s = state.apply(events, state.uniform)
    after, stalls = _resident(), sorted(state.stalls_s)
    figures = Figures(
        engine=engine,
        keys=keys,
        row_bytes=state.row_bytes,
        memory_bytes=after,
        memory_bytes_per_key=round((after - before) / keys, 1),
        disk_bytes=sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()),
        restored_per_s=round(keys / wall_s),
        restore_us=round(restore_s / keys * 1e6, 2),
        zipf_us=round(zipf_s / events * 1e6, 2),
        uniform_us=round(uniform_s / events * 1e6, 2),
        stall_ms_p99=round(stalls[len(stalls) * 99 // 100] * 1e3, 1),
        stall_ms_max=round(stalls[-1] * 1e3, 1),
    )
    del state
    disk.close()
    return figures


def table(figures: Sequence[Figures]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| keys | rows in | memory | per key | disk | restored/s | us/record | us/event: Zipf | uniform | stall |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one.keys:,} | {one.engine} | {one.memory_bytes >> 20:,} MB | {one.memory_bytes_per_key:,.0f} B | "
        f"{one.disk_bytes >> 20:,} MB | {one.restored_per_s:,.0f} | {one.restore_us:.1f} | {one.zipf_us:.1f} | "
        f"{one.uniform_us:.1f} | {one.stall_ms_p99:.0f} ms |"
        for one in figures
    ]
    return "\n".join(lines)


def _resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def _in_own_process(engine: str, keys: int, events: int, directory: Path) -> Figures:
    command = [sys.executable, "-m", "bench.state", "--keys", str(keys), "--events", str(events)]
    done = subprocess.run(
        [*command, "--engine", engine, "--directory", str(directory)], check=True, stdout=subprocess.PIPE
    )
    return Figures(**json.loads(done.stdout))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keys", default=KEYS, help="numbers of keys, with commas between")
    parser.add_argument("--events", type=int, default=EVENTS, help="events of each kind")
    parser.add_argument("--directory", type=Path, help="where the disk is tried; a temporary directory by default")
    parser.add_argument("--engine", choices=["memory", "disk"], help="measure one, in this process")
    options = parser.parse_args()
    sizes = [int(one) for one in options.keys.split(",")]
    if options.engine is not None:
        # As in a worker (``app.worker``).
        gc.set_threshold(50_000, 50, 1_000)
        sys.stdout.write(json.dumps(asdict(measure(options.engine, sizes[0], options.events, options.directory))))
        return
    figures: list[Figures] = []
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        for keys in sizes:
            for engine in ("memory", "disk"):
                per_key = max(
                    (one.memory_bytes_per_key for one in figures if one.engine == engine == "memory"), default=0
                )
                if keys * per_key <= MEMORY_MAX:
                    figures.append(_in_own_process(engine, keys, options.events, Path(name)))
    sys.stdout.write(f"rows of {figures[0].row_bytes} bytes\n\n{table(figures)}\n\n")
    sys.stdout.write(json.dumps([asdict(one) for one in figures]) + "\n")


if __name__ == "__main__":
    main()
