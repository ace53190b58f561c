"""Admission: how many reads may wait for stores at the same time, found out from how long they wait.

More than the stores and this process can take only makes everybody wait longer, until the deadlines of the stores pass
and each read costs more than before. Beyond the limit a read is refused at once, which costs next to nothing, and its
client may ask another worker. The limit is looked at once for as many answers as it allows: it rises by a quarter until
many of them are late, then by one each time, and falls by a fifth when many are, or by a half when most are, as TCP
finds its window. It does not rise where it is not needed: what was never tried would let a whole crowd in.

That takes a while, and nobody knows before what a read costs. So while this process is busy, the limit is also no
higher than the number of reads that it can end within a moment: who comes behind as many waits for longer. Where reads
wait for something else, as many more may as are needed.
"""

import time
from collections.abc import Callable

LIMIT_MIN, LIMIT_START, LIMIT_MAX = 16, 128, 1_024
_LATE_S = 0.035
"""Less than Redis is waited for: beyond that, reads would go to the record because we are busy."""
_IN_LINE_S = 0.02
"""How long a read may wait for this process alone: less, because a crowd is there before its pace is known."""
_PACE_READS = 16
_BUSY_SHARE = 0.5
_LATE_SHARE = 0.25
_MOST_SHARE = 0.75
_RISE, _FALL, _FALL_FAR = 1.25, 0.8, 0.5


class Admission:
    """Admits reads of one process."""

    def __init__(
        self, *, monotonic: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.process_time
    ) -> None:
        """Admit the first reads.

        Args:
            monotonic: Tells the time in seconds.
            cpu: Tells how many seconds this process has computed.
        """
        self._monotonic = monotonic
        self._cpu = cpu
        self._limit = float(LIMIT_START)
        self._was_late = False
        self._waiting = self._most = 0
        self._answers = 0
        self._late = 0
        self._looked_at = 0.0
        self._ends = 0
        self._paced_at, self._cpu_at = monotonic(), cpu()
        self._in_time = LIMIT_MAX

    @property
    def limit(self) -> int:
        """How many reads may wait now."""
        return min(int(self._limit), self._in_time)

    @property
    def is_full(self) -> bool:
        """Whether no further read should wait."""
        return self._waiting >= self.limit

    def begin(self) -> float:
        """Let a read wait; return when it began, to be given to ``end``."""
        self._waiting += 1
        self._most = max(self._most, self._waiting)
        return self._monotonic()

    def end(self, began_at: float, *, is_answered: bool) -> None:
        """Note that a read waits no more.

        Args:
            began_at: When it began.
            is_answered: Whether the stores gave an answer; without one it was late, however soon it ended.
        """
        self._waiting -= 1
        now = self._monotonic()
        self._ends += 1
        if self._ends == _PACE_READS:
            self._measure_pace(now)
        if began_at < self._looked_at:
            # It tells of another limit than the present one.
            return
        self._answers += 1
        self._late += not is_answered or now - began_at > _LATE_S
        if self._answers >= self.limit:
            self._look(now)

    def _measure_pace(self, now: float) -> None:
        cpu = self._cpu()
        took_s, used_s = now - self._paced_at, cpu - self._cpu_at
        self._ends, self._paced_at, self._cpu_at = 0, now, cpu
        if used_s > took_s * _BUSY_SHARE:
            # Threads beside the loop may compute, too: no pace is faster than the clock.
            self._in_time = max(int(_IN_LINE_S * _PACE_READS / min(took_s, used_s)), LIMIT_MIN)
        else:
            self._in_time = min(2 * self._in_time, LIMIT_MAX)

    def _look(self, now: float) -> None:
        if self._late > self._answers * _LATE_SHARE:
            self._was_late = True
            fall = _FALL_FAR if self._late > self._answers * _MOST_SHARE else _FALL
            self._limit = max(self._limit * fall, LIMIT_MIN)
        elif self._most >= self.limit / 2:
            self._limit = min(self._limit + 1 if self._was_late else self._limit * _RISE, LIMIT_MAX)
        self._answers = self._late = 0
        self._most = self._waiting
        self._looked_at = now
