"""Ports: what the pipeline asks of the outside world, as small as it can be.

To add a store: one file in ``stores/``, one line in ``app/wiring.py``, one fixture in ``tests/contract``.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class RowKey(NamedTuple):
    """Where a row lives, the same in every store (SEMANTICS: Keys).

    ``pk`` is ``<entity>#<encoded id>``, ``sk`` is ``<group>@v<n>``. Both are printable text without ``{`` or ``}``.
    """

    pk: str
    sk: str


class StoredRow(NamedTuple):
    """One row as it is written: its place, its version, its bytes.

    Attributes:
        ver: Version of the row, 0 <= ver < 2**64; the first 8 bytes of ``value``, big-endian, say the same.
        value: The packed row (``core.rows``), the same bytes in every store.
        expires_at_ms: Instant from which the row means nothing any more, or None for never.
    """

    key: RowKey
    ver: int
    value: bytes
    expires_at_ms: int | None = None


class Store(Protocol):
    """A keyed store of packed rows that never goes back in version.

    Every adapter passes ``tests/contract/test_stores.py``. All calls raise ``StoreTimeoutError`` when there is no
    answer within ``deadline_ms`` and ``StoreError`` for any other failure; neither says whether a write happened.
    """

    name: str

    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        """Return the values of those keys that exist, read consistently; a missing key is absent."""
        ...

    async def write(self, rows: Sequence[StoredRow], *, deadline_ms: int) -> int:
        """Write each row unless the store holds the same or a higher version of it.

        Returns:
            How many rows were taken; the others were refused as not newer, which is no error.

        Raises:
            PartialWriteError: A part was surely dealt with; ``failed`` has the keys of all other rows.
            RowTooLargeError: The store never takes a row of this size; trying again is of no use.
        """
        ...

    async def close(self) -> None:
        """Release connections and files; the store is not used afterwards."""
        ...


class Filling(NamedTuple):
    """What a reader has found in the record, as a cache may keep it.

    Attributes:
        value: The packed row, or ``core.leases.NO_ROW``.
        expires_at_ms: Instant from which the cache must not tell it any more, or None for never.
    """

    key: RowKey
    value: bytes
    expires_at_ms: int | None


class Cache(Store, Protocol):
    """A store that may lose anything at any time, and that readers fill again (``core.leases``).

    ``read`` may also return leases and ``NO_ROW``.
    """

    async def lease(
        self, keys: Sequence[RowKey], *, token: bytes, lease_ms: int, deadline_ms: int
    ) -> dict[RowKey, bytes]:
        """Leave a lease under each key that has nothing, for so long; return what the other keys have."""
        ...

    async def fill(self, fillings: Sequence[Filling], *, token: bytes, deadline_ms: int) -> int:
        """Put what was found, or another lease, in the place of the lease, where that is still there.

        Returns:
            How many were taken; the others are no error: a row was written, or the lease is over.
        """
        ...

    async def renew(self, fillings: Sequence[Filling], *, deadline_ms: int) -> int:
        """Let rows that were found in the record once more live until another instant, where that version still is.

        Nothing is put where nothing is: without a lease nobody knows what was there meanwhile.

        Args:
            fillings: Each with an instant.
            deadline_ms: Milliseconds.

        Returns:
            How many live longer.
        """
        ...


class Clock(Protocol):
    """Tells the time, so that tests can."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch, UTC."""
        ...
