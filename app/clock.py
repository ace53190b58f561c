"""The clock of a worker. Tests pass another."""

import time


class SystemClock:
    """Implements ``core.ports.Clock`` with the machine's time."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch, UTC."""
        return time.time_ns() // 1_000_000
