"""When a changed group is flushed; pure, it is told what time it is.

A group is flushed at once when it changes, and then not again before its ``every`` is over. Meanwhile rows that have
not just been flushed may go out alone, if there is time for it: readers see a key's first change at once. Where there
is more to flush than time, the interval stretches, so that rows coalesce instead.
"""

import math
from collections.abc import Iterable

from tables.table import GroupTable

_TIMES, _TIMES_MAX_S = 1.3, 6.0
"""A flush that takes long is not begun again before so many times its length; one that has waited for a store is no
measure of the next."""
_LATER, _LATER_MAX_S = 0.1, 2.0
"""While older events are caught up with, a flush may be later by this share of their age: they are late anyway, and the
fewer times a row is written, the sooner the present is reached."""
_ALONE_S, _ALONE_AGE_MS = 0.01, 50
"""How far apart flushes of new rows alone are, and up to which age of the newest record there is time for them."""
_ALONE_EVERY_MAX_S = 1.0
"""A group that is flushed less often is meant to be cheap: each of its rows is written once in a while."""
_QUIET_S = 0.05
"""When nothing was applied for so long there is nothing to coalesce with."""


class FlushTimes:
    """What the next flush depends on. Times are seconds on the event loop's clock, where nothing else is said."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}
        self._last = -math.inf
        self._took_s = 0.0
        self._last_took_s = 0.0
        self._applied_at = -math.inf
        self._newest_ms = 0

    def applied(self, now: float, *, as_of_ms: int, caught_up: bool) -> None:
        """Note that something was applied, the newest record timestamp in it, and whether all before is flushed."""
        if caught_up and now >= self._applied_at + _QUIET_S:
            # A load that is over is no measure of what comes now.
            self._took_s = self._last_took_s = 0.0
        self._applied_at = now
        self._newest_ms = max(self._newest_ms, as_of_ms)

    def flushed(self, groups: Iterable[GroupTable], *, began: float, took_s: float) -> None:
        """Note a flush: of all changed rows of some groups, and perhaps of new ones of others."""
        self._last_took_s, self._last = took_s, began
        due = [group.sk for group in groups]
        if due:
            # A flush of few new rows alone is no measure of the next of whole groups.
            self._took_s = took_s
        self._begun.update(dict.fromkeys(due, began))

    def delay_s(self, dirty: Iterable[GroupTable], now: float, *, now_ms: int) -> float:
        """Return how long until the first of the changed groups is due, or until that must be asked again.

        Args:
            dirty: The changed groups.
            now: On the event loop's clock.
            now_ms: On the wall's.
        """
        stretched_s = self._stretched_s(now, now_ms)
        delay_s = min((self._due(group, stretched_s) - now for group in dirty), default=0)
        quiet_in_s = self._applied_at + _QUIET_S - now
        # Once it is quiet, what is due changes.
        return min(delay_s, quiet_in_s) if quiet_in_s > 0 else delay_s

    def alone_in_s(self, now: float, *, now_ms: int) -> float:
        """Return how long until new rows may go out alone: infinitely, where we are behind.

        Args:
            now: On the event loop's clock.
            now_ms: On the wall's.
        """
        if now_ms - self._newest_ms > _ALONE_AGE_MS:
            return math.inf
        # A flush of few rows is mostly waiting for stores: the next may follow it at once.
        return self._last + max(_ALONE_S, self._last_took_s) - now

    def goes_alone(self, group: GroupTable) -> bool:
        """Whether new rows of a changed group may go out alone at all, and there are any."""
        return _every_s(group) <= _ALONE_EVERY_MAX_S and group.has_new

    def comes_along(self, group: GroupTable, now: float, *, now_ms: int) -> bool:
        """Whether a changed group is due, or nearly: one flush of five groups costs less than five flushes."""
        return self._due(group, self._stretched_s(now, now_ms)) - _every_s(group) / 2 <= now

    def _due(self, group: GroupTable, stretched_s: float) -> float:
        return self._begun.get(group.sk, -math.inf) + max(_every_s(group), stretched_s)

    def _stretched_s(self, now: float, now_ms: int) -> float:
        if now >= self._applied_at + _QUIET_S:
            return 0
        stretched_s = min(self._took_s * _TIMES, _TIMES_MAX_S)
        return max(stretched_s, min((now_ms - self._newest_ms) / 1000 * _LATER, _LATER_MAX_S))


def _every_s(group: GroupTable) -> float:
    return group.plan.group.writing.every.total_seconds()
