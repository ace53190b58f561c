"""What a row costs in memory, beyond its packed bytes and stamps: measured in a process of its own."""

import gc
import multiprocessing
from dataclasses import dataclass

import psutil

from bench.scale.case import Case
from bench.steps import FLUSH_EVENTS, Bench
from bench.w1 import PARTITIONS
from core.keys import encode_key, kafka_partition
from tables.table import freeze, thaw


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes per row of a table.

    Attributes:
        packed: Of its changelog value: the packed row and its stamps.
        overhead: Of everything else: key, places in tables, and what a live row has beside its bytes.
    """

    rows: int
    packed: float
    overhead: float


def held(rows: int) -> Held:
    """Return what so many full rows hold after they were flushed and have cooled down as far as they do."""
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        found: Held = alone.apply(_held, (rows,))
    return found


def _held(rows: int) -> Held:
    case = Case(keys=rows)
    tables = {place[1]: table.groups[0] for place, table in Bench(case.load(0)).tables().items()}
    first = next(iter(tables.values()))
    change = freeze(first, "", case.full_row()).change
    # As in a worker (``app.worker``).
    gc.set_threshold(50_000, 50, 1_000)
    gc.collect()
    before, packed = psutil.Process().memory_info().rss, 0
    for user in range(rows):
        key = encode_key((user,))
        group = tables[kafka_partition(key, PARTITIONS)]
        live, full = group.row(key), thaw(group.plan, change)
        live.tiles, live.stamps, live.ver, live.as_of_ms = full.tiles, full.stamps, full.ver, full.as_of_ms
        group.dirty[key] = live
        if user % FLUSH_EVENTS == FLUSH_EVENTS - 1 or user == rows - 1:
            for one in tables.values():
                dirty, one.dirty = one.dirty, {}
                packed += sum(len(freeze(one, name, row).change) for name, row in dirty.items())
                for _ in one.cool():
                    pass
    gc.collect()
    grown = psutil.Process().memory_info().rss - before
    return Held(rows, packed / rows, (grown - packed) / rows)
