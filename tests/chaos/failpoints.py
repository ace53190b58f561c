"""Failpoints: named places on the way of an event at which a worker that is told so kills itself, as kill -9 would.

A file ``arm-<name>`` in the worker's own directory tells it. The worker renames it before it dies, so whoever armed it
can tell a hit from a worker that died of something else.
"""

import os
import signal
import threading
import time
from pathlib import Path

from app.clock import SystemClock

NAMES = (
    "after_send",
    "after_put",
    "after_changelog_ack",
    "after_record_write",
    "before_redis",
    "after_redis",
    "before_commit",
    "after_commit",
    "in_recovery",
)
DIRECTORY = "CHAOS_DIRECTORY"
"""Environment variable with the worker's own directory."""
_POLL_S = 0.1


class Failpoints:
    """The failpoints of one worker process."""

    def __init__(self, directory: Path) -> None:
        self._arms = {name: directory / f"arm-{name}" for name in NAMES}

    def reach(self, name: str) -> None:
        """Die here if this failpoint is armed."""
        if not self._arms[name].exists():
            return
        self._arms[name].rename(self._arms[name].with_name(f"hit-{name}"))
        os.kill(os.getpid(), signal.SIGKILL)
        # The signal may take a moment; nothing may happen in it.
        time.sleep(60)


class SkewedClock(SystemClock):
    """The machine's time, plus what the file ``clock`` in the worker's directory says, in milliseconds."""

    def __init__(self, directory: Path) -> None:
        self._skew_ms = 0
        threading.Thread(target=self._watch, args=(directory / "clock",), daemon=True).start()

    def now_ms(self) -> int:
        """Return milliseconds since the epoch, as far as this worker knows."""
        return super().now_ms() + self._skew_ms

    def _watch(self, path: Path) -> None:
        while True:
            try:
                self._skew_ms = int(path.read_text() or 0)
            except (FileNotFoundError, ValueError):
                self._skew_ms = 0
            time.sleep(_POLL_S)
