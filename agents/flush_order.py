"""In which order a flush writes rows: by their keys, all groups of a key together.

A record that keeps its rows in that order, as SQLite does, then writes a page once per flush; in the order in which
rows changed, it would write it with nearly each part of the flush that has one of its rows.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from tables.table import GroupTable, LiveRow, TablePartition


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
    """Return every changed row with its key, in order; sorting lets others work."""
    tables: dict[TablePartition, list[Taken]] = {}
    for one in taken:
        tables.setdefault(one.table, []).append(one)
    entities: dict[str, dict[str, list[Taken]]] = {}
    for table, groups in tables.items():
        keys = sorted({key for one in groups for key in one.rows})
        entities.setdefault(table.entity, {}).update(dict.fromkeys(keys, groups))
        await asyncio.sleep(0)
    return _walk(entities)


def _walk(entities: Mapping[str, Mapping[str, list[Taken]]]) -> Iterator[tuple[Taken, str, LiveRow]]:
    for _, groups_of in sorted(entities.items()):
        # Each table's keys are sorted already, and to merge some sorted runs is quick.
        for key in sorted(groups_of):
            for one in groups_of[key]:
                row = one.rows.get(key)
                if row is not None:
                    yield one, key, row
