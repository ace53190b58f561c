"""A breaker: whoever failed several times in a row is not asked for a while, then by one caller at a time."""

import time
from collections.abc import Callable


class Breaker:
    """Decides whether a dependency is asked.

    Failures in a row open it. Then one caller per interval is let through, as a probe; the first success closes it.
    """

    def __init__(
        self, *, failures_max: int = 5, probe_every_s: float = 0.5, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures_max = failures_max
        self._probe_every_s = probe_every_s
        self._monotonic = monotonic
        self._failures = 0
        self._next_probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it keeps callers away."""
        return self._failures >= self._failures_max

    def admits(self) -> bool:
        """Whether this caller may ask; if it may, it has to tell how it went."""
        if not self.is_open:
            return True
        now = self._monotonic()
        if now < self._next_probe_at:
            return False
        self._next_probe_at = now + self._probe_every_s
        return True

    def succeeded(self) -> None:
        """Note an answer."""
        self._failures = 0

    def failed(self) -> None:
        """Note that there was none."""
        self._failures += 1
        self._next_probe_at = self._monotonic() + self._probe_every_s
