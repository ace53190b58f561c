"""Hedges: a read that takes longer than most is begun a second time, and whichever is answered first counts.

Most long reads are long by accident, of one connection or one replica, and the same read is short the next time. Where
everything is slow a second read would only add to it, so there are at most so many for each hundred reads.

Source: Dean and Barroso, The Tail at Scale, CACM 56(2), 2013.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

SHARE = 0.05
"""Second reads for each read, at most."""
_SAVED_MAX = 10.0
"""So many may be begun in a row after a quiet time."""
_LATEST = 200
_RENEWED_EVERY = 20
_SLOW = 0.95


class Hedges:
    """Reads of one store."""

    def __init__(self, *, share: float = SHARE, told: Callable[[], None] = lambda: None) -> None:
        """Begin without knowing how long reads take.

        Args:
            share: Second reads for each read; 0 for none.
            told: Called for each second read.
        """
        self._share = share
        self._told = told
        self._saved = 0.0
        self._latest: deque[float] = deque(maxlen=_LATEST)
        self._reads = 0
        self._slow_s: float | None = None

    async def read(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the first answer of one read or of two.

        Raises:
            StoreError: Every read that was begun has failed.
        """
        if not self._share:
            return await ask()
        self._saved = min(self._saved + self._share, _SAVED_MAX)
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        asked = {_begin(ask)}
        done, _ = await asyncio.wait(asked, timeout=self._slow_s)
        if not done and self._slow_s is not None and self._saved >= 1:
            self._saved -= 1
            self._told()
            asked.add(_begin(ask))
        answer = await _first(asked)
        self._learn(loop.time() - began_at)
        return answer

    def _learn(self, took_s: float) -> None:
        self._latest.append(took_s)
        self._reads += 1
        if self._reads % _RENEWED_EVERY == 0:
            self._slow_s = sorted(self._latest)[int(len(self._latest) * _SLOW)]


def _begin(ask: Callable[[], Coroutine[Any, Any, T]]) -> "asyncio.Task[T]":
    """Begin a read that goes on to its end: one that is cancelled takes its connection along."""
    read = asyncio.get_running_loop().create_task(ask())
    # If another was answered first, nobody else asks what became of it.
    read.add_done_callback(lambda done: done.cancelled() or done.exception())
    return read


async def _first(asked: "set[asyncio.Task[T]]") -> T:
    """Return the first answer; an error only if there is nothing else."""
    left = asked
    while True:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        # Both may have ended in one moment, and the set has no order.
        answered = [one for one in done if one.exception() is None]
        if answered or not left:
            return (answered or list(done))[0].result()
