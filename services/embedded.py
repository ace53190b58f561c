"""The embedded services: a broker and Redis in one child process that cannot outlive its parent.

``start_embedded`` starts ``python -m services.embedded`` and talks to it over its standard streams: one JSON line in
(which topics), one JSON line out (where things listen). Then the child waits for the end of its input. The pipe ends
when the parent closes it or dies, even by kill -9, and the child stops what it started and removes its directory.
Nothing is kept. A child whose Redis ends ends too: half of the services is none, and whoever uses them must hear of it.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn

from core.errors import BrokerError
from services.broker import EmbeddedBroker
from services.redis_server import RedisProcess, find_redis_server, start_redis

START_DEADLINE_MS = 10_000
STOP_DEADLINE_MS = 2_000

_WATCH_S = 0.5
_REDIS_ENDED_STATUS = 3


@dataclass(frozen=True, slots=True)
class EmbeddedServices:
    """Where the embedded services listen.

    Attributes:
        broker: ``host:port`` of the Kafka broker.
        redis_url: URL of Redis, or None where this machine has no redis-server.
        directory: Temporary directory of the services; it disappears with them.
    """

    broker: str
    redis_url: str | None
    directory: Path
    process: "subprocess.Popen[bytes]" = field(repr=False)

    @property
    def record_path(self) -> Path:
        """Return the place for the record, a SQLite file; it disappears with the services."""
        return self.directory / "record.sqlite"

    def is_alive(self) -> bool:
        """Return whether the child process still runs."""
        return self.process.poll() is None

    def require_alive(self) -> None:
        """Refuse to go on without the services.

        Raises:
            BrokerError: They have ended; it says how.
        """
        status = self.process.poll()
        if status is not None:
            how = "redis-server ended" if status == _REDIS_ENDED_STATUS else f"their process ended with status {status}"
            raise BrokerError(f"the embedded broker and Redis are gone: {how}; what they held is lost, start again")

    def stop(self) -> None:
        """Stop the services and remove their directory, within 2 s; a second call does nothing."""
        _stop(self.process)
        # The child has done this itself, unless it was killed.
        shutil.rmtree(self.directory, ignore_errors=True)


def start_embedded(topics: Mapping[str, int]) -> EmbeddedServices:
    """Start a broker with these topics (name to number of partitions), and Redis if this machine has one.

    The child has a session of its own: Ctrl-C in the terminal reaches only the parent, which then stops in its order.

    Raises:
        BrokerError: The services did not start within 10 s; the message carries what the child said.
    """
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.embedded"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A file and not a pipe: nobody reads it while the services run, and a full pipe would block them.
            stderr=complaints,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
        try:
            answer = _ask(process, json.dumps({"topics": dict(topics)}).encode() + b"\n")
        except (OSError, TimeoutError) as error:
            _stop(process)
            raise BrokerError(f"the embedded services did not start: {error}\n{_text(complaints)}".rstrip()) from error
        except BaseException:
            _stop(process)
            raise
    return EmbeddedServices(
        broker=answer["broker"], redis_url=answer["redis"], directory=Path(answer["directory"]), process=process
    )


def main() -> None:
    """Be the child: read the request, start, answer, wait for the end of the input, stop."""
    # What a supervisor or a shell would send: leave through the same door as when the parent dies.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _leave)
    request = sys.stdin.buffer.readline()
    if not request:
        return
    with ExitStack() as opened:
        directory = Path(
            opened.enter_context(tempfile.TemporaryDirectory(prefix="freshet-", ignore_cleanup_errors=True))
        )
        broker = EmbeddedBroker(json.loads(request)["topics"])
        opened.callback(broker.close)
        redis = None
        if find_redis_server():
            redis = start_redis(directory, own_session=False)
            opened.callback(redis.stop)
        answer = {"broker": broker.bootstrap, "redis": redis and redis.url, "directory": str(directory)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        _wait_for_end(redis)


def _wait_for_end(redis: RedisProcess | None) -> None:
    """Return at the end of the input; a Redis that ends before is this process's end too."""
    while redis is None or redis.process.poll() is None:
        readable, _, _ = select.select([sys.stdin], [], [], _WATCH_S)
        if readable and not os.read(sys.stdin.fileno(), 4096):
            return
    raise SystemExit(_REDIS_ENDED_STATUS)


def _leave(number: int, _frame: object) -> NoReturn:
    # A second signal must not interrupt the cleaning up.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _ask(process: "subprocess.Popen[bytes]", request: bytes) -> dict[str, str]:
    """Return the child's answer.

    Raises:
        TimeoutError: No answer within 10 s.
        OSError: The child ended without one.
    """
    stdin, stdout = _pipes(process)
    stdin.write(request)
    stdin.flush()
    deadline = time.monotonic() + START_DEADLINE_MS / 1000
    received = b""
    while not received.endswith(b"\n"):
        readable, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise TimeoutError(f"no answer within {START_DEADLINE_MS} ms")
        chunk = os.read(stdout.fileno(), 65536)
        if not chunk:
            raise OSError("the child process ended")
        received += chunk
    answer: dict[str, str] = json.loads(received)
    return answer


def _stop(process: "subprocess.Popen[bytes]") -> None:
    stdin, stdout = _pipes(process)
    if stdout.closed:
        return
    # What could not be written to a dead child raises once more when the pipe is closed.
    with suppress(BrokenPipeError):
        stdin.close()
    try:
        stopped = process.wait(STOP_DEADLINE_MS / 1000) == 0
    except subprocess.TimeoutExpired:
        stopped = False
    if not stopped:
        # The child is stuck, or was killed and left Redis behind: the session is ours alone, so all of it goes.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    stdout.close()


def _pipes(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the child was started without pipes")
    return process.stdin, process.stdout


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()[-4000:]


if __name__ == "__main__":
    main()
