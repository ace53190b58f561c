"""Local copies: rows that this process keeps, and keys that have none; newest version wins, bounded in bytes and age.

Copies are kept of keys whose changes are announced to this process, and of groups that hold copies everywhere. A read
that began before an announcement must not put an older row in afterwards, so versions that are announced are remembered
until the reads before them are over.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cachebox import LRUCache

from core.ports import RowKey, StoredRow
from core.rows import Row
from serving.tiers.lifetimes import ENDLESS, Life

_ENTRY_BYTES = 200


@dataclass(frozen=True, slots=True)
class Copy:
    """What a store had under a key.

    Attributes:
        row: The row, or None where there was none.
        read_at_ms: When the store was asked.
        size: Bytes, as they count here.
        is_told: Whether changes of its key are announced here. If not, it may lack what its partition's progress
            speaks of.
        sure_until_ms, drawn, load_ms: How it ages (``Life``).
    """

    row: Row | None
    read_at_ms: int
    size: int
    is_told: bool
    sure_until_ms: int
    drawn: float
    load_ms: float


class LocalCopies:
    """A bounded cache of decoded rows.

    Attributes:
        hears: Whether changes of any key are announced here.
    """

    def __init__(self, *, bytes_max: int, is_announced: Callable[[RowKey], bool] | None) -> None:
        """Keep no copy yet.

        Args:
            bytes_max: Of all copies.
            is_announced: Whether changes of a key are announced here now; None if never those of any.
        """
        self.hears = is_announced is not None
        self._is_announced = is_announced or _never
        self._changed: Callable[[Iterable[str]], None] = _nobody
        self._cleared: Callable[[], None] = _nobody
        self._copies: LRUCache[RowKey, Copy] = LRUCache(maxsize=bytes_max, getsizeof=lambda _, copy: copy.size)
        self._announcements = 0
        self._announced: OrderedDict[RowKey, tuple[int, int]] = OrderedDict()
        self._reads: dict[object, int] = {}
        self._cleared_at = -1

    def watch(self, *, changed: Callable[[Iterable[str]], None], cleared: Callable[[], None]) -> None:
        """Tell somebody who keeps what was made of copies.

        Args:
            changed: Told of the keys (``pk``) of rows that are not what they were, before anybody can read them again.
            cleared: Told that nothing is known any more.
        """
        self._changed, self._cleared = changed, cleared

    def has_room(self, size: int) -> bool:
        """Whether a row of so many bytes takes the place of no other copy."""
        return self._copies.current_size() + size + _ENTRY_BYTES <= self._copies.maxsize

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Mark a read of the stores, from before they are asked until its rows are put in."""
        read = object()
        self._reads[read] = self._announcements
        try:
            yield
        finally:
            del self._reads[read]
            self._forget()

    def get(self, key: RowKey, *, now_ms: int, oldest_ms: int, oldest_none_ms: int) -> Copy | None:
        """Return what is known of a key, or None if nothing is.

        Args:
            key: The key.
            now_ms: The present. What was read after it was read before the clock was put back, nobody knows when.
            oldest_ms: Since when a row must have been read.
            oldest_none_ms: Since when it must have been known that there is none.
        """
        copy = self._copies.get(key)
        if copy is None or not now_ms >= copy.read_at_ms >= (oldest_ms if copy.row is not None else oldest_none_ms):
            return None
        return copy

    def get_all(self, keys: Sequence[RowKey], *, now_ms: int) -> list[Copy] | None:
        """Return what is known of all keys, or None if anything is not surely known here."""
        copies, get = [], self._copies.get
        for key in keys:
            copy = get(key)
            if copy is None or not copy.read_at_ms <= now_ms <= copy.sure_until_ms:
                return None
            copies.append(copy)
        return copies

    def use(self, key: RowKey, copy: Copy) -> None:
        """Note that a copy was of use although nobody looked it up; it is kept again if it was displaced.

        For who is told of changes (``watch``), and has been told of none since it was looked up.
        """
        if self._copies.get(key) is None:
            self._copies[key] = copy

    def put(
        self, key: RowKey, row: Row, *, size: int, read_at_ms: int, life: Life = ENDLESS, is_held: bool = False
    ) -> None:
        """Keep a row, unless a newer version of it was announced or its changes are not announced here.

        Nor while a read from before the last clearing is under way: it may bring a row whose changes were announced
        elsewhere before its partition came back.

        Args:
            key: Its key.
            row: The row.
            size: Bytes of it.
            read_at_ms: When its store was asked.
            life: How it ages.
            is_held: Whether its group holds copies although changes are not announced here.
        """
        if self._may_be_old():
            return
        known = self._copies.get(key)
        ver = known.row.ver if known is not None and known.row is not None else 0
        size += _ENTRY_BYTES
        is_told = self._is_announced(key)
        if (
            row.ver >= max(self._announced.get(key, (0, 0))[0], ver)
            and size <= self._copies.maxsize
            and (is_held or is_told)
        ):
            self._copies[key] = Copy(row, read_at_ms, size, is_told, *life)
            self._changed((key.pk,))

    def put_none(self, key: RowKey, *, read_at_ms: int, life: Life = ENDLESS, is_held: bool = False) -> None:
        """Keep that there is no row, unless one was announced or read meanwhile, or would not be announced here."""
        known = self._copies.get(key)
        if known is not None and known.row is not None and known.read_at_ms >= read_at_ms:
            return
        is_told = self._is_announced(key)
        if (
            not self._may_be_old()
            and key not in self._announced
            and self._copies.maxsize >= _ENTRY_BYTES
            and (is_held or is_told)
        ):
            self._copies[key] = Copy(None, read_at_ms, _ENTRY_BYTES, is_told, *life)
            self._changed((key.pk,))

    def drop_older(self, key: RowKey, ver: int) -> None:
        """Drop a copy that is older than a version which is served now: nobody shall see time go back."""
        copy = self._copies.get(key)
        if copy is None or copy.row is None or copy.row.ver < ver:
            self._copies.pop(key, None)
            self._changed((key.pk,))

    def _may_be_old(self) -> bool:
        return next(iter(self._reads.values()), self._announcements) <= self._cleared_at

    def announce(self, rows: Sequence[StoredRow]) -> None:
        """Drop copies of rows that were written in a newer version."""
        self._announcements += 1
        if self._reads:
            for row in rows:
                # A debt that is paid announces an older row than the publisher did: the newest counts.
                ver = max(row.ver, self._announced.get(row.key, (0, 0))[0])
                self._announced[row.key] = (ver, self._announcements)
                self._announced.move_to_end(row.key)
        if self._copies:
            for row in rows:
                if row.key in self._copies:
                    del self._copies[row.key]
        # Also of copies that were displaced: what was made of them may be there yet.
        self._changed(row.key.pk for row in rows)

    def clear(self) -> None:
        """Drop everything, and let no read that is under way keep anything: changes are not announced here any more.

        Or only from now on: what another owner wrote before was announced there.
        """
        self._copies.clear()
        self._cleared()
        self._cleared_at = self._announcements
        self._announcements += 1

    def _forget(self) -> None:
        """Forget what was announced before every read that is still under way: reads overlap without end."""
        oldest = next(iter(self._reads.values()), self._announcements)
        while self._announced:
            key, (_, number) = next(iter(self._announced.items()))
            if number > oldest:
                return
            del self._announced[key]


def _nobody(*_told: Any) -> None: ...


def _never(_key: RowKey) -> bool:
    return False
