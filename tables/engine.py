"""Engines: what keeps the parts of a table that nobody changes at the moment, in memory or on disk.

The changelog is the truth in any case: whatever an engine keeps is thrown away with the table, and restored from there.
"""

from typing import Protocol

from typing_extensions import override

from tables.cold import ColdRows, MemoryRows

LIVE_ROWS_MAX = 20_000


class KeyQueue(Protocol):
    """Keys that wait, in no order that anybody relies on."""

    def __len__(self) -> int:
        """Return how many wait."""
        ...

    def append(self, key: str, /) -> None:
        """Let a key wait."""
        ...

    def pop(self) -> str:
        """Return one of the keys that wait, and forget it."""
        ...


class Engine(Protocol):
    """Keeps what belongs to the tables of one take-over, and nothing once they are gone.

    Attributes:
        live_rows_max: Rows of a group in one partition beyond which those cool down that nobody changes.
        at_hand_max: Rows that a restore has at hand, in all its partitions, so that it need not ask how far they are.
    """

    live_rows_max: int
    at_hand_max: int

    def rows(self) -> ColdRows:
        """Return room for the rows of one group in one partition."""
        ...

    def keys(self) -> KeyQueue:
        """Return room for keys that wait."""
        ...


class MemoryEngine(Engine):
    """Keeps everything in memory."""

    at_hand_max = 8_000_000

    def __init__(self, *, live_rows_max: int = LIVE_ROWS_MAX) -> None:
        self.live_rows_max = live_rows_max

    @override
    def rows(self) -> ColdRows:
        return MemoryRows()

    @override
    def keys(self) -> KeyQueue:
        return []


MEMORY = MemoryEngine()


async def in_memory(*, live_rows_max: int = LIVE_ROWS_MAX) -> Engine:
    """Open an engine that keeps everything in memory."""
    return MemoryEngine(live_rows_max=live_rows_max)
