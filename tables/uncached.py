"""The rows of a restored table that its former owner may still have owed to the cache. Pure."""

from collections.abc import Collection, Iterator

from core.keys import partition_key
from core.ports import RowKey, StoredRow
from core.rows import unpack_change, unpack_row
from core.versions import version_of
from core.windows import NEVER_MS
from tables.table import TablePartition


def rows_between(table: TablePartition, *, after: int, until: int, groups: Collection[str]) -> Iterator[StoredRow]:
    """Yield rows as stores take them, while the table may go on changing.

    Args:
        table: A table that was restored from its changelog.
        after: The cache was given everything up to this version.
        until: Rows above this version are published again by the replay of their events, record first.
        groups: Row names (``<group>@v<n>``) of the groups that are cached.
    """
    for group in table.groups:
        if group.sk not in groups:
            continue
        for key, change in group.packed():
            value, _ = unpack_change(change)
            ver = version_of(value)
            if after < ver <= until:
                expires_at_ms = unpack_row(value).expires_at_ms
                yield StoredRow(
                    RowKey(partition_key(table.entity, key), group.sk),
                    ver,
                    value,
                    None if expires_at_ms == NEVER_MS else expires_at_ms,
                )
