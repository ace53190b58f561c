"""Flush order: rows leave in the order of their keys, each once."""

from agents.flush_order import Taken, in_key_order
from core.plans import plan_group
from features import REGISTRY
from tables.table import GroupTable, LiveRow, TablePartition


def partition_of(entity: str, partition: int) -> TablePartition:
    """A table with every group of an entity."""
    plans = [plan_group(group) for group in REGISTRY.groups if group.entity.name == entity]
    return TablePartition(entity, partition, [GroupTable(plan, 1) for plan in plans], [])


def changed(table: TablePartition, number: int, *keys: str) -> Taken:
    """Rows of one of a table's groups, in the order in which they changed."""
    return Taken(table, table.groups[number], {key: LiveRow([]) for key in keys})


async def test_rows_come_by_entity_and_key_with_all_groups_of_a_key_together():
    """
    In the order in which rows changed, a record that is sorted by key writes a page with nearly each part of a flush.
    """
    first, second, videos = partition_of("user", 0), partition_of("user", 1), partition_of("video", 0)
    due = [
        changed(videos, 0, "i2"),
        changed(second, 0, "i4", "i1"),
        changed(first, 0, "i3", "i2"),
        changed(first, 1, "i5", "i3"),
    ]

    found = [(one.table, one.group, key) for one, key, _ in await in_key_order(due)]

    assert found == [
        (second, second.groups[0], "i1"),
        (first, first.groups[0], "i2"),
        (first, first.groups[0], "i3"),
        (first, first.groups[1], "i3"),
        (second, second.groups[0], "i4"),
        (first, first.groups[1], "i5"),
        (videos, videos.groups[0], "i2"),
    ]


async def test_every_row_comes_once_and_is_that_of_its_group():
    """
    A row that is passed over stays unpublished although its run counts as finished.
    """
    tables = [partition_of("user", number) for number in range(3)]
    due = [
        changed(table, number, *(f"i{table.partition}-{key % 7}" for key in range(20 * number, 20 * number + 9)))
        for table in tables
        for number in range(len(table.groups))
    ]

    found = list(await in_key_order(due))

    assert len(found) == sum(len(one.rows) for one in due)
    assert all(one.rows[key] is row for one, key, row in found)


async def test_nothing_due_is_nothing():
    """
    A flush may find that everything was given away.
    """
    assert list(await in_key_order([])) == []
