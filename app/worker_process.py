"""A worker in a process of its own, started and stopped by the one who needs it."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigurationError

_START_DEADLINE_S = 30.0
# Whoever presses Ctrl-C is promised 3 s for everything; what the worker could still settle is on embedded services, and
# goes with them.
_STOP_DEADLINE_S = 1.5
_LOG_TAIL = 2_000


@dataclass(slots=True)
class WorkerProcess:
    """A started worker.

    Attributes:
        base_url: Where it serves.
        log: The file that it logs to.
    """

    process: "subprocess.Popen[bytes]"
    base_url: str
    log: Path

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def wait_ready(self, *, deadline_s: float = _START_DEADLINE_S) -> None:
        """Wait until it has taken over its partitions.

        Raises:
            ConfigurationError: It ended, or was not ready in time; the message has the end of its log.
        """
        deadline = time.monotonic() + deadline_s
        while not self.answers():
            if not self.is_alive or time.monotonic() > deadline:
                state = "ended" if not self.is_alive else f"was not ready after {deadline_s:.0f} s"
                raise ConfigurationError(f"the worker {state}; the end of its log:\n{self.log_tail()}")
            time.sleep(0.05)

    def wait_end(self, *, deadline_s: float) -> None:
        """Wait until it has ended by itself, or until the deadline."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(deadline_s)

    def log_tail(self) -> str:
        """Return the end of the log."""
        return self.log.read_text(errors="replace")[-_LOG_TAIL:]

    def stop(self) -> None:
        """Let it settle and commit, then end it in any case."""
        if not self.is_alive:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def answers(self) -> bool:
        """Whether it has taken over its partitions, as far as it tells."""
        try:
            with urllib.request.urlopen(f"{self.base_url}/ready/ingest", timeout=1) as answer:  # noqa: S310  # loopback
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def start_worker(environment: Mapping[str, str], *, web_port: int, log: Path) -> WorkerProcess:
    """Start ``faust -A app.worker worker`` in a session of its own, so that Ctrl-C reaches its parent alone.

    Args:
        environment: ``FRESHET_*`` settings beside the current environment.
        web_port: Port to serve at.
        log: File to log to.
    """
    settings = {**os.environ, **environment, "FRESHET_WEB_PORT": str(web_port), "FRESHET_EXIT_WITH_PARENT": "true"}
    with log.open("wb") as output:
        process = subprocess.Popen(  # our own interpreter and module
            [sys.executable, "-m", "faust", "-A", "app.worker", "worker", "-l", "info"],
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return WorkerProcess(process, f"http://127.0.0.1:{web_port}", log)
