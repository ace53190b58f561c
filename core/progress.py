"""Progress of a partition: up to when its rows are known to be complete (SEMANTICS: Values, ``as_of_ms``).

Published with each flush beside the rows, so that a quiet key is not an old key and a lagging partition is visible.
The place cannot collide with a row's: an encoded entity key begins with ``i`` or ``s``, never with ``p``.
"""

import msgspec

from core.errors import FormatError
from core.keys import partition_key
from core.ports import RowKey, StoredRow
from core.versions import version_bytes

PROGRESS_SK = "#progress"


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
    except msgspec.DecodeError as error:
        raise FormatError(f"not a progress row: {error}") from error
