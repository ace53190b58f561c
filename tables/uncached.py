"""The rows of a restored table that its former owner may still have owed to the cache. Pure."""

from collections.abc import Collection, Iterator
from itertools import islice

from core.keys import partition_key
from core.ports import RowKey, StoredRow
from core.rows import unpack_change, unpack_row
from core.versions import version_of
from core.windows import NEVER_MS
from tables.table import TablePartition

_PAGE = 500


def pages_between(
    table: TablePartition, *, after: int, until: int, groups: Collection[str]
) -> Iterator[list[StoredRow]]:
    """Yield rows as stores take them, while the table may go on changing.

    A page holds those of 500 rows that are in question, which may be none: whoever asks can let others work between.

    Args:
        table: A table that was restored from its changelog.
        after: The cache was given everything up to this version.
        until: Rows above this version are published again by the replay of their events, record first.
        groups: Row names (``<group>@v<n>``) of the groups that are cached.
    """
    for group in table.groups:
        if group.sk not in groups:
            continue
        rows = group.packed()
        while looked := list(islice(rows, _PAGE)):
            yield [
                _stored(RowKey(partition_key(table.entity, key), group.sk), value)
                for key, value in ((key, unpack_change(change)[0]) for key, change in looked)
                if after < version_of(value) <= until
            ]


def _stored(place: RowKey, value: bytes) -> StoredRow:
    expires_at_ms = unpack_row(value).expires_at_ms
    return StoredRow(place, version_of(value), value, None if expires_at_ms == NEVER_MS else expires_at_ms)
