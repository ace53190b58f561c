"""Turns of the event loop: heavy work is spread over them, so that what is quick comes in between.

A loop does everything that is ready in one turn, and looks at its sockets after it. Twenty answers that are ready
together took 50 ms, in which nobody was refused, and answers of stores lay there until their deadlines had passed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")

_WEIGHT, _FADING = 0.25, 0.95


class Turns:
    """Work of one kind: so much of each turn, the rest in the order in which it came.

    Attributes:
        pace_s: How much this thread computed from one piece to the next while others stood in line, seconds, whatever
            else it did in between; it fades while none does. While a machine is busy otherwise, time passes without it.
    """

    def __init__(
        self,
        *,
        budget_s: float,
        monotonic: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        """Begin with nothing to do.

        Args:
            budget_s: In each turn no work is begun after this; a single piece may take longer.
            monotonic: Tells the time in seconds.
            cpu: Tells how many seconds this thread has computed.
        """
        self._budget_s = budget_s
        self._monotonic = monotonic
        self._cpu = cpu
        self._line: deque[Callable[[], None]] = deque()
        self._ends_at: float | None = None
        self._stood_since = 0.0
        self.pace_s = 0.0

    def __len__(self) -> int:
        """Return how many pieces stand in line."""
        return len(self._line)

    def do(self, work: Callable[[], None]) -> None:
        """Do something at once if this turn has time for it, or else in one of the next."""
        if self._line or not self._has_time():
            self._stand(work)
        else:
            self.pace_s *= _FADING
            work()

    async def result(self, work: Callable[[], T]) -> T:
        """Return what work returns, or raise what it raises, when it was its turn."""
        if not self._line and self._has_time():
            self.pace_s *= _FADING
            return work()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._stand(partial(_settle, done, work))
        return await done

    def _stand(self, work: Callable[[], None]) -> None:
        if not self._line:
            self._stood_since = self._cpu()
        self._line.append(work)

    def _has_time(self) -> bool:
        now = self._monotonic()
        if self._ends_at is not None:
            return now < self._ends_at
        self._ends_at = now + self._budget_s
        asyncio.get_running_loop().call_soon(self._turn)
        return True

    def _turn(self) -> None:
        self._ends_at = None
        stood = len(self._line)
        while self._line and self._has_time():
            self._line.popleft()()
        if done := stood - len(self._line):
            now = self._cpu()
            self.pace_s += ((now - self._stood_since) / done - self.pace_s) * _WEIGHT
            self._stood_since = now


def _settle(done: "asyncio.Future[T]", work: Callable[[], T]) -> None:
    if done.done():
        # Whoever wanted it has gone.
        return
    try:
        done.set_result(work())
    except Exception as error:  # noqa: BLE001  # it is of whoever waits for it
        done.set_exception(error)
