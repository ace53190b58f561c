"""Served rows: what packed rows say, and that nobody who asks this process twice sees time go back.

A row counts only if it was computed with the definition that is served, and if it is not older than one of its key that
was served before: the cache may be behind, and a load may have begun long ago.
"""

import logging
from collections.abc import Callable
from enum import Enum
from typing import Final, Literal

from core.errors import FormatError
from core.leases import NO_ROW, is_lease
from core.ports import RowKey
from core.rows import Row, unpack_row
from core.versions import version_of
from serving.tiers.decoded import DecodedRows
from serving.tiers.floor import VersionFloor
from serving.tiers.wanted import Wanted

log = logging.getLogger(__name__)


class Unknown(Enum):
    """What a cache says that does not know a row."""

    UNKNOWN = 0


UNKNOWN: Final = Unknown.UNKNOWN


class ServedRows:
    """Turns packed rows into rows that may be served."""

    def __init__(self, floor: VersionFloor) -> None:
        """Serve nothing below a floor, which rises with what is served."""
        self._floor = floor
        self._decoded = DecodedRows()
        self._newer: list[Callable[[RowKey, int], None]] = []

    def watch(self, newer: Callable[[RowKey, int], None]) -> None:
        """Tell somebody of each row that is served in a newer version than before, or may be."""
        self._newer.append(newer)

    def of_cache(self, want: Wanted, value: bytes | None) -> Row | Literal[Unknown.UNKNOWN] | None:
        """Return the row that the cache tells of, None if it tells that there is none, or ``UNKNOWN``."""
        if value is None:
            return UNKNOWN
        key = want.key
        row, floor = self._decoded.get(key, value), self._floor.of(key)
        # Most are what they were: then nothing of it has to be looked at but that it is not older than was served.
        if row is not None and row.ver >= floor:
            return row
        # A write to the cache may still be owed; who was served the newer row must not see time go back.
        if is_lease(value) or version_of(value) < floor:
            return UNKNOWN
        if value == NO_ROW:
            return None
        try:
            return self.decode(want, value)
        except FormatError as error:
            log.warning("row of the cache passed over: %s", error)
            return UNKNOWN

    def decode(self, want: Wanted, value: bytes) -> Row:
        """Return a row that is served from now on.

        Raises:
            FormatError: As ``unpack``.
        """
        row = self.unpack(want, value)
        self.serve(want.key, row.ver)
        return row

    def unpack(self, want: Wanted, value: bytes) -> Row:
        """Return the row that bytes are; the same bytes give the very same row.

        Raises:
            FormatError: They cannot be read, or were computed with another definition.
        """
        known = self._decoded.get(want.key, value)
        row = known if known is not None else unpack_row(value)
        if row.fingerprint != want.terms.fingerprint:
            raise FormatError(
                f"the row {want.key.sk} was computed with definition {row.fingerprint.hex()}, served is "
                f"{want.terms.fingerprint.hex()}: two meanings have one number; see docs/how-to/recover.md"
            )
        if known is None:
            # Only now: what is remembered is served without being looked at again.
            self._decoded.put(want.key, value, row)
        return row

    def serve(self, key: RowKey, ver: int) -> None:
        """Let nothing older than a version be served from now on, be it from a copy."""
        if ver > self._floor.of(key):
            self._floor.put(key, ver)
            for newer in self._newer:
                newer(key, ver)

    def floor(self, key: RowKey) -> int:
        """Return the version below which nothing of a row is served."""
        return self._floor.of(key)

    def is_below_floor(self, key: RowKey, row: Row | None) -> bool:
        """Whether a row, or that there is none, is older than what was served."""
        return (row.ver if row is not None else 0) < self._floor.of(key)

    def removed(self, key: RowKey) -> None:
        """Note that a row is not in the record any more."""
        self._floor.put(key, 0)
