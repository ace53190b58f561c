"""The floor: versions that this process has served, below which it serves nothing of the same row any more.

Redis may hold an older row than it did before: a replica took over that was behind, or a write that failed is still
owed. Another process may be served that row; but whoever asks this one twice must not see time go back (PROTOCOL, 2).
It is remembered for as many rows as there is room for, those whose versions were noted last.
"""

from collections import OrderedDict

from core.ports import RowKey

_ROWS_MAX = 1 << 16
"""For 8 MB."""


class VersionFloor:
    """Versions by key, bounded in number. Not a table with a place for each: two hot rows may have the same one."""

    def __init__(self, *, rows_max: int = _ROWS_MAX) -> None:
        # A key's hash takes less room than the key, and no two of so many rows share all 64 bits of it.
        self._vers: OrderedDict[int, int] = OrderedDict()
        self._rows_max = rows_max

    def of(self, key: RowKey) -> int:
        """Return the version that was last put in for a row; 0 where none is known.

        >>> floor, key = VersionFloor(rows_max=8), RowKey("user#i1", "spend@v1")
        >>> floor.put(key, 7)
        >>> floor.of(key), floor.of(RowKey("user#i2", "spend@v1"))
        (7, 0)
        """
        return self._vers.get(hash(key), 0)

    def put(self, key: RowKey, ver: int) -> None:
        """Note the version in which a row is served."""
        tag = hash(key)
        self._vers[tag] = ver
        self._vers.move_to_end(tag)
        if len(self._vers) > self._rows_max:
            self._vers.popitem(last=False)
