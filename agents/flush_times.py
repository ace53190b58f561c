"""When a changed group is flushed; pure, it is told what time it is.

A group is flushed at once when it changes, and then not again before its ``every`` is over. Where there is more to
flush than time, the interval stretches, so that rows coalesce instead.
"""

import math
from collections.abc import Iterable

from tables.table import GroupTable

_TIMES, _TIMES_MAX_S = 2.0, 6.0
"""A flush that takes long is not begun again before so many times its length; one that has waited for a store is no
measure of the next."""
_LATER, _LATER_MAX_S = 0.1, 2.0
"""While older events are caught up with, a flush may be later by this share of their age: they are late anyway, and the
fewer times a row is written, the sooner the present is reached."""
_QUIET_S = 0.05
"""When nothing was applied for so long there is nothing to coalesce with."""


class FlushTimes:
    """What the next flush depends on. Times are seconds on the event loop's clock, where nothing else is said."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}
        self._took_s = 0.0
        self._applied_at = -math.inf
        self._newest_ms = 0

    def applied(self, now: float, *, as_of_ms: int) -> None:
        """Note that something was applied, and the newest record timestamp in it."""
        self._applied_at = now
        self._newest_ms = max(self._newest_ms, as_of_ms)

    def flushed(self, groups: Iterable[GroupTable], *, began: float, took_s: float) -> None:
        """Note a flush of groups."""
        self._took_s = took_s
        self._begun.update((group.sk, began) for group in groups)

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
