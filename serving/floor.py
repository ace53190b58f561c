"""The floor: versions that this process has served, below which it serves nothing of the same row any more.

Redis may hold an older row than it did before: a replica took over that was behind, or a write that failed is still
owed. Another process may be served that row; but whoever asks this one twice must not see time go back (PROTOCOL, 2).
It is remembered for as many rows as there is room for, those that were read last.
"""

from array import array

from core.ports import RowKey

_SLOTS = 1 << 16
_MASK_64 = (1 << 64) - 1


class VersionFloor:
    """Versions by key, in a table of fixed size: a row takes the place of one that was read before it."""

    def __init__(self, *, slots: int = _SLOTS) -> None:
        self._tags = array("Q", bytes(8 * slots))
        self._vers = array("Q", bytes(8 * slots))
        self._slots = slots

    def of(self, key: RowKey) -> int:
        """Return the version that was last put in for a row; 0 where none is known.

        >>> floor, key = VersionFloor(slots=8), RowKey("user#i1", "spend@v1")
        >>> floor.put(key, 7)
        >>> floor.of(key), floor.of(RowKey("user#i2", "spend@v1"))
        (7, 0)
        """
        tag = hash(key) & _MASK_64
        slot = tag % self._slots
        return self._vers[slot] if self._tags[slot] == tag else 0

    def put(self, key: RowKey, ver: int) -> None:
        """Note the version in which a row is served."""
        tag = hash(key) & _MASK_64
        slot = tag % self._slots
        self._tags[slot], self._vers[slot] = tag, ver
