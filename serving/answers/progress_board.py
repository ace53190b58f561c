"""Progress as readers see it: up to when the partitions of the keys that they read are complete."""

import asyncio
import logging
import math
from collections.abc import Iterable

from core.errors import FormatError, StoreError
from core.ports import Clock, Store
from core.progress import progress_as_of_ms, progress_key

log = logging.getLogger(__name__)

_FRESH_MS, _KNOWN_MS = 250, 1_000
_DEADLINE_MS = 50
_UNKNOWN = (-_KNOWN_MS, 0)


class ProgressBoard:
    """Remembers partitions' progress for a moment; what cannot be read is unknown, not an error."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[tuple[str, int], tuple[int, int]] = {}
        self._answered_at: dict[tuple[str, int], float] = {}
        self._asked: set[tuple[str, int]] = set()
        self._due: set[tuple[str, int]] = set()
        self._refreshing: asyncio.Future[dict[tuple[str, int], int]] | None = None

    def known(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int] | None:
        """Return the progress of (entity, partition) pairs if nothing has to be waited for, or None.

        What was true a moment ago is true: it is answered while it is being asked for again.
        """
        now_ms = self._clock.now_ms()
        found = {place: self._known.get(place, _UNKNOWN) for place in partitions}
        oldest_ms = min((read_at_ms for read_at_ms, _ in found.values()), default=now_ms)
        newest_ms = max((read_at_ms for read_at_ms, _ in found.values()), default=now_ms)
        # What was read in the future was read before the clock was put back, nobody knows when.
        if now_ms - oldest_ms > _KNOWN_MS or newest_ms > now_ms:
            return None
        if now_ms - oldest_ms > _FRESH_MS:
            self._due.update(place for place, (read_at_ms, _) in found.items() if now_ms - read_at_ms > _FRESH_MS)
            self._begin_refresh()
        return {place: as_of_ms for place, (_, as_of_ms) in found.items()}

    def answered_at(self, partitions: Iterable[tuple[str, int]]) -> float:
        """Return when the newest of what is known of partitions was there, on the event loop's clock."""
        return max((self._answered_at.get(place, -math.inf) for place in partitions), default=-math.inf)

    def _begin_refresh(self) -> None:
        """Ask for all that is due, in one message; what comes meanwhile is asked for together after it."""
        if self._refreshing is None and self._due:
            due, self._due = self._due, set()
            self._refreshing = asyncio.ensure_future(self.as_of_ms(due))
            self._refreshing.add_done_callback(self._refreshed)

    def _refreshed(self, refreshing: "asyncio.Future[dict[tuple[str, int], int]]") -> None:
        self._refreshing = None
        if not refreshing.cancelled() and (error := refreshing.exception()) is not None:
            log.error("progress not asked for: %s", error)
        if not refreshing.cancelled():
            self._begin_refresh()

    async def as_of_ms(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return the progress of (entity, partition) pairs; 0 where none is known."""
        wanted = list(dict.fromkeys(partitions))
        now_ms = self._clock.now_ms()
        old = [place for place in wanted if _is_old(self._known.get(place, _UNKNOWN)[0], now_ms)]
        # What somebody else asks for at the moment is answered as it was known before: complete at least up to there.
        if old := [place for place in old if place not in self._asked or place not in self._known]:
            self._asked.update(old)
            try:
                await self._refresh(old, now_ms)
            finally:
                self._asked.difference_update(old)
        return {place: self._known.get(place, (0, 0))[1] for place in wanted}

    async def _refresh(self, places: list[tuple[str, int]], now_ms: int) -> None:
        keys = {place: progress_key(*place) for place in places}
        try:
            values = await self._store.read(list(keys.values()), deadline_ms=_DEADLINE_MS)
            found = {key: progress_as_of_ms(value) for key, value in values.items()}
        except (StoreError, FormatError) as error:
            log.warning("progress unknown: %s", error)
            # Remembered too: a store that hangs must not cost every request its deadline.
            self._known |= {place: (now_ms, self._known.get(place, (0, 0))[1]) for place in places}
            return
        for place, key in keys.items():
            known = self._known.get(place, (0, 0))[1]
            self._known[place] = (now_ms, max(known, found.get(key, 0)))
            self._answered_at[place] = asyncio.get_running_loop().time()


def _is_old(read_at_ms: int, now_ms: int) -> bool:
    # What was read in the future was read before the clock was put back, nobody knows when.
    return not 0 <= now_ms - read_at_ms <= _FRESH_MS
