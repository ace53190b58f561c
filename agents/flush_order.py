"""In which order a flush writes rows: by their keys, all groups of a key together.

A record that keeps its rows in that order, as SQLite does, then writes a page once per flush; in the order in which
rows changed, it would write it with nearly each part of the flush that has one of its rows.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from tables.table import GroupTable, LiveRow, TablePartition

_YIELD_EVERY = 2_000


class Taken(NamedTuple):
    """Changed rows of a group in one partition, taken to be flushed.

    Attributes:
        is_due: Whether the group was due; else they are new ones alone.
        is_all: Whether they are all that had changed.
    """

    table: TablePartition
    group: GroupTable
    rows: dict[str, LiveRow]
    is_due: bool = True
    is_all: bool = True


async def in_key_order(taken: Iterable[Taken]) -> Iterator[tuple[Taken, str, LiveRow]]:
    """Return every changed row with its key, in order; sorting many lets others work."""
    entities: dict[str, list[tuple[str, int, Taken, LiveRow]]] = {}
    since_yield = 0
    for number, one in enumerate(taken):
        # A key is in one table, and the number tells its groups apart: nothing behind them is compared.
        rows = sorted((key, number, one, row) for key, row in one.rows.items())
        entities.setdefault(one.table.entity, []).extend(rows)
        since_yield += len(rows)
        if since_yield >= _YIELD_EVERY:
            since_yield = 0
            await asyncio.sleep(0)
    return _walk(entities)


def _walk(entities: Mapping[str, list[tuple[str, int, Taken, LiveRow]]]) -> Iterator[tuple[Taken, str, LiveRow]]:
    for _, rows in sorted(entities.items()):
        # To merge some sorted runs is quick.
        rows.sort()
        for key, _, one, row in rows:
            yield one, key, row
