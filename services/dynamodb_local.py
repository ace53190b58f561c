"""Amazon's DynamoDB Local as a child process on the loopback interface: the real rules, nothing on disk.

It checks names, conditions and limits as DynamoDB does. It does not throttle, and it takes every key id and secret;
each pair of key id and region has tables of its own.
"""

import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import StoreError
from services.java import fetch_jars, java_command
from services.leash import Leash
from services.server_process import HOST, ServerProcess, free_ports, start_on_free_ports

START_DEADLINE_MS = 60_000
MEMORY_MB = 512

_POM = Path(__file__).parent / "dynamodb_local.pom.xml"
_MAIN = "com.amazonaws.services.dynamodbv2.local.main.ServerRunner"


@dataclass(frozen=True, slots=True)
class DynamoDBLocal:
    """A running DynamoDB Local.

    Attributes:
        port: Where it listens on 127.0.0.1.
        server: Its process.
    """

    port: int
    server: ServerProcess = field(repr=False)
    own_leash: Leash | None = field(repr=False)

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self.server.pid

    @property
    def url(self) -> str:
        """Return the endpoint for clients."""
        return f"http://{HOST}:{self.port}"

    def stop(self) -> None:
        """End the process; what it held is gone. A second call does nothing."""
        # It keeps nothing, so there is nothing to settle.
        self.server.kill()
        if self.own_leash is not None:
            self.own_leash.release()


def start_dynamodb_local(directory: Path, *, leash: Leash | None = None) -> DynamoDBLocal:
    """Start DynamoDB Local on a free port and wait until it lists its tables.

    Args:
        directory: An existing directory for its log, ``dynamodb.log``, and its temporary files.
        leash: What it shall not outlive; by default a leash of its own, so it dies with this process.

    Raises:
        ConfigurationError: There is no JVM, or the jars cannot be fetched.
        StoreError: It did not answer within 60 s; the message holds the end of its log.
        AddressTakenError: Other processes took its port, three times.
    """
    jars = fetch_jars(_POM)
    return start_on_free_ports(lambda: _start(jars, directory.absolute(), leash))


def _start(jars: Path, directory: Path, leash: Leash | None) -> DynamoDBLocal:
    started = _describe(jars, directory, leash)
    try:
        started.server.start()
        started.server.await_answer(lambda: lists_tables(started.port), deadline_ms=START_DEADLINE_MS, error=StoreError)
    except BaseException:
        started.stop()
        raise
    return started


def _describe(jars: Path, directory: Path, leash: Leash | None) -> DynamoDBLocal:
    (port,) = free_ports(1)
    # Its database in memory is SQLite, whose native library lies among the jars.
    java = java_command(jars, directory=directory, memory_mb=MEMORY_MB, options=(f"-Djava.library.path={jars}",))
    command = [*java, _MAIN, "-inMemory", "-disableTelemetry", "-port", str(port)]
    log = directory / "dynamodb.log"
    log.unlink(missing_ok=True)
    end = leash or Leash()
    server = ServerProcess("DynamoDB Local", command, directory=directory, log=log, leash=end)
    return DynamoDBLocal(port, server, None if leash else end)


def lists_tables(port: int) -> bool:
    """Return whether a DynamoDB Local on this port of 127.0.0.1 lists its tables, asked once for at most 1 s."""
    request = urllib.request.Request(
        f"http://{HOST}:{port}/",
        data=b"{}",
        headers={
            "X-Amz-Target": "DynamoDB_20120810.ListTables",
            "Content-Type": "application/x-amz-json-1.0",
            # It wants the form of a signature and does not check it.
            "Authorization": (
                "AWS4-HMAC-SHA256 Credential=ready/20250101/local/dynamodb/aws4_request, "
                "SignedHeaders=host, Signature=none"
            ),
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=1) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
