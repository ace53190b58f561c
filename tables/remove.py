"""Removing past rows: which leave the tables now, and what the changelog is told of them."""

import asyncio

from aiokafka import TopicPartition

from core.keys import partition_key
from core.ports import RowKey
from tables.changelog import Tombstone
from tables.owned import OwnedTables

_AT_ONCE = 200


async def take_past(tables: OwnedTables, *, limit: int, now_ms: int) -> dict[TopicPartition, list[Tombstone]]:
    """Drop past rows from the tables.

    Args:
        tables: What is owned.
        limit: Most rows that are looked at, over all tables.
        now_ms: The clock. It never makes a row past, it only holds back: a single record whose producer's clock is a
            year ahead moves a partition's progress, and would remove rows that every reader still sees.

    Returns:
        A tombstone per row that is gone from memory.
    """
    gone: dict[TopicPartition, list[Tombstone]] = {}
    for table in tables:
        progress_ms = min(table.as_of_ms, now_ms)
        for group in table.groups:
            looked = _AT_ONCE
            while looked and limit > 0:
                looked, dropped = group.drop_past(progress_ms=progress_ms, limit=min(limit, _AT_ONCE))
                limit -= looked
                if dropped:
                    gone.setdefault(table.changelog, []).extend(
                        Tombstone(RowKey(partition_key(table.entity, key), group.sk), ver) for key, ver in dropped
                    )
                if looked:
                    await asyncio.sleep(0)
    return gone
