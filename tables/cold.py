"""Cold rows: the rows that nobody changes at the moment, as their changelog bytes.

A group asks them for a row that is not live, and gives rows back that have cooled down. Whatever keeps them may go on
keeping the bytes of a row that is live: they are not asked for until the row is given back, or dropped.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

from typing_extensions import override

_ROOM_KEPT = 20_000


class ColdRows(Protocol):
    """Changelog bytes by encoded entity key, of one group in one partition."""

    def get(self, key: str, /) -> bytes | None:
        """Return a row's bytes, or None if it has none here."""
        ...

    def __setitem__(self, key: str, change: bytes, /) -> None:
        """Keep a row's bytes, instead of those that may be there."""
        ...

    def update(self, rows: Mapping[str, bytes], /) -> None:
        """Keep the bytes of several rows."""
        ...

    def let_go(self, key: str) -> None:
        """Note that a row is live from here on."""
        ...

    def drop(self, key: str) -> None:
        """Drop a row's bytes, if it has any here."""
        ...

    def clear(self) -> None:
        """Drop the bytes of all rows."""
        ...

    def items_meanwhile(self) -> Iterator[tuple[str, bytes]]:
        """Yield key and bytes of each row as they are then; rows may come and go meanwhile, those may be missed."""
        ...

    def shrink(self) -> None:
        """Give back room, after rows were dropped."""
        ...


class MemoryRows(dict[str, bytes], ColdRows):
    """Rows in memory: a dictionary, with nothing around its own methods."""

    __slots__ = ("_most",)

    def __init__(self) -> None:
        super().__init__()
        self._most = 0

    @override
    def let_go(self, key: str) -> None:
        del self[key]

    @override
    def drop(self, key: str) -> None:
        self.pop(key, None)

    @override
    def items_meanwhile(self) -> Iterator[tuple[str, bytes]]:
        for key in list(self):
            change = self.get(key)
            if change is not None:
                yield key, change

    @override
    def shrink(self) -> None:
        self._most = max(self._most, len(self))
        if self._most > 4 * len(self) + _ROOM_KEPT:
            # A dictionary gives back the room of what was deleted only when it is emptied.
            rows, self._most = dict(self), len(self)
            self.clear()
            self.update(rows)
