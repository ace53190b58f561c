"""Real services that run on after the command that started them: Kafka, Redis and DynamoDB Local in one directory.

A file in the directory says what runs. It is written while everything still hangs on a leash, and only then is the
leash let go: whoever is killed in between leaves nothing behind. A process is taken for ours only if it has the number
*and* the command line that the file says, so that an old file harms nobody whom the system gave the number since.
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from core.errors import ConfigurationError
from services.dynamodb_local import start_dynamodb_local
from services.kafka import start_kafka
from services.leash import Leash
from services.redis_server import start_redis

KILL_DEADLINE_MS = 5_000

_STATE = "services.json"
_NOTHING = "{}"
_KAFKA, _REDIS, _DYNAMODB = _HOMES = ("kafka", "redis", "dynamodb")
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class BackgroundServer:
    """One server that was started.

    Attributes:
        place: Where clients find it: ``host:port`` or a URL.
        log: What it writes to.
        pid: Its process.
        command: The command line of that process.
    """

    name: str
    place: str
    log: str
    pid: int
    command: list[str]

    @property
    def is_alive(self) -> bool:
        """Whether that very process runs."""
        try:
            # One that has ended and that nobody waited for has no command line.
            return psutil.Process(self.pid).cmdline() == self.command
        except psutil.Error:
            return False


@dataclass(frozen=True, slots=True)
class BackgroundServices:
    """What was started in a directory.

    Attributes:
        bootstrap: ``host:port,...`` of Kafka's brokers.
        redis_url: URL of Redis.
        dynamodb_url: Endpoint of DynamoDB Local.
        servers: The processes.
    """

    bootstrap: str
    redis_url: str
    dynamodb_url: str
    servers: tuple[BackgroundServer, ...]

    @property
    def brokers(self) -> int:
        """Return how many brokers Kafka has."""
        return len(self.bootstrap.split(","))


def start_background(directory: Path, *, brokers: int) -> BackgroundServices:
    """Start the services, or find them running; wait until all answer.

    Args:
        directory: Where they keep everything; made if it is not there.
        brokers: How many brokers Kafka shall have.

    Raises:
        ConfigurationError: Some of them run and some have ended; another number of brokers runs; the directory holds
            something that is not ours; there is no JVM or no Maven.
        BrokerError: Kafka did not start.
        StoreError: Redis or DynamoDB Local did not start.
    """
    directory = directory.absolute()
    with _alone(directory):
        running = find_background(directory)
        if running is not None and any(server.is_alive for server in running.servers):
            _refuse_others(running, brokers, directory)
            return running
        _clear(directory)
        # From here on the directory is known for ours, whatever happens.
        (directory / _STATE).write_text(_NOTHING)
        with Leash() as leash:
            started = _start(directory, brokers, leash)
            _write(directory, started)
            leash.let_go()
    return started


def find_background(directory: Path) -> BackgroundServices | None:
    """Return what was started in a directory, whether it still runs or not; None if nothing was.

    Raises:
        ConfigurationError: The file that tells is not one of ours.
    """
    path = directory / _STATE
    try:
        text = path.read_text()
        if text == _NOTHING:
            return None
        told = json.loads(text)
        return BackgroundServices(
            told["bootstrap"],
            told["redis_url"],
            told["dynamodb_url"],
            tuple(BackgroundServer(**server) for server in told["servers"]),
        )
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path} is not what `freshet services up` writes: {error}") from error


def stop_background(directory: Path) -> int:
    """Kill what runs, remove what it left, and the directory if it is empty then; return how many processes ran.

    Nothing that they hold is kept, so nothing is given time to settle.

    Raises:
        ConfigurationError: The file that tells what runs is not one of ours, or a process did not end within 5 s.
    """
    directory = directory.absolute()
    if not directory.is_dir():
        return 0
    with _alone(directory):
        found = find_background(directory)
        alive = [server for server in found.servers if server.is_alive] if found is not None else []
        for server in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(server.pid).kill()
        for server in alive:
            _await_end(server)
        _clear(directory)
        with contextlib.suppress(OSError):
            directory.rmdir()
            if directory.parent.name == ".freshet":
                directory.parent.rmdir()
    return len(alive)


def _start(directory: Path, brokers: int, leash: Leash) -> BackgroundServices:
    for name in _HOMES:
        (directory / name).mkdir()
    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            starting_kafka = pool.submit(start_kafka, directory / _KAFKA, brokers=brokers, leash=leash)
            starting_dynamodb = pool.submit(start_dynamodb_local, directory / _DYNAMODB, leash=leash)
            redis = start_redis(directory / _REDIS, leash=leash)
            kafka, dynamodb = starting_kafka.result(), starting_dynamodb.result()
        except BaseException:
            # Otherwise the others would be waited for until they answer.
            leash.release()
            raise
    return BackgroundServices(
        kafka.bootstrap,
        redis.url,
        dynamodb.url,
        (
            *(_told(f"kafka-{one.node_id}", one.place, one.server.log, one.pid) for one in kafka.brokers),
            _told("redis", redis.url, directory / _REDIS / "redis.log", redis.pid),
            _told("dynamodb", dynamodb.url, dynamodb.server.log, dynamodb.pid),
        ),
    )


def _told(name: str, place: str, log: Path, pid: int) -> BackgroundServer:
    return BackgroundServer(name, place, str(log), pid, psutil.Process(pid).cmdline())


def _refuse_others(running: BackgroundServices, brokers: int, directory: Path) -> None:
    ended = [server for server in running.servers if not server.is_alive]
    if ended:
        names = ", ".join(f"{server.name} (its log: {server.log})" for server in ended)
        raise ConfigurationError(
            f"of the services in {directory} some run, but not {names}; "
            "nothing they hold can be kept: `freshet services down`, then up again"
        )
    if running.brokers != brokers:
        raise ConfigurationError(
            f"Kafka runs in {directory} with {running.brokers} brokers, not {brokers}: `freshet services down` first"
        )


def _write(directory: Path, services: BackgroundServices) -> None:
    # Renamed into its place whole; half a file would say nothing about processes that run.
    whole = directory / _KAFKA / _STATE
    whole.write_text(json.dumps(asdict(services), indent=1))
    whole.replace(directory / _STATE)


def _clear(directory: Path) -> None:
    """Remove what the services left.

    Raises:
        ConfigurationError: There are folders with the names of ours, and no file says that they are.
    """
    ours = (directory / _STATE).exists()
    for name in _HOMES:
        home = directory / name
        if home.exists() and not ours:
            raise ConfigurationError(
                f"{home} is there and was not made by `freshet services up`: give --directory another"
            )
        shutil.rmtree(home, ignore_errors=True)
    (directory / _STATE).unlink(missing_ok=True)


def _await_end(server: BackgroundServer) -> None:
    deadline = time.monotonic() + KILL_DEADLINE_MS / 1000
    while server.is_alive:
        if time.monotonic() > deadline:
            raise ConfigurationError(f"{server.name}, process {server.pid}, did not end within {KILL_DEADLINE_MS} ms")
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the directory against other commands, with a lock that ends with this process; make it if need be."""
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        held = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            # Who had it before may have removed it.
            if directory.is_dir() and os.path.samestat(os.fstat(held), directory.stat()):
                yield
                return
        finally:
            os.close(held)
