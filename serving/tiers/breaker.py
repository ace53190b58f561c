"""A breaker: whoever failed several times in a row is not asked for a while, then by one caller at a time."""

import time
from collections.abc import Callable


def _nobody(_is_open: object) -> None: ...


class Breaker:
    """Decides whether a dependency is asked.

    Failures in a row open it; calls that were under way together fail for one reason and count once. Then one caller
    per interval is let through, as a probe; the first success closes it.
    """

    def __init__(
        self,
        *,
        failures_max: int = 5,
        probe_every_s: float = 0.5,
        monotonic: Callable[[], float] = time.monotonic,
        told: Callable[[bool], None] = _nobody,
    ) -> None:
        """Begin closed.

        Args:
            failures_max: How many in a row open it.
            probe_every_s: How often one caller looks whether it is over.
            monotonic: Tells the time in seconds.
            told: Hears whether it is open, when that changes.
        """
        self._failures_max = failures_max
        self._probe_every_s = probe_every_s
        self._monotonic = monotonic
        self._told = told
        self._failures = 0
        self._failed_at = float("-inf")
        self._next_probe_at = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether it keeps callers away."""
        return self._failures >= self._failures_max

    def begin(self) -> float | None:
        """Let a caller ask; return what it has to tell with the outcome, or None if it must not ask."""
        now = self._monotonic()
        if self.is_open:
            if now < self._next_probe_at:
                return None
            self._next_probe_at = now + self._probe_every_s
        return now

    def succeeded(self) -> None:
        """Note an answer."""
        was_open, self._failures = self.is_open, 0
        if was_open:
            self._told(False)  # noqa: FBT003  # whether it is open

    def failed(self, began_at: float) -> None:
        """Note that there was none."""
        if began_at < self._failed_at:
            return
        was_open = self.is_open
        self._failures += 1
        self._failed_at = self._monotonic()
        self._next_probe_at = self._failed_at + self._probe_every_s
        if self.is_open and not was_open:
            self._told(True)  # noqa: FBT003  # whether it is open
