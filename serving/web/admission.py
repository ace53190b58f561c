"""Admission: how many reads may wait at the same time, for stores and for this process.

More than these can take only makes everybody wait longer, until the deadlines of the stores pass and each read costs
more than before. Beyond the limits a read is refused at once, which costs next to nothing, and its client may ask
another worker.

For stores there is a limit that is found out from how long reads wait. It is looked at once for as many answers as it
allows: it rises by a quarter until many of them are late, then by one each time, and falls by a fifth when many are,
or by a half when most are, as TCP finds its window. It does not rise where it is not needed: what was never tried
would let a whole crowd in.

For this process it is told by the line in which answers stand that have come from stores: who would stand there for
too long, with those before him and those whose answers are about to come, is refused.
"""

import time
from collections import deque
from collections.abc import Callable

from serving.turns import Turns

LIMIT_MIN, LIMIT_START, LIMIT_MAX = 16, 128, 1_024
LATE_S = 0.035
"""Less than Redis is waited for: beyond that, reads would go to the record because we are busy."""
_IN_LINE_S = 0.02
_ABOUT_S = 0.01
"""A store that is well has answered by then; who waits for longer waits for one that is not, and stands in no line."""
_LATE_SHARE = 0.25
_MOST_SHARE = 0.75
_RISE, _FALL, _FALL_FAR = 1.25, 0.8, 0.5


class Admission:
    """Admits reads of one process."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._limit = float(LIMIT_START)
        self._was_late = False
        self._waiting = self._most = 0
        self._answers = 0
        self._late = 0
        self._looked_at = 0.0
        self._begun: deque[float] = deque(maxlen=LIMIT_MAX)

    @property
    def limit(self) -> int:
        """How many reads may wait for stores now."""
        return int(self._limit)

    def admits(self, line: Turns) -> bool:
        """Return whether one more read should wait.

        Args:
            line: Where it will stand when the stores have answered.
        """
        if self._waiting < LIMIT_MIN:
            # So few are no crowd.
            return True
        return self._waiting < self.limit and self._before(line) * line.pace_s <= _IN_LINE_S

    def begin(self) -> float:
        """Let a read wait; return when it began, to be given to ``end``."""
        self._waiting += 1
        self._most = max(self._most, self._waiting)
        now = self._monotonic()
        self._begun.append(now)
        return now

    def end(self, began_at: float, *, is_answered: bool, tells: bool = True) -> None:
        """Note that a read waits no more.

        Args:
            began_at: When it began.
            is_answered: Whether the stores gave an answer; without one it was late, however soon it ended.
            tells: Whether it tells of the stores that it was late, if it was: others may be waited for besides.
        """
        self._waiting -= 1
        now = self._monotonic()
        if began_at < self._looked_at:
            # It tells of another limit than the present one.
            return
        self._answers += 1
        self._late += tells and (not is_answered or now - began_at > LATE_S)
        if self._answers >= self.limit:
            self._look(now)

    def _before(self, line: Turns) -> int:
        """Return how many stand in line or will, before one who comes now."""
        about = self._monotonic() - _ABOUT_S
        while self._begun and self._begun[0] < about:
            self._begun.popleft()
        # Of those who began lately some have ended, or stand in line.
        return min(len(line) + len(self._begun), self._waiting)

    def _look(self, now: float) -> None:
        if self._late > self._answers * _LATE_SHARE:
            self._was_late = True
            fall = _FALL_FAR if self._late > self._answers * _MOST_SHARE else _FALL
            self._limit = max(self._limit * fall, LIMIT_MIN)
        elif self._most >= self._limit / 2:
            self._limit = min(self._limit + 1 if self._was_late else self._limit * _RISE, LIMIT_MAX)
        self._answers = self._late = 0
        self._most = self._waiting
        self._looked_at = now
