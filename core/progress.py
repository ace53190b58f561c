"""What is known of a whole partition: up to when its rows are complete, and up to where the cache has them.

Progress (SEMANTICS: Values, ``as_of_ms``) is published with each flush beside the rows, so that a quiet key is not an
old key and a lagging partition is visible. The cached mark is for the next owner: rows above it may be owed to the
cache by an owner that is gone. The places cannot collide with a row's: an encoded entity key begins with ``i`` or
``s``, never with ``p``.
"""

import msgspec

from core.errors import FormatError
from core.keys import partition_key
from core.ports import RowKey, StoredRow
from core.unreadable import UNREADABLE
from core.versions import version_bytes

PROGRESS_SK = "#progress"
CACHED_SK = "#cached"


def progress_key(entity: str, partition: int) -> RowKey:
    """Return the place of a partition's progress.

    >>> progress_key("user", 3)
    RowKey(pk='user#p3', sk='#progress')
    """
    return RowKey(partition_key(entity, f"p{partition}"), PROGRESS_SK)


def progress_row(entity: str, partition: int, *, ver: int, as_of_ms: int) -> StoredRow:
    """Return a partition's progress as it is stored.

    Args:
        entity: Name of the entity.
        partition: Partition of its repartition topic.
        ver: Version of the last packed record whose rows are all published.
        as_of_ms: Newest record timestamp up to and including it.
    """
    value = version_bytes(ver) + msgspec.msgpack.encode(as_of_ms)
    return StoredRow(progress_key(entity, partition), ver, value)


def progress_as_of_ms(value: bytes) -> int:
    """Return ``as_of_ms`` of stored progress.

    Raises:
        FormatError: The bytes are none.
    """
    try:
        return msgspec.msgpack.decode(memoryview(value)[8:], type=int)
    except UNREADABLE as error:
        raise FormatError(f"not a progress row: {error}") from error


def cached_key(entity: str, partition: int) -> RowKey:
    """Return the place of a partition's cached mark; it is in the record alone.

    >>> cached_key("user", 3)
    RowKey(pk='user#p3', sk='#cached')
    """
    return RowKey(partition_key(entity, f"p{partition}"), CACHED_SK)


def cached_row(entity: str, partition: int, *, ver: int) -> StoredRow:
    """Return a partition's cached mark as it is stored: its version says all.

    Args:
        entity: Name of the entity.
        partition: Partition of its repartition topic.
        ver: The cache was given every row of the partition up to this version.
    """
    return StoredRow(cached_key(entity, partition), ver, version_bytes(ver))
