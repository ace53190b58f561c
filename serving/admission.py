"""Admission: how many reads may wait for stores at the same time, found out from how long they wait.

More than the stores can take only makes everybody wait longer: beyond the limit a read is refused at once, which costs
next to nothing, and its client may ask another worker. The limit grows by one for each limit of answers in time and
falls by a tenth for one that is late, as TCP finds its window.
"""

import time
from collections.abc import Callable

LIMIT_MIN, LIMIT_MAX = 16, 1_024
_LATE_S = 0.25
_FALL = 0.9


class Admission:
    """Admits reads of one process."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._limit = float(LIMIT_MAX)
        self._waiting = 0
        self._fell_at = 0.0

    @property
    def limit(self) -> int:
        """How many reads may wait now."""
        return int(self._limit)

    @property
    def is_full(self) -> bool:
        """Whether no further read should wait."""
        return self._waiting >= self.limit

    def begin(self) -> float:
        """Let a read wait; return when it began, to be given to ``end``."""
        self._waiting += 1
        return self._monotonic()

    def end(self, began_at: float, *, is_answered: bool) -> None:
        """Note that a read waits no more; without an answer from the stores it was late, however soon it ended."""
        self._waiting -= 1
        now = self._monotonic()
        if is_answered and now - began_at <= _LATE_S:
            self._limit = min(self._limit + 1 / self._limit, LIMIT_MAX)
        elif began_at >= self._fell_at:
            # Those that began before the limit fell tell nothing of the new one.
            self._limit, self._fell_at = max(self._limit * _FALL, LIMIT_MIN), now
