"""One server as a child process: started, asked until it answers, stopped, killed, started again.

What it says goes to a file, and the end of that file is part of every error.
"""

import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

from core.errors import BrokerError, FreshetError, StoreError
from services.leash import Leash

HOST = "127.0.0.1"
STOP_DEADLINE_MS = 10_000
_ATTEMPTS = 3
_LOG_TAIL = 2_000
_POLL_SECONDS = 0.05

_Started = TypeVar("_Started")


class AddressTakenError(FreshetError):
    """Another process took the port between our looking and the server's binding: try again with another."""


class ServerProcess:
    """A server that logs to a file.

    Attributes:
        name: What messages call it.
        log: Where it writes; kept over restarts.
    """

    def __init__(self, name: str, command: Sequence[str], *, directory: Path, log: Path, leash: Leash) -> None:
        """Describe a server; ``start`` starts it.

        Args:
            name: What messages call it.
            command: Program and arguments.
            directory: Its working directory.
            log: File for its output.
            leash: What it shall not outlive.
        """
        self.name = name
        self.log = log
        self._command = list(command)
        self._directory = directory
        self._leash = leash
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """Return the process of the latest start."""
        if self._process is None:
            raise ValueError(f"{self.name} was never started")
        return self._process

    @property
    def pid(self) -> int:
        """Return the id of the process of the latest start."""
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, without waiting for an answer; does nothing if it runs."""
        if self.is_alive:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own server, our own arguments
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                process_group=self._leash.group,
            )

    def await_answer(
        self, answers: Callable[[], bool], *, deadline_ms: int, error: type[StoreError | BrokerError]
    ) -> None:
        """Wait until the server answers.

        Args:
            answers: Asks it once, within about a second.
            deadline_ms: How long to wait.
            error: What to raise if it ends, or does not answer in time; the message holds the end of its log.

        Raises:
            AddressTakenError: It ended because somebody has its port.
        """
        deadline = time.monotonic() + deadline_ms / 1000
        while True:
            answered = answers()
            # Asked after the question: with the process gone, somebody else answered.
            if not self.is_alive:
                said = self.log_tail()
                if "BindException" in said or "Address already in use" in said:
                    raise AddressTakenError(f"{self.name}: its port is taken:\n{said}")
                raise error(f"{self.name} ended with status {self.process.returncode}; the end of {self.log}:\n{said}")
            if answered:
                return
            if time.monotonic() > deadline:
                said = self.log_tail()
                raise error(f"{self.name} did not answer within {deadline_ms} ms; the end of {self.log}:\n{said}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Let it settle and end, at most 10 s until it is killed; a second call does nothing."""
        if not self.is_alive:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_DEADLINE_MS / 1000)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would, by kill -9, and wait for it."""
        if self.is_alive:
            self.process.kill()
            self.process.wait()

    def log_tail(self) -> str:
        """Return the end of what it wrote."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _LOG_TAIL))
            return log.read().decode(errors="replace").strip()


def start_on_free_ports(start: Callable[[], _Started]) -> _Started:
    """Return what ``start`` returns; it chooses free ports, and is called again if another process was faster.

    Raises:
        AddressTakenError: Somebody was faster three times in a row.
    """
    for _ in range(_ATTEMPTS - 1):
        with suppress(AddressTakenError):
            return start()
    return start()


def free_ports(number: int) -> list[int]:
    """Return ports that are free now; another process may take one before the server binds it."""
    with ExitStack() as opened:
        # All are held until the last is known, so that no port comes twice.
        listeners = [opened.enter_context(socket.create_server((HOST, 0))) for _ in range(number)]
        return [int(listener.getsockname()[1]) for listener in listeners]
